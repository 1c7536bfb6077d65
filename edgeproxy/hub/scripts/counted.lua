-- What the ledger has counted of quotas, further lines of it.
-- KEYS the list. ARGV its last line as it was read (empty: none), 1 where it begins anew, the channel, the lines
-- Answers how many lines there are; 0 where another collector came between.
local LINES_MAX, LINES_AT_ONCE = 65536, 1000  -- No edge reads a longer list (bounds.py).
if #KEYS ~= 1 or KEYS[1] ~= COUNTED_KEY or #ARGV < 3 or #ARGV > 3 + LINES_MAX then return INVALID_ARGUMENTS end
for place = 4, #ARGV do
  if not is_line(ARGV[place]) then return INVALID_ARGUMENTS end
end
if (redis.call('LINDEX', KEYS[1], -1) or '') ~= ARGV[1] then return 0 end
local before = ARGV[2] == '1' and 0 or redis.call('LLEN', KEYS[1])
if before + #ARGV - 3 > LINES_MAX then return LIST_FULL end
if ARGV[2] == '1' then redis.call('UNLINK', KEYS[1]) end
for place = 4, #ARGV, LINES_AT_ONCE do
  redis.call('RPUSH', KEYS[1], unpack(ARGV, place, math.min(place + LINES_AT_ONCE - 1, #ARGV)))
end
-- Who may not publish loses nothing but time: edges look by themselves too.
redis.pcall('PUBLISH', ARGV[3], '')
return before + #ARGV - 3
