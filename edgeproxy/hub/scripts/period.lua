-- One host's report of a quota's count in a period of the calendar, and the answer: as loadtest/testbed/memory_hub.py says it in Python.
-- KEYS total: p period, t what all counted in it, e when it began; host: c what it counted, e as that of the total in
-- which this is. ARGV instance, period, count, seconds to keep
local prefix, numbers = key_prefix(KEYS[1] or '', 'quota'), parse_numbers(ARGV, 2)
if #KEYS ~= 2 or #ARGV ~= 4 or not (prefix and numbers and is_instance(ARGV[1]) and is_retention(numbers[4]))
   or KEYS[2] ~= prefix .. 'quota:' .. ARGV[1] then
  return INVALID_ARGUMENTS
end
local period, count, retention = numbers[2], numbers[3], numbers[4]
local total = read_state(KEYS[1])
if not total or next(total) and not (total.p and total.t and total.e) then return reject_states(KEYS[1], KEYS[2]) end
local host = read_state(KEYS[2])
if not host then return reject_states(KEYS[2]) end
local clock = redis.call('TIME')
if period > (total.p or -1) then total = {p = period, t = 0, e = clock[1] * 1000000 + clock[2]} end
local own = host.e == total.e and host.c or 0
if period == total.p then
  -- A count may go down: what did not come about is given back.
  total.t = total.t + count - own
  own = count
  redis.call('SET', KEYS[2], pack_state({c = own, e = total.e}), 'EX', retention)
end
redis.call('SET', KEYS[1], pack_state(total), 'EX', retention)
return {total.p, total.t - own, clock[1], clock[2]}
