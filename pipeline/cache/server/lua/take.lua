-- Take a key's lease, unless another owner has it or the entry is there already; in one atomic step.
--
-- KEYS[1] lease   string "owner epoch seq", and more behind it (see exchange.lua)   KEYS[2] entry
-- ARGV[1] the caller's claim   ARGV[2] its time to live (ms)
-- ARGV[3] how an entry of this key and of the caller's epoch begins, up to its seq; '': take the lease whatever is there
-- ARGV[4] the seq that the caller knows
--
-- Returns the claim that stands now, the caller's own if it was granted; another owner's is marked as awaited. '' when there is
-- none: the entry is of a log that knew as much as the caller does, so that there is nothing to compute, and nothing to give back.
-- It is the caller who judges the entry.
local held = redis.call('GET', KEYS[1])
if held then
  if string.sub(held, 1, 2) ~= '- ' and string.sub(held, -2) ~= ' +' then
    redis.call('SET', KEYS[1], held .. ' +', 'KEEPTTL')
  end
  return held
end
local begins = ARGV[3]
if begins ~= '' then
  -- A user may lack the right to this one: then the lease is taken, and given back.
  local entry = redis.pcall('GETRANGE', KEYS[2], 0, #begins + 16)
  if type(entry) == 'string' and string.sub(entry, 1, #begins) == begins then
    local seq = tonumber(string.match(entry, '^%d+', #begins + 1))
    if seq and seq >= tonumber(ARGV[4]) then
      return ''
    end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
