-- Note that a node is alive, and read the log's tail in the same round trip. After history.lua.
--
-- KEYS[1] nodes    sorted set: node's id -> server time (ms) of its last beat; and '' -> when this set began
-- KEYS[2] tail     string "epoch:seq:floor"
-- KEYS[3] records  (see append.lua)
-- ARGV[1] the node's id ('' to read only)   ARGV[2] how long (ms) a silent node is remembered
-- ARGV[3] how long ago (ms) the beat is to have been: 0, or more for a node that ends and is to be forgotten sooner
--
-- Returns {tail, or '' when the log is not there or must begin anew; how long (ms) there has been a set of nodes, -1 for none,
-- ARGV[2] for at least that; the ids of the nodes that beat within ARGV[2]}. A beat is told the tail alone.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local silent_ms = tonumber(ARGV[2])
local beats = ARGV[1] ~= ''
if beats then
  -- An idle node's commands are its beats, so that there are few: the ids of the silent go when another one comes.
  if redis.call('ZADD', KEYS[1], now_ms - tonumber(ARGV[3]), ARGV[1]) == 1 then
    if redis.call('ZCARD', KEYS[1]) == 1 then
      redis.call('ZADD', KEYS[1], now_ms, '')
    end
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - silent_ms)
  end
  redis.call('PEXPIRE', KEYS[1], 2 * silent_ms)
  -- No process reads these while nothing is invalidated: a server that evicts what is used least would take them first. Many
  -- looks a beat hold their place above every entry (its counter grows with the logarithm of the looks, and decays by the
  -- minute): so many that the beats of one idle node are enough, and in one command.
  local looked_at = {}
  for look = 1, 140 do
    looked_at[look] = KEYS[3]
  end
  for _ = 1, 20 do
    table.insert(looked_at, KEYS[1])
    table.insert(looked_at, KEYS[2])
  end
  redis.call('TOUCH', unpack(looked_at))
end
local tail = redis.call('GET', KEYS[2]) or ''
if not standing(tail) then
  tail = ''
end
if beats then
  return {tail, -1, {}}
end
local age_ms = -1
if redis.call('EXISTS', KEYS[1]) == 1 then
  local since = redis.call('ZSCORE', KEYS[1], '')
  age_ms = since and math.min(silent_ms, math.max(0, now_ms - tonumber(since))) or silent_ms
end
local names = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now_ms - silent_ms, '+inf')) do
  if name ~= '' then
    table.insert(names, name)
  end
end
return {tail, age_ms, names}
