-- When which version of the directory was the newest.
-- KEYS the log, the time. ARGV the last line of the log as it was read, the line of the time
-- Answers 1; 0 where there is another version meanwhile.
if #KEYS ~= 2 or #ARGV ~= 2 or KEYS[1] ~= LOG_KEY or KEYS[2] ~= TIME_KEY or not is_line(ARGV[2]) then
  return INVALID_ARGUMENTS
end
if (redis.call('LINDEX', KEYS[1], -1) or '') ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[2])
redis.call('RPUSH', KEYS[2], ARGV[2])
return 1
