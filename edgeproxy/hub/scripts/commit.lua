-- A version of the directory becomes the last one, in one step.
-- KEYS the log, the time, the version's parts, the parts of versions that leave the log. ARGV the last line of the log as
-- it was read (empty: none), the version's line, how many parts it has, seconds for which parts that leave can still be
-- read, the line of the time (empty: none), the channel on which it is published, 1 where the log begins anew with it
-- Answers 1; 0 where another push came between; -1 where parts are missing.
local VERSIONS_MAX = 4096
local numbers = parse_numbers({ARGV[3], ARGV[4]}, 1)
if #KEYS < 3 or #KEYS > 3 + VERSIONS_MAX or #ARGV ~= 7 or not (numbers and is_retention(numbers[2]))
   or not (is_line(ARGV[2]) and is_line(ARGV[5])) then
  return INVALID_ARGUMENTS
end
for place = 1, #KEYS do
  if place == 1 and KEYS[1] ~= LOG_KEY or place == 2 and KEYS[2] ~= TIME_KEY or place > 2 and not is_parts_key(KEYS[place]) then
    return INVALID_ARGUMENTS
  end
end
if (redis.call('LINDEX', KEYS[1], -1) or '') ~= ARGV[1] then return 0 end
if redis.call('LLEN', KEYS[3]) ~= numbers[1] then return -1 end
if ARGV[7] ~= '1' and redis.call('LLEN', KEYS[1]) >= VERSIONS_MAX then return LIST_FULL end
redis.call('PERSIST', KEYS[3])
if ARGV[7] == '1' then redis.call('UNLINK', KEYS[1]) end
for place = 4, #KEYS do redis.call('EXPIRE', KEYS[place], ARGV[4]) end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('UNLINK', KEYS[2])
if ARGV[5] ~= '' then redis.call('RPUSH', KEYS[2], ARGV[5]) end
-- Who may not publish loses nothing but time: edges look by themselves too.
redis.pcall('PUBLISH', ARGV[6], ARGV[3])
return 1
