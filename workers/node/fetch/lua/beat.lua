#!lua flags=allow-oom
-- A node shows that it lives, by this server's clock, and names the lists that it may have claims from.
-- KEYS: the nodes' times, the node's sources, what is aside, then the claims from each source.
-- ARGV: the node; from which silence on, in ms, a node counts as dead; from which on it is to be forgotten; how the names of a
-- node's sources and of its claims begin; how soon, in ms, what is aside is due; 1 if the sources are others than at its last beat;
-- the sources.
-- Returns how many claims there are; the names of some silent nodes: of those that have claims or are to be forgotten (the others
-- may be many, where nodes come and go, and must not hide them); and whether something is due.
local MOST = 100
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- A node that is new here, or was forgotten (which takes both keys), or whose server has lost its data, names them again.
if redis.call('ZADD', KEYS[1], now_ms, ARGV[1]) == 1 or ARGV[7] == '1' then
  redis.call('SADD', KEYS[2], unpack(ARGV, 8))
end
local count = 0
if redis.call('EXISTS', unpack(KEYS, 4)) > 0 then
  for i = 4, #KEYS do
    count = count + redis.call('LLEN', KEYS[i])
  end
end
local function is_wanted(name, silent_ms)
  if silent_ms >= tonumber(ARGV[3]) then
    return true
  end
  local claims = {}
  for number, source in ipairs(redis.call('SMEMBERS', ARGV[4] .. name)) do
    claims[number] = ARGV[5] .. name .. ':' .. source
  end
  return #claims > 0 and redis.call('EXISTS', unpack(claims)) > 0
end
local silent = {}
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms - tonumber(ARGV[2]), 'WITHSCORES')
for i = 1, #found, 2 do
  if #silent < MOST and is_wanted(found[i], now_ms - tonumber(found[i + 1])) then
    silent[#silent + 1] = found[i]
  end
end
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now_ms + tonumber(ARGV[6]), 'LIMIT', 0, 1)
return {count, silent, #due}
