-- Count what was asked for, and let the scores decay; in one atomic step. Without counts: decay and trim only.
--
-- KEYS[1] scores   sorted set: key -> score
-- KEYS[2] decayed  string: server time (ms) at which the scores last decayed
-- ARGV[1] the time (ms) in which a score halves        ARGV[2] decay if it was so long ago (ms); 0: now
-- ARGV[3] how many keys are kept                       ARGV[4] the score below which a key is not kept
-- ARGV[5] how long (ms) all of it lives without being counted
-- ARGV[6] how many keys, from the highest score down, are hot   ARGV[7] the score from which one is
-- ARGV[8..] key, how often it was asked for
--
-- Returns {the keys that are not kept any more, those of ARGV that are hot}.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local gone = {}

local decayed_ms = tonumber(redis.call('GET', KEYS[2]) or '')
if not decayed_ms or decayed_ms > now_ms then
  decayed_ms = now_ms
  redis.call('SET', KEYS[2], string.format('%.0f', now_ms))
elseif now_ms - decayed_ms >= tonumber(ARGV[2]) then
  local share = 0.5 ^ ((now_ms - decayed_ms) / ARGV[1])
  redis.call('ZUNIONSTORE', KEYS[1], 1, KEYS[1], 'WEIGHTS', string.format('%.17g', share))
  gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4])
  redis.call('SET', KEYS[2], string.format('%.0f', now_ms))
end

for i = 8, #ARGV, 2 do
  redis.call('ZINCRBY', KEYS[1], ARGV[i + 1], ARGV[i])
end
local over = redis.call('ZCARD', KEYS[1]) - ARGV[3]
if over > 0 then
  for _, key in ipairs(redis.call('ZRANGE', KEYS[1], 0, over - 1)) do
    gone[#gone + 1] = key
  end
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, over - 1)
end
if #ARGV >= 8 then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end

local hot = {}
for i = 8, #ARGV, 2 do
  local rank = redis.call('ZREVRANK', KEYS[1], ARGV[i])
  if rank and rank < tonumber(ARGV[6]) and tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i])) >= tonumber(ARGV[7]) then
    hot[#hot + 1] = ARGV[i]
  end
end
return {gone, hot}
