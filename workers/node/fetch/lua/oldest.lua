#!lua flags=allow-oom
-- Some of the oldest items of a list that is not ours alone, the newest first; those that are too long in their short form.
-- KEYS: the list. ARGV: how many; how many bytes an item may have, and all together but for one.
local most = tonumber(ARGV[2])
local items = redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1)
return told(items, most)
