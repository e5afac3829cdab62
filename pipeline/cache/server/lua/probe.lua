-- Do nothing, as a script that has the right to.
--
-- KEYS[1] tail   string "epoch:seq:floor"
--
-- Returns 1.
redis.call('TIME')
redis.call('EXISTS', KEYS[1])
return 1
