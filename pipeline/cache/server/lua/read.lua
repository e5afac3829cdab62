-- Read the log from where the caller stands; in one atomic step. A log that is not there begins. After history.lua.
--
-- KEYS[1] tail   KEYS[2] records   KEYS[3] marks   (see append.lua)
-- ARGV[1] epoch ARGV[2] seq: where the caller stands ('' and 0: nowhere)
-- ARGV[3] 8 characters for the epoch, should the log begin now
-- ARGV[4] the most records to return: the caller asks again from the last of them
--
-- Returns {tail, whole, records}: `whole` is -1 when the records continue from where the caller stands, else the seq since
-- which they are all there are. The records are a JSON array of texts, pattern and seq in turn, by rising seqs ('' for none): a
-- reader parses thousands of them as one text at a fraction of the cost of as many replies.
local known = tonumber(ARGV[2])
-- GETEX changes nothing, and a replica refuses it: a master that was demoted must not say that nothing is new.
local epoch, seq, floor = standing(redis.call('GETEX', KEYS[1]))
-- A caller that knows more than the log is proof that its newest records are lost, whatever put an older tail there.
if not epoch or (ARGV[1] == epoch and known > seq) then
  local tail = text(begun(ARGV[3]), 0, 0)
  redis.call('DEL', KEYS[2], KEYS[3])
  redis.call('ZADD', KEYS[2], 0, '')
  redis.call('SET', KEYS[1], tail, 'PX', DAYS_30_MS)
  return {tail, 0, ''}
end
local whole = redis.call('ZSCORE', KEYS[2], '')
whole = whole and tonumber(whole) or seq
local after = whole
if ARGV[1] == epoch and known >= math.max(whole, floor) then
  after = known
  whole = -1
end
-- '' holds a seq like any record; it is the first, if at all.
local records =
  redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. string.format('%d', after), '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
return {text(epoch, seq, floor), whole, #records > 0 and cjson.encode(records) or ''}
