-- A host is there: how many are, by the hub's own clock, and whether it was not known.
-- KEYS the hosts: a record of each, the one that was last there longest ago first. ARGV instance, seconds for which a
-- heartbeat counts
local RECORD, RECORD_BYTES, ID_BYTES, HOSTS_MAX = '>I4I4I4', 12, 8, 10000  -- The instance's digits in two halves, seconds.
local numbers, key = parse_numbers(ARGV, 2), KEYS[1] or ''
if #KEYS ~= 1 or #ARGV ~= 2 or not (numbers and is_instance(ARGV[1]) and is_retention(numbers[2]))
   or #key > KEY_BYTES_MAX or not string.find(key, '^rl:heartbeats:?%d*$') then
  return INVALID_ARGUMENTS
end
local clock = redis.call('TIME')
local now = tonumber(clock[1])
local digits = string.rep('0', 18 - #ARGV[1]) .. ARGV[1]
local record = struct.pack(RECORD, tonumber(string.sub(digits, 1, 9)), tonumber(string.sub(digits, 10)), now)
local hosts = redis.call('GETRANGE', key, 0, RECORD_BYTES * HOSTS_MAX)
if #hosts % RECORD_BYTES ~= 0 then hosts = '' end  -- No function has written it.

-- Those that have gone; and those of a clock that was set back, which come again.
local first = 1
while first < #hosts do
  local _, _, at = struct.unpack(RECORD, hosts, first)
  if at >= now - numbers[2] and at <= now then break end
  first = first + RECORD_BYTES
end
local id, at, is_new = string.sub(record, 1, ID_BYTES), first, 1
repeat
  at = string.find(hosts, id, at, true)
  if at and (at - 1) % RECORD_BYTES == 0 then
    hosts, is_new = string.sub(hosts, first, at - 1) .. string.sub(hosts, at + RECORD_BYTES) .. record, 0
    break
  end
  at = at and at + 1
until not at
if is_new == 1 then
  hosts = string.sub(hosts, first)
  if #hosts < RECORD_BYTES * HOSTS_MAX then
    hosts = hosts .. record
  else
    is_new = 0  -- There are as many hosts as there can be: those go on.
  end
end
redis.call('SET', key, hosts, 'EX', 60)
return {#hosts / RECORD_BYTES, is_new, clock[1], clock[2]}
