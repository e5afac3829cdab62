-- Stands before every script of the log (scripts.py puts it there): which log this is.
--
-- A log is one history of one server. Its epoch is 16 characters: the first 8 of the server's replication id, then 8 that the
-- process which began it made. A server takes another replication id when it starts and when it is promoted. So a log which lost
-- its newest records that way (an old snapshot, a replica that lagged) is recognised by its epoch: no process appends to it, and
-- the numbers that were lost are not given out again.
local DAYS_30_MS = 30 * 24 * 3600 * 1000

-- The epoch, seq and floor of the log's tail. Nothing when there is no tail, or one of another history.
local function standing(tail)
  local epoch, seq, floor = string.match(tail or '', '^([!-9;-~]+):(%d+):(%d+)$')
  if not epoch then
    return nil
  end
  local history = string.sub(string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or '', 1, 8)
  if string.sub(epoch, 1, #history) ~= history then
    return nil
  end
  return epoch, tonumber(seq), tonumber(floor)
end

-- The epoch of a log that begins now; `made`: the caller's 8 characters.
local function begun(made)
  local info = redis.call('INFO', 'replication')
  return string.sub(string.match(info, 'master_replid:(%x+)') or '', 1, 8) .. made
end

local function text(epoch, seq, floor)
  return epoch .. ':' .. string.format('%d', seq) .. ':' .. string.format('%d', floor)
end
