-- Remove entries that have not changed since the caller judged them; in one atomic step.
--
-- KEYS[1..] entries
-- ARGV[1..] the SHA-1, in hex, of each entry's bytes when it was judged: an entry that was written since stays
--
-- Returns how many were removed.
local removed = 0
for i = 1, #KEYS do
  local held = redis.call('GET', KEYS[i])
  if held and redis.sha1hex(held) == ARGV[i] then
    removed = removed + redis.call('UNLINK', KEYS[i])
  end
end
return removed
