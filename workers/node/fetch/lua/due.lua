#!lua flags=allow-oom
-- Put what is soon due back to the head of its list, a portion of it.
-- KEYS: what is aside. ARGV: how soon, in ms; how many at most. Returns how many.
local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', until_ms, 'LIMIT', 0, tonumber(ARGV[2]))
for number = #due, 1, -1 do
  local place = string.find(due[number], '\n', 1, true)
  redis.call('RPUSH', string.sub(due[number], 1, place - 1), string.sub(due[number], place + 1))
  redis.call('ZREM', KEYS[1], due[number])
end
return #due
