#!lua flags=allow-oom
-- Take a claim aside until its time has come, unless too many are aside.
-- KEYS: the claims, what is aside. ARGV: the item; its list; when it is due, in ms since 1970; its new form; how many may be aside.
-- Returns whether it is aside.
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then
  return 0
end
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 1 then
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2] .. '\n' .. ARGV[4])
end
return 1
