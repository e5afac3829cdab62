#!lua flags=allow-oom
-- Forget a node that has been silent for long and has no claims.
-- KEYS: the nodes' times, the node's sources, then the claims from each source. ARGV: the node; for how many ms.
-- Returns whether it did.
local time = redis.call('TIME')
local at_ms = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if time[1] * 1000 + math.floor(time[2] / 1000) - at_ms < tonumber(ARGV[2]) or redis.call('EXISTS', unpack(KEYS, 3)) > 0 then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
