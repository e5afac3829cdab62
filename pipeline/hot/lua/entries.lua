-- What is known of the entries of some keys, and how much all keys are asked for; in one atomic step that changes nothing.
--
-- KEYS[1] scores   sorted set: key -> how much it is asked for
-- KEYS[2] tail     KEYS[3] records   of the log (see the cache's append.lua)
-- KEYS[4..] entries
-- ARGV[1] the most records to return      ARGV[2] so many bytes of each entry are returned, from its beginning
--
-- Returns {the server's clock (ms); the sum of all scores; the tail ('' for none); pattern and seq in turn, of the newest records;
-- the beginning of each entry ('' for none)}. The clock and the sum are texts: a number would be cut to a whole one.
local now = redis.call('TIME')
local sum = 0
local scores = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 2, #scores, 2 do
  sum = sum + tonumber(scores[i])
end
local heads = {}
for i = 4, #KEYS do
  heads[i - 3] = string.sub(redis.call('GET', KEYS[i]) or '', 1, tonumber(ARGV[2]))
end
return {
  string.format('%.3f', now[1] * 1000 + now[2] / 1000),
  string.format('%.17g', sum),
  redis.call('GET', KEYS[2]) or '',
  redis.call('ZREVRANGE', KEYS[3], 0, ARGV[1] - 1, 'WITHSCORES'),
  heads,
}
