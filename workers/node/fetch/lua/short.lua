-- What of items goes on its way. No script by itself: it stands at the beginning of others.

-- Of one item: itself, or the two ends of one that is too long to be read, and how long it was (workers.node.guard.bounds knows the
-- form).
local HEAD, TAIL = 16384, 49152
local function short(item, most)
  if #item <= most then
    return item
  end
  return string.sub(item, 1, HEAD) .. '\n' .. string.sub(item, -TAIL) .. '\ncut from ' .. #item .. ' bytes'
end

-- Of several items, the newest first: the oldest, each short, which have so many bytes together but for one; in the same order.
local function told(items, most)
  local bytes, first = 0, #items + 1
  while first > 1 and bytes < most do
    first = first - 1
    items[first] = short(items[first], most)
    bytes = bytes + #items[first]
  end
  local chosen = {}  -- not by `unpack`, which bears some thousands
  for place = first, #items do
    chosen[#chosen + 1] = items[place]
  end
  return chosen
end
