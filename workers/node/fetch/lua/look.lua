-- What came into lists since they were last looked at, without claiming it.
-- KEYS: the lists. ARGV: how many items of each at most; then for each list the newest item that was looked at, or ''.
-- Returns for each list some items, the newest first: the oldest that were not looked at.
local most = tonumber(ARGV[1])
local found = {}
for number, list in ipairs(KEYS) do
  local seen = ARGV[number + 1]
  local items = {}
  local newest = redis.call('LINDEX', list, 0)
  if newest and newest ~= seen then
    local place = seen ~= '' and redis.call('LPOS', list, seen, 'MAXLEN', 1000)
    if place then
      items = redis.call('LRANGE', list, math.max(0, place - most), place - 1)
    else
      items = redis.call('LRANGE', list, -most, -1)
    end
  end
  found[number] = items
end
return found
