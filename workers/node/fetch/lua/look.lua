#!lua flags=allow-oom
-- What came into lists since they were last looked at, without claiming it.
-- KEYS: the lists. ARGV: how many items of each at most; how deep the newest item that was looked at is sought, 0 for any depth; how
-- many bytes an item may have, and all of a list together but for one; 1 if no list is another program's, too; then for each list
-- the newest item that was looked at, or ''.
-- Returns for each list some items, the newest first: the oldest that were not looked at. One that is too long is told in its short
-- form; as the newest of a list of ours it takes that form there, too, or it would be copied at each look.
local count, most = tonumber(ARGV[1]), tonumber(ARGV[3])
local found = {}
for number, list in ipairs(KEYS) do
  local seen = ARGV[number + 4]
  local items = {}
  local newest = redis.call('LINDEX', list, 0)
  if newest and #newest > most and ARGV[4] == '1' then
    redis.call('LTRIM', list, 1, -1)
    newest = short(newest, most)
    redis.call('LPUSH', list, newest)
  end
  if newest and newest ~= seen then
    local place = seen ~= '' and redis.call('LPOS', list, seen, 'MAXLEN', ARGV[2])
    if place then
      items = redis.call('LRANGE', list, math.max(0, place - count), place - 1)
    else
      items = redis.call('LRANGE', list, -count, -1)
    end
  end
  found[number] = told(items, most)
end
return found
