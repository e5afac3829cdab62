-- Append patterns to the invalidation log, in one atomic step. After history.lua.
--
-- KEYS[1] tail     string "epoch:seq:floor"
-- KEYS[2] records  sorted set: pattern -> seq of its latest invalidation; and '' -> the seq since which these records are whole
-- KEYS[3] marks    sorted set: seq -> server time (ms) at which the log stood there; sparse
-- KEYS[4] moments  sorted set: "epoch:before:seq" -> server time (us) at which an append took the log from `before` to `seq`; of the
--                 last appends only, for the auditor: nothing that is served depends on it
-- ARGV[1] 8 characters for the epoch, should the log begin now (random, made by the caller)
-- ARGV[2] retention (ms): no living entry is older, so that older records judge nothing
-- ARGV[3] the most records to keep; beyond that the oldest tenth goes and floor rises
-- ARGV[4] the channel of notices
-- ARGV[5..] patterns; each takes one seq
--
-- Returns the tail after it. The last pattern holds the tail's seq.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local epoch, seq, floor = standing(redis.call('GET', KEYS[1]))
if not epoch then
  epoch, seq, floor = begun(ARGV[1]), 0, 0
  redis.call('DEL', KEYS[2], KEYS[3])
end
local before = seq
local told = {}
for i = 5, #ARGV do
  seq = seq + 1
  redis.call('ZADD', KEYS[2], seq, ARGV[i])
  told[i - 4] = ARGV[i]
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
end
local most = tonumber(ARGV[3])
local size = redis.call('ZCARD', KEYS[2]) - 1
if size > most then
  local last_cut = math.max(math.ceil(most / 10), size - most)
  local cut = redis.call('ZRANGE', KEYS[2], last_cut, last_cut, 'WITHSCORES')
  floor = math.max(floor, tonumber(cut[2]))
end
-- The floor does not rise for evicted records: readers that have them in memory do not miss them, and a reader that stands behind
-- `whole` does without them.
local whole = redis.call('ZSCORE', KEYS[2], '')
whole = math.max(floor, whole and tonumber(whole) or before)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', floor)
redis.call('ZADD', KEYS[2], whole, '')
-- Records and marks that no append renews judge nothing any more. The tail lives on for as long as any process may still use the
-- cache without invalidating: if it went, a new epoch would make every entry a miss.
redis.call('PEXPIRE', KEYS[2], 2 * retention)
redis.call('PEXPIRE', KEYS[3], 2 * retention)
redis.call('ZADD', KEYS[4], now[1] * 1000000 + now[2], epoch .. ':' .. string.format('%d:%d', before, seq))
local excess = redis.call('ZCARD', KEYS[4]) - 2000
if excess > 0 then
  local last = redis.call('ZRANGE', KEYS[4], excess - 1, excess - 1, 'WITHSCORES')
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', last[2])
end
redis.call('PEXPIRE', KEYS[4], 2 * retention)
local after = text(epoch, seq, floor)
redis.call('SET', KEYS[1], after, 'PX', math.max(2 * retention, DAYS_30_MS))
-- The notice, "tail before patterns": a hint, for which the append does not fail (a user without the right to publish). In this
-- step, so that notices come in the order of the seqs. Of many patterns the tail alone: its hearers read the log.
local patterns = cjson.encode(told)
redis.pcall('PUBLISH', ARGV[4], after .. ' ' .. string.format('%d', before) .. ' ' .. (#patterns <= 16384 and patterns or ''))
return after
