-- Claim a name, or learn its holder; in one atomic step.
--
-- KEYS[1] claim   string "owner epoch seq", with " +" behind it once another caller shares it
-- ARGV[1] the caller's claim   ARGV[2] its time to live (ms)
-- ARGV[3] '1': the caller will share the holder's outcome; this marks the claim
--
-- Returns false when the claim is now the caller's, else the holder's.
local held = redis.call('GET', KEYS[1])
if not held then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return false
end
if ARGV[3] == '1' and string.sub(held, -2) ~= ' +' then
  redis.call('SET', KEYS[1], held .. ' +', 'KEEPTTL')
end
return held
