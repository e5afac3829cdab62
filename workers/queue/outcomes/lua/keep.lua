-- Keep outcomes of tasks, and tell those that wait for them, in one atomic step. A SUCCESS is never overwritten: the same task may
-- have run twice, and its caller may have read the first one.
--
-- KEYS[i] the outcome of a task: JSON as Celery writes it. Also the channel on which it is published
-- ARGV[1] how long an outcome is kept (s); 0: without end
-- ARGV[i + 1] the outcome of KEYS[i]
--
-- Returns how many were kept. The others had succeeded before, and nobody is told again.
local function succeeded(kept)
  -- Written first by Celery and by us, so that a long answer need not be decoded to know this much of it.
  if string.find(kept, '^{"status": ?"SUCCESS"') then
    return true
  end
  local read, outcome = pcall(cjson.decode, kept)
  return read and type(outcome) == 'table' and outcome.status == 'SUCCESS'
end

local expires = tonumber(ARGV[1])
local count = 0
for i, key in ipairs(KEYS) do
  local kept = redis.call('GET', key)
  if not kept or not succeeded(kept) then
    if expires > 0 then
      redis.call('SETEX', key, expires, ARGV[i + 1])
    else
      redis.call('SET', key, ARGV[i + 1])
    end
    redis.call('PUBLISH', key, ARGV[i + 1])
    count = count + 1
  end
end
return count
