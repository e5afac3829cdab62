#!lua flags=allow-oom
-- Nodes name the tasks that they know, and ask whether another one knows a task, by this server's clock.
-- KEYS: the tasks' times. ARGV: for how long, in ms, a task counts as known; then the task that is asked for, or '' and the tasks
-- that the node knows. Returns whether the task is known; of tasks that are named: 1.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest_ms = now_ms - tonumber(ARGV[1])
if ARGV[2] ~= '' then
  local at_ms = redis.call('ZSCORE', KEYS[1], ARGV[2])
  return (at_ms and tonumber(at_ms) >= oldest_ms) and 1 or 0
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', oldest_ms, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], name)
end
for i = 3, #ARGV do
  redis.call('ZADD', KEYS[1], now_ms, ARGV[i])
end
return 1
