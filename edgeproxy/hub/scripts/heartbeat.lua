-- A host is there: how many are, by the hub's own clock, and whether it was not known.
-- KEYS the sorted set of hosts. ARGV instance, seconds for which a heartbeat counts
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local is_new = redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.6f', now - tonumber(ARGV[2])))
redis.call('EXPIRE', KEYS[1], 60)
return {redis.call('ZCARD', KEYS[1]), is_new, clock[1], clock[2]}
