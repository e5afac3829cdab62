-- Extend claims, each if its owner still has it.
--
-- KEYS[i] claim   (see exchange.lua)
-- ARGV[1] time to live (ms)   ARGV[i + 1] the owner of KEYS[i]
--
-- Returns 1 or 0 for each: whether it was done.
local done = {}
for i, name in ipairs(KEYS) do
  local held = redis.call('GET', name)
  if held and string.match(held, '^[^ ]*') == ARGV[i + 1] then
    done[i] = redis.call('PEXPIRE', name, ARGV[1])
  else
    done[i] = 0
  end
end
return done
