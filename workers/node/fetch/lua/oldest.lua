#!lua flags=allow-oom
-- Some of the oldest items of a list that is not ours alone, the newest first; those that are too long in their short form.
-- KEYS: the list. ARGV: how many; how many bytes an item may have, and all together but for one.
local most = tonumber(ARGV[2])
local items = redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1)
local bytes, first = 0, #items + 1
while first > 1 and bytes < most do
  first = first - 1
  items[first] = short(items[first], most)
  bytes = bytes + #items[first]
end
local told = {}
for place = first, #items do
  told[#told + 1] = items[place]
end
return told
