-- What came into lists since they were last looked at, without claiming it.
-- KEYS: the lists. ARGV: how many items of each at most; how deep the newest item that was looked at is sought, 0 for any depth; then
-- for each list that item, or ''.
-- Returns for each list some items, the newest first: the oldest that were not looked at.
local most = tonumber(ARGV[1])
local found = {}
for number, list in ipairs(KEYS) do
  local seen = ARGV[number + 2]
  local items = {}
  local newest = redis.call('LINDEX', list, 0)
  if newest and newest ~= seen then
    local place = seen ~= '' and redis.call('LPOS', list, seen, 'MAXLEN', ARGV[2])
    if place then
      items = redis.call('LRANGE', list, math.max(0, place - most), place - 1)
    else
      items = redis.call('LRANGE', list, -most, -1)
    end
  end
  found[number] = items
end
return found
