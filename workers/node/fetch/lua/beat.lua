#!lua flags=allow-oom
-- A node shows that it lives, by this server's clock, and names the lists that it may have claims from.
-- KEYS: the nodes' times, the node's sources, then the claims from each source.
-- ARGV: the node; from which silence on, in ms, a node counts as dead; the sources.
-- Returns how many claims there are, and the names of some silent nodes.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
redis.call('SADD', KEYS[2], unpack(ARGV, 3))
local count = 0
if redis.call('EXISTS', unpack(KEYS, 3)) > 0 then
  for i = 3, #KEYS do
    count = count + redis.call('LLEN', KEYS[i])
  end
end
return {count, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms - tonumber(ARGV[2]), 'LIMIT', 0, 100)}
