-- Read the log for the auditor, in one atomic step. It begins no log, and shares nothing with the scripts of the log.
--
-- KEYS[1] tail   KEYS[2] records   KEYS[3] moments   (see append.lua)
-- ARGV[1] epoch ARGV[2] seq: what the caller has ('' and 0: nothing)   ARGV[3] the most records, and the most moments, to return
-- ARGV[4] server time (us) from which on moments are of interest
--
-- Returns {seconds and microseconds of the server's clock; the tail ('' for none); the first 8 characters of the server's
-- replication id; the seq since which the records are whole; records, pattern and seq in turn; moments, member and time in turn}.
-- The records are those after the caller's seq, by rising seqs; to a caller that has nothing of this epoch, the newest.
local now = redis.call('TIME')
-- GETEX changes nothing, and a replica refuses it: a master that was demoted tells of no log.
local tail = redis.call('GETEX', KEYS[1]) or ''
local history = string.sub(string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '', 1, 8)
local epoch, seq = string.match(tail, '^([^:]+):(%d+):%d+$')
if not epoch then
  return {now[1], now[2], '', history, 0, {}, {}}
end
local whole = redis.call('ZSCORE', KEYS[2], '')
whole = whole and tonumber(whole) or tonumber(seq)
local records
if ARGV[1] == epoch then
  records = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
else
  records = redis.call('ZREVRANGEBYSCORE', KEYS[2], '+inf', '(0', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
end
local moments = {}
if #records > 0 then
  moments = redis.call('ZREVRANGEBYSCORE', KEYS[3], '+inf', ARGV[4], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
end
return {now[1], now[2], tail, history, whole, records, moments}
