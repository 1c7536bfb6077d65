-- One host's report of a quota's count in a period of the calendar, and the answer: as loadtest/testbed/memory_hub.py says it in Python.
-- Each period has keys of its own: whatever somebody says of another one, such as one that is far ahead, is never read.
-- KEYS total: t what all counted in it, e when it began; host: c what it counted, e as that of the total in which this
-- is. ARGV instance, period, count, seconds to keep
local numbers = parse_numbers(ARGV, 2)
local is_period = #ARGV == 4 and numbers and is_instance(ARGV[2])
local prefix = is_period and key_prefix(KEYS[1] or '', 'quota:' .. ARGV[2])
if #KEYS ~= 2 or not (prefix and is_instance(ARGV[1]) and is_retention(numbers[4]))
   or KEYS[2] ~= KEYS[1] .. ':' .. ARGV[1] then
  return INVALID_ARGUMENTS
end
local count, retention = numbers[3], numbers[4]
local total = read_state(KEYS[1])
if not total or next(total) and not (total.t and total.e) then return reject_states(KEYS[1], KEYS[2]) end
local host = read_state(KEYS[2])
if not host then return reject_states(KEYS[2]) end
local clock = redis.call('TIME')
if not total.e then total = {t = 0, e = clock[1] * 1000000 + clock[2]} end
local own = host.e == total.e and host.c or 0
-- A count may go down: what did not come about is given back.
total.t = total.t + count - own
redis.call('SET', KEYS[2], pack_state({c = count, e = total.e}), 'EX', retention)
redis.call('SET', KEYS[1], pack_state(total), 'EX', retention)
return {total.t - count, clock[1], clock[2]}
