-- Begin a new epoch, unless another process has done so or the log is where the caller believes it to be no longer.
--
-- KEYS[1] tail   KEYS[2] records   KEYS[3] marks
-- ARGV[1] the tail that the caller saw and found wrong ('' for none)
-- ARGV[2] the new epoch
--
-- Returns the tail after it.
local tail = redis.call('GET', KEYS[1]) or ''
if tail ~= ARGV[1] then
  return tail
end
redis.call('DEL', KEYS[2], KEYS[3])
local fresh = ARGV[2] .. ':0:0'
redis.call('SET', KEYS[1], fresh, 'EX', 30 * 24 * 3600)
return fresh
