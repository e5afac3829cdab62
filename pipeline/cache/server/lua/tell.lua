-- Tell those that wait for a lease's owner what it has computed, if anybody waits.
--
-- KEYS[1] lease   (see take.lua)   KEYS[2] entry
-- KEYS[3] told    stream, of this owner alone: one item with the log's tail and then the entry, or '' for each where those that
--                 wait are to look for themselves
-- KEYS[4] tail    string "epoch:seq:floor"
-- ARGV[1] the most bytes of an entry to be told   ARGV[2] for how long (ms) it is kept
--
-- Returns 1 if it was told, else 0. A hint: a caller that hears nothing looks again by itself.
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, -2) ~= ' +' then
  return 0
end
local size = redis.pcall('STRLEN', KEYS[2])
local entry = type(size) == 'number' and size <= tonumber(ARGV[1]) and redis.call('GET', KEYS[2]) or ''
redis.pcall('XADD', KEYS[3], '*', redis.call('GET', KEYS[4]) or '', entry)
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return 1
