-- Take a letter off its list and queue its item, in one step: it is in one of them at any time, and is queued once.
-- KEYS: the list of letters, the queue. ARGV: the letter, the item. Returns 1, or 0 if the letter is gone.
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then
  return 0
end
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
