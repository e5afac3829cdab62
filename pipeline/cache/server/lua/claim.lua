-- Claim a name, or learn who has it; in one atomic step.
--
-- KEYS[1] claim   string "owner epoch seq", with " +" behind it once somebody shares it
-- ARGV[1] the caller's claim   ARGV[2] its time to live (ms)
-- ARGV[3] '1': the caller will share what the holder brings about, and says so
--
-- Returns false when the claim is the caller's now, else the holder's.
local held = redis.call('GET', KEYS[1])
if not held then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return false
end
if ARGV[3] == '1' and string.sub(held, -2) ~= ' +' then
  redis.call('SET', KEYS[1], held .. ' +', 'KEEPTTL')
end
return held
