-- What of an item goes on its way: the item, or the two ends of one that is too long to be read, and how long it was. No script by
-- itself: it stands at the beginning of others (workers.node.guard.bounds knows the form).
local HEAD, TAIL = 16384, 49152
local function short(item, most)
  if #item <= most then
    return item
  end
  return string.sub(item, 1, HEAD) .. '\n' .. string.sub(item, -TAIL) .. '\ncut from ' .. #item .. ' bytes'
end
