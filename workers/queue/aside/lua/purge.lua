-- Remove, of a portion of what is aside, the messages of some lists.
-- KEYS: what is aside. ARGV: where to go on, 0 at first; how many to look at; the lists.
-- Returns where to go on, 0 at the end; how many were removed.
local found = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local removed = 0
for i = 1, #found[2], 2 do
  local place = string.find(found[2][i], '\n', 1, true)
  local list = place and string.sub(found[2][i], 1, place - 1)
  for number = 3, #ARGV do
    if list == ARGV[number] then
      removed = removed + redis.call('ZREM', KEYS[1], found[2][i])
      break
    end
  end
end
return {found[1], removed}
