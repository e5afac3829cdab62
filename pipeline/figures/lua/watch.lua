-- Note who lives and of which version, mark what appeared or fell silent, and keep how many messages wait. Sent again it does
-- no harm: it adds nothing up.
--
-- KEYS[1] heard     sorted set: node -> server time (ms) at which it last told that it lives
-- KEYS[2] versions  sorted set: version -> server time (ms) at which a node last told it
-- KEYS[3] marks     list of JSON, newest first
-- KEYS[4] watch     hash: `last`, when anybody last ran this; `since`, from when on without a gap
-- KEYS[5..] slots (hashes)
-- ARGV[1] the node, '' for one that only looks    ARGV[2] its version, '' if it leaves
-- ARGV[3] after how long (ms) silence is a loss   ARGV[4] how long (ms) a gap is   ARGV[5] how long (ms) a version is remembered
-- ARGV[6] how long (ms) all this lives            ARGV[7] how many marks are kept
-- ARGV[8..] how long (ms) each of the slots lives, then fields of the slots, each with its amount: the larger of the two stays
--
-- Returns the server's time in ms.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local node, version = ARGV[1], ARGV[2]

local function text(ms)
  return string.format('%.0f', ms)
end

local function mark(kind, at_ms, name)
  redis.call('LPUSH', KEYS[3], cjson.encode({kind = kind, at = at_ms / 1000, name = name}))
  redis.call('LTRIM', KEYS[3], 0, ARGV[7] - 1)
  redis.call('PEXPIRE', KEYS[3], ARGV[6])
end

local last = tonumber(redis.call('HGET', KEYS[4], 'last') or '0')
local since = tonumber(redis.call('HGET', KEYS[4], 'since') or '0')
if now_ms - last > tonumber(ARGV[4]) then
  -- The server, or the way to it, was away from all: nobody could tell, so that silence proves nothing.
  since = now_ms
  redis.call('HSET', KEYS[4], 'since', text(now_ms))
end
redis.call('HSET', KEYS[4], 'last', text(now_ms))
redis.call('PEXPIRE', KEYS[4], ARGV[6])

if node ~= '' and version == '' then
  redis.call('ZREM', KEYS[1], node)
elseif node ~= '' then
  redis.call('ZADD', KEYS[1], now_ms, node)
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  local told = redis.call('ZSCORE', KEYS[2], version)
  if not told or now_ms - told > tonumber(ARGV[5]) then
    local newest = redis.call('ZREVRANGE', KEYS[2], 0, 0)[1]
    if newest ~= version then
      mark('version', now_ms, version)
    end
  end
  redis.call('ZADD', KEYS[2], now_ms, version)
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
  if redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[7]) then
    redis.call('ZREM', KEYS[2], redis.call('ZRANGE', KEYS[2], 0, 0)[1])
  end
end

if now_ms - since >= tonumber(ARGV[3]) then
  local silent = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(now_ms - ARGV[3]), 'WITHSCORES')
  for at = 1, #silent, 2 do
    redis.call('ZREM', KEYS[1], silent[at])
    mark('lost', tonumber(silent[at + 1]), silent[at])
  end
end

local slots = #KEYS - 4
for at = 8 + slots, #ARGV, 2 do
  for slot = 1, slots do
    local key = KEYS[4 + slot]
    if tonumber(redis.call('HGET', key, ARGV[at]) or '-1') < tonumber(ARGV[at + 1]) then
      redis.call('HSET', key, ARGV[at], ARGV[at + 1])
      redis.call('PEXPIRE', key, ARGV[7 + slot])
    end
  end
end
return now_ms
