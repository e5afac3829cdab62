#!lua flags=allow-oom
-- Give up acknowledged claims, and claim more, in order. A full server must be able to get rid of its messages, hence the flag.
-- KEYS: for each source its list and the claims from it: those to claim from, the urgent ones first, then others.
-- ARGV: how many to claim; how many sources are of equal right, and take turns; how many sources to claim from; how many bytes an
-- item may have, and all together but for the last of them; then, for each acknowledgement, the number of its source and
-- the item. What is longer is claimed in its short form, so that no node ever has the rest.
-- Returns, for each claimed item, the number of its source and the item.
local limit, equals, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
for i = 5, #ARGV, 2 do
  redis.call('LREM', KEYS[2 * tonumber(ARGV[i])], -1, ARGV[i + 1])
end
local claimed = {}
if limit == 0 or tonumber(ARGV[3]) == 0 then
  return claimed
end
local sources = {}
for number = 1, tonumber(ARGV[3]) do
  sources[number] = KEYS[2 * number - 1]
end
if redis.call('EXISTS', unpack(sources)) == 0 then
  return claimed
end
local bytes = 0
for first = 1, #sources, equals do
  local more = true
  while more do
    more = false
    for number = first, math.min(first + equals - 1, #sources) do
      if #claimed >= 2 * limit or bytes >= most then
        return claimed
      end
      local item = redis.call('LMOVE', KEYS[2 * number - 1], KEYS[2 * number], 'RIGHT', 'LEFT')
      if item then
        local kept = short(item, most)
        if kept ~= item then
          redis.call('LTRIM', KEYS[2 * number], 1, -1)
          redis.call('LPUSH', KEYS[2 * number], kept)
        end
        bytes = bytes + #kept
        claimed[#claimed + 1] = number
        claimed[#claimed + 1] = kept
        more = true
      end
    end
  end
end
return claimed
