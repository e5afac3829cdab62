-- Change a claim, if ARGV[1] still owns it; in one atomic step.
--
-- KEYS[1] claim   string "owner epoch seq", with " -n" behind it when n owners one after another held it in vain, and " +" once
--                 another caller shares it
-- ARGV[1] the owner   ARGV[2] the change: 'renew', 'replace', 'release', 'withdraw' (release it unless it is shared), or
--                     'give back' (leave it without an owner, "-", as held in vain once more)
-- ARGV[3] time to live (ms), of renew, replace and give back   ARGV[4] the claim in its place, of replace
--
-- KEYS[2] told: see tell.lua; where it is given, those that wait for the owner are told that it is done, unless they were
--
-- Returns 1 when it was done, else 0.
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '^[^ ]*') ~= ARGV[1] then
  return 0
end
if ARGV[2] == 'renew' then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
elseif ARGV[2] == 'replace' then
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[3])
elseif ARGV[2] == 'give back' then
  local known = string.match(held, '^[^ ]* ([^ ]* [^ ]*)') or ' -1'
  local vain = tonumber(string.match(held, '^[^ ]* [^ ]* [^ ]* %-(%d+)') or 0) + 1
  redis.call('SET', KEYS[1], '- ' .. known .. ' -' .. string.format('%d', vain), 'PX', ARGV[3])
elseif ARGV[2] == 'withdraw' and string.sub(held, -2) == ' +' then
  return 0
else
  redis.call('DEL', KEYS[1])
end
if KEYS[2] and string.sub(held, -2) == ' +' and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.pcall('XADD', KEYS[2], '*', '', '')
  redis.call('PEXPIRE', KEYS[2], 2000)
end
return 1
