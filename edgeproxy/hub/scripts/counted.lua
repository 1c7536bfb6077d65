-- What the ledger has counted of quotas, further lines of it.
-- KEYS the list. ARGV its last line as it was read (empty: none), 1 where it begins anew, the channel, the lines
-- Answers how many lines there are; 0 where another collector came between.
if (redis.call('LINDEX', KEYS[1], -1) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then redis.call('DEL', KEYS[1]) end
for place = 4, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[place]) end
-- Who may not publish loses nothing but time: edges look by themselves too.
redis.pcall('PUBLISH', ARGV[3], '')
return redis.call('LLEN', KEYS[1])
