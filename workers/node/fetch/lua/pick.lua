#!lua flags=allow-oom
-- Claim these items, wherever they lie in their list. An item that another node has taken first is not claimed.
-- KEYS: the list, the claims from it. ARGV: how many bytes an item may have; the items, those that have more in their short form.
-- Returns 1 or 0 for each.
local most = tonumber(ARGV[1])
local DEEP = 1000
local function whole(kept)
  if string.find(string.sub(kept, -40), '\ncut from %d+ bytes$') then
    for _, item in ipairs(redis.call('LRANGE', KEYS[1], -DEEP, -1)) do
      if #item > most and short(item, most) == kept then
        return item
      end
    end
  end
  return kept
end
local picked = {}
for number = 2, #ARGV do
  local kept = ARGV[number]
  local item = whole(kept)
  picked[number - 1] = redis.call('LREM', KEYS[1], -1, item)
  if picked[number - 1] == 1 then
    redis.call('LPUSH', KEYS[2], kept)
  end
end
return picked
