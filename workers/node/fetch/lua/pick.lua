#!lua flags=allow-oom
-- Claim these items, wherever they lie in their list. An item that another node has taken first is not claimed.
-- KEYS: the list, the claims from it. ARGV: the items. Returns 1 or 0 for each.
local picked = {}
for number, item in ipairs(ARGV) do
  picked[number] = redis.call('LREM', KEYS[1], -1, item)
  if picked[number] == 1 then
    redis.call('LPUSH', KEYS[2], item)
  end
end
return picked
