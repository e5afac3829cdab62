-- Add one process's report, exactly once however often it is sent: a reply that was lost is no reason to count twice.
--
-- KEYS[1] applied        string: number of the process's last report that was added
-- KEYS[2] processes      sorted set: process -> server time (ms) of its last report
-- KEYS[3] row            string: what the process says of itself
-- KEYS[4] invalidations  list, newest first
-- KEYS[5] ever           hash: sums without an end
-- KEYS[6..] as many slots (hashes of sums) as ARGV says, then as many reaches (hashes node -> delay)
-- ARGV[1] the report's number, 0 for one without sums   ARGV[2] the process   ARGV[3] its row ('' at its end: the row goes)
-- ARGV[4] how long (ms) a row lives    ARGV[5] how long (ms) reaches live
-- ARGV[6] how long (ms) the report's number is remembered   ARGV[7] how many invalidations are kept
-- ARGV[8..] n, then n invalidations, oldest first; the number of fields for `ever`, then its fields, each with its amount;
--   g, the number of groups of slots that get the same, and for each the number of its slots, how long (ms) each of them lives,
--   the number of its fields, then each with its amount; r, the number of reaches, and for each the node and its delay. A field
--   that begins with 'max.' becomes the larger of the two, any other the sum.
--
-- Returns the server's time in ms.
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local at = 8

local function following()
  local value = ARGV[at]
  at = at + 1
  return value
end

local function add_fields(first, last)
  for _ = 1, tonumber(following()) do
    local field, amount = following(), following()
    local is_longest = string.sub(field, 1, 4) == 'max.'
    for key = first, last do
      if not is_longest then
        redis.call('HINCRBY', KEYS[key], field, amount)
      elseif tonumber(redis.call('HGET', KEYS[key], field) or '-1') < tonumber(amount) then
        redis.call('HSET', KEYS[key], field, amount)
      end
    end
  end
end

if ARGV[3] == '' then
  redis.call('DEL', KEYS[3])
  redis.call('ZREM', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
  -- The names of the dead go when another process comes: an idle fleet's commands are these.
  if redis.call('ZADD', KEYS[2], now_ms, ARGV[2]) == 1 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. string.format('%.0f', now_ms - ARGV[4]))
  end
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end

if ARGV[1] == '0' then
  return now_ms
end
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return now_ms
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[6])

for _ = 1, tonumber(following()) do
  redis.call('LPUSH', KEYS[4], following())
end
redis.call('LTRIM', KEYS[4], 0, ARGV[7] - 1)
add_fields(5, 5)
local key = 6
for _ = 1, tonumber(following()) do
  local slots = tonumber(following())
  local lives_at = at
  at = at + slots
  add_fields(key, key + slots - 1)
  for slot = 0, slots - 1 do
    redis.call('PEXPIRE', KEYS[key + slot], ARGV[lives_at + slot])
  end
  key = key + slots
end
for _ = 1, tonumber(following()) do
  local node, delay_ms = following(), following()
  redis.call('HSET', KEYS[key], node, delay_ms)
  redis.call('PEXPIRE', KEYS[key], ARGV[5])
  key = key + 1
end
return now_ms
