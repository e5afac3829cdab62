#!lua flags=allow-oom
-- Put claims back at the head of their list, each in the form that it is to have there, if they still are claims.
-- KEYS: the claims, their list, the nodes' times.
-- ARGV: the node whose claims they are if it must have been silent, else ''; for how many ms; then for each claim, the newest first,
-- the item and its new form.
-- Returns how many it put back; -1 if the node is not silent.
if ARGV[1] ~= '' then
  local time = redis.call('TIME')
  local at_ms = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or 0)
  if time[1] * 1000 + math.floor(time[2] / 1000) - at_ms < tonumber(ARGV[2]) then
    return -1
  end
end
local given = 0
for i = 3, #ARGV, 2 do
  if redis.call('LREM', KEYS[1], 1, ARGV[i]) == 1 then
    redis.call('RPUSH', KEYS[2], ARGV[i + 1])
    given = given + 1
  end
end
return given
