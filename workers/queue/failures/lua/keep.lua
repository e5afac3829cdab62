-- Keep a failed task, in the place of an earlier failure of the same one, and let go of the oldest where there are too many.
-- KEYS: the index, the letter, the count of all.
-- ARGV: the letter's id, the letter, for how long it is kept (s), how many are kept, how the letters' names begin.
-- Returns how many are kept.
local time = redis.call('TIME')
local at_us = time[1] * 1000000 + time[2]
redis.call('INCRBY', KEYS[3], 1)
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('ZADD', KEYS[1], at_us, ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', at_us - 1000000 * ARGV[3], 'LIMIT', 0, 100)
for _, id in ipairs(old) do
  redis.call('ZREM', KEYS[1], id)
end
local over = redis.call('ZCARD', KEYS[1]) - ARGV[4]
if over > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, over - 1)) do
    redis.call('ZREM', KEYS[1], id)
    redis.call('DEL', ARGV[5] .. id)
  end
end
return redis.call('ZCARD', KEYS[1])
