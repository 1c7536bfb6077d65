-- One part of a version of the directory, before anybody sees it.
-- KEYS the version's parts. ARGV the part's number, from 1, seconds for which an interrupted push leaves them behind, the
-- part. Answers how many parts there are; the first replaces what is there.
local PART_BYTES_MAX, PARTS_MAX = 16777216, 65536
local numbers = parse_numbers({ARGV[1], ARGV[2]}, 1)
if #KEYS ~= 1 or #ARGV ~= 3 or not (numbers and numbers[1] <= PARTS_MAX and is_retention(numbers[2]))
   or not is_parts_key(KEYS[1]) or #ARGV[3] > PART_BYTES_MAX then
  return INVALID_ARGUMENTS
end
if numbers[1] == 1 then redis.call('UNLINK', KEYS[1]) end
local staged = redis.call('LLEN', KEYS[1])
if staged ~= numbers[1] - 1 then return staged end
redis.call('RPUSH', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return numbers[1]
