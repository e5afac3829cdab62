-- Note that a node lives and of which version it is; mark a version that appears. An idle node's commands are these, so that they
-- are few. Sent again it does no harm.
--
-- KEYS[1] heard     sorted set: node -> server time (ms) at which it last told that it lives
-- KEYS[2] versions  sorted set: version -> server time (ms) at which a node told it
-- KEYS[3] marks     list of JSON, newest first
-- ARGV[1] the node    ARGV[2] its version, '' if it leaves    ARGV[3] how long (ms) all this lives
-- ARGV[4] how many nodes, versions and marks are kept         ARGV[5] after how long (ms) a version is told anew
-- ARGV[6] after how long (ms) without being told it appears anew
--
-- Returns the server's time in ms.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local version = ARGV[2]

local function put(key, member)
  if redis.call('ZADD', key, now_ms, member) == 1 then
    redis.call('PEXPIRE', key, ARGV[3])
    redis.call('ZREMRANGEBYRANK', key, 0, -1 - ARGV[4])
  end
end

if version == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return now_ms
end
put(KEYS[1], ARGV[1])
local told_ms = tonumber(redis.call('ZSCORE', KEYS[2], version) or '0')
if now_ms - told_ms < tonumber(ARGV[5]) then
  return now_ms
end
if now_ms - told_ms > tonumber(ARGV[6]) and redis.call('ZREVRANGE', KEYS[2], 0, 0)[1] ~= version then
  redis.call('LPUSH', KEYS[3], cjson.encode({kind = 'version', at = now_ms / 1000, name = version}))
  redis.call('LTRIM', KEYS[3], 0, ARGV[4] - 1)
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
put(KEYS[2], version)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return now_ms
