-- Remove entries that are still what the caller has judged; in one atomic step.
--
-- KEYS[1..] entries
-- ARGV[1..] the SHA-1, in hex, of what each held when it was judged: one that was written since stays
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
