-- Note that a node is alive, and read the log's tail in the same round trip.
--
-- KEYS[1] nodes  sorted set: node name -> server time (ms) of its last beat
-- KEYS[2] tail   string "epoch:seq:floor"
-- ARGV[1] the node's name ('' to read only)   ARGV[2] how long (ms) a silent node is remembered
--
-- Returns {tail or '', names of the nodes that beat within ARGV[2]}.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - ARGV[2])
  redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
end
return {redis.call('GET', KEYS[2]) or '', redis.call('ZRANGEBYSCORE', KEYS[1], now_ms - ARGV[2], '+inf')}
