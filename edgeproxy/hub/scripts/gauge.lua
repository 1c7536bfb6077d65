-- One host's report of what is in use there, and the answer: as loadtest/testbed/memory_hub.py says it in Python.
-- KEYS one state: c<instance> count, u<instance> until when. ARGV instance, count, now, until, seconds to keep (times: edge
-- time)
local numbers, instance = parse_numbers(ARGV, 2), ARGV[1]
if #KEYS ~= 1 or #ARGV ~= 5 or not (key_prefix(KEYS[1], 'gauge') and numbers and is_instance(instance))
   or not is_retention(numbers[5]) then
  return INVALID_ARGUMENTS
end
local count, now, retention = numbers[2], numbers[3], numbers[5]
local state = read_state(KEYS[1])
if not state then return reject_states(KEYS[1]) end
state['c' .. instance], state['u' .. instance] = count, numbers[4]
local kept, others, hosts = {}, 0, 0
for name, used in pairs(state) do
  if string.sub(name, 1, 1) == 'c' and used > 0 then
    local of = string.sub(name, 2)
    local till = state['u' .. of]
    -- No edge says so of longer than what is kept: it would count for as long as anybody reports.
    if till and till >= now and till <= now + retention then
      kept[name], kept['u' .. of] = used, till
      hosts = hosts + 1
      if of ~= instance then others = others + used end
    end
  end
end
local text = pack_state(kept)
if not text then return STATE_FULL end
redis.call('SET', KEYS[1], text, 'EX', retention)
local clock = redis.call('TIME')
return {others, hosts, clock[1], clock[2]}
