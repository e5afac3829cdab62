-- Append patterns to the invalidation log, in one atomic step.
--
-- KEYS[1] tail     string "epoch:seq:floor"
-- KEYS[2] records  sorted set: pattern -> seq of its latest invalidation
-- KEYS[3] marks    sorted set: seq -> server time (ms) at which the log stood there; sparse
-- ARGV[1] epoch to begin with when there is no log (random, made by the caller)
-- ARGV[2] retention (ms): no living entry is older, so that older records judge nothing
-- ARGV[3] how many records may be kept; beyond that the oldest tenth goes and floor rises
-- ARGV[4..] patterns; each takes one seq
--
-- Returns the tail after it. The last pattern holds the tail's seq: a reader that does not find it knows that records were
-- lost (evicted), see log.py.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local tail = redis.call('GET', KEYS[1])
local epoch, seq, floor
if tail then
  epoch, seq, floor = string.match(tail, '^([!-9;-~]+):(%d+):(%d+)$')
end
if not epoch then
  epoch, seq, floor = ARGV[1], 0, 0
  redis.call('DEL', KEYS[2], KEYS[3])
end
seq, floor = tonumber(seq), tonumber(floor)
if seq > floor and redis.call('EXISTS', KEYS[2]) == 0 then
  floor = seq
end

for i = 4, #ARGV do
  seq = seq + 1
  redis.call('ZADD', KEYS[2], seq, ARGV[i])
end

local retention = tonumber(ARGV[2])
local last = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')
-- Sixty marks a retention are fine enough: a record lives at most a sixtieth longer than it must.
if not last[1] or now_ms - tonumber(last[2]) >= retention / 60 then
  redis.call('ZADD', KEYS[3], now_ms, seq)
end
local old = redis.call('ZREVRANGEBYSCORE', KEYS[3], now_ms - retention, '-inf', 'LIMIT', 0, 1)
if old[1] then
  floor = math.max(floor, tonumber(old[1]))
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now_ms - retention)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', floor)
end
local most = tonumber(ARGV[3])
local size = redis.call('ZCARD', KEYS[2])
if size > most then
  local last_cut = math.max(math.ceil(most / 10), size - most) - 1
  local cut = redis.call('ZRANGE', KEYS[2], last_cut, last_cut, 'WITHSCORES')
  floor = math.max(floor, tonumber(cut[2]))
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', floor)
end
-- Records and marks that nobody renews judge nothing any more. The tail lives on for as long as anyone may still use the
-- cache without invalidating: if it went, a new epoch would make every entry a miss.
redis.call('PEXPIRE', KEYS[2], 2 * retention)
redis.call('PEXPIRE', KEYS[3], 2 * retention)
local after = epoch .. ':' .. string.format('%d', seq) .. ':' .. string.format('%d', floor)
redis.call('SET', KEYS[1], after, 'PX', math.max(2 * retention, 30 * 24 * 3600 * 1000))
return after
