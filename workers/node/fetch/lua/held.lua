#!lua flags=allow-oom
-- The claims of a node from one list, and what is too long among them in its short form, there, too: what the server itself has moved
-- for a wait came there whole.
-- KEYS: the claims. ARGV: how many bytes an item may have; how many claims at most, 0 for all.
-- Returns the newest claims.
local most, last = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1
local items = redis.call('LRANGE', KEYS[1], 0, last)
for number, item in ipairs(items) do
  local kept = short(item, most)
  if kept ~= item then
    if number == 1 then
      redis.call('LTRIM', KEYS[1], 1, -1)
    else
      redis.call('LREM', KEYS[1], 1, item)
    end
    redis.call('LPUSH', KEYS[1], kept)
    items[number] = kept
  end
end
return items
