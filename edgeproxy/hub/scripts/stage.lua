-- One part of a version of the directory, before anybody sees it.
-- KEYS the version's parts. ARGV seconds for which an interrupted push leaves them behind, the part
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return redis.call('LLEN', KEYS[1])
