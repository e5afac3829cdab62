-- Do nothing, to show that scripts are allowed.
--
-- KEYS[1] tail   string "epoch:seq:floor"
--
-- Returns 1.
redis.call('TIME')
redis.call('EXISTS', KEYS[1])
return 1
