-- Keep how many messages wait, and mark the nodes that fell silent. Sent again it does no harm: it adds nothing up.
--
-- KEYS[1] heard  sorted set: node -> server time (ms) at which it last told that it lives
-- KEYS[2] marks  list of JSON, newest first
-- KEYS[3] watch  hash: `last`, when anybody last ran this; `since`, from when on without a gap
-- KEYS[4..] slots (hashes)
-- ARGV[1] after how long (ms) silence is a loss    ARGV[2] how long (ms) a gap is
-- ARGV[3] how long (ms) marks and watch live       ARGV[4] how many marks are kept
-- ARGV[5..] how long (ms) each of the slots lives, then fields of the slots, each with its amount: the larger of the two stays
--
-- Returns the server's time in ms.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

local function text(ms)
  return string.format('%.0f', ms)
end

local last = tonumber(redis.call('HGET', KEYS[3], 'last') or '0')
local since = tonumber(redis.call('HGET', KEYS[3], 'since') or '0')
if now_ms - last > tonumber(ARGV[2]) then
  -- The server, or the way to it, may have been away from all: nobody could tell, so that silence proves nothing.
  since = now_ms
  redis.call('HSET', KEYS[3], 'since', text(now_ms))
end
redis.call('HSET', KEYS[3], 'last', text(now_ms))
redis.call('PEXPIRE', KEYS[3], ARGV[3])

if now_ms - since >= tonumber(ARGV[1]) then
  local silent = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(now_ms - ARGV[1]), 'WITHSCORES')
  for at = 1, #silent, 2 do
    redis.call('ZREM', KEYS[1], silent[at])
    redis.call('LPUSH', KEYS[2], cjson.encode({kind = 'lost', at = silent[at + 1] / 1000, name = silent[at]}))
    redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1)
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
  end
end

local slots = #KEYS - 3
for at = 5 + slots, #ARGV, 2 do
  for slot = 1, slots do
    local key = KEYS[3 + slot]
    if tonumber(redis.call('HGET', key, ARGV[at]) or '-1') < tonumber(ARGV[at + 1]) then
      redis.call('HSET', key, ARGV[at], ARGV[at + 1])
      redis.call('PEXPIRE', key, ARGV[4 + slot])
    end
  end
end
return now_ms
