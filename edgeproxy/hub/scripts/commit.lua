-- A version of the directory becomes the last one, in one step.
-- KEYS the log, the time, the version's parts, the parts of versions that leave the log. ARGV the last line of the log as
-- it was read (empty: none), the version's line, how many parts it has, seconds for which parts that leave can still be
-- read, the line of the time (empty: none), the channel on which it is published
-- Answers 1; 0 where another push came between; -1 where parts are missing.
if (redis.call('LINDEX', KEYS[1], -1) or '') ~= ARGV[1] then return 0 end
if redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[3]) then return -1 end
redis.call('PERSIST', KEYS[3])
if #KEYS > 3 then redis.call('DEL', KEYS[1]) end
for place = 4, #KEYS do redis.call('EXPIRE', KEYS[place], ARGV[4]) end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
if ARGV[5] ~= '' then redis.call('RPUSH', KEYS[2], ARGV[5]) end
-- Who may not publish loses nothing but time: edges look by themselves too.
redis.pcall('PUBLISH', ARGV[6], ARGV[3])
return 1
