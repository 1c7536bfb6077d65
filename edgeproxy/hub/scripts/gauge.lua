-- One host's report of what is in use there, and the answer: as tests/support/memory_hub.py says it in Python.
-- KEYS one hash: <instance> -> count:until. ARGV instance, count, now, until, seconds to keep (times: edge time)
local key, instance, count, now = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if count > 0 then
  redis.call('HSET', key, instance, ARGV[2] .. ':' .. ARGV[4])
else
  redis.call('HDEL', key, instance)
end
local flat, others, hosts = redis.call('HGETALL', key), 0, 0
for i = 1, #flat, 2 do
  local used, till = string.match(flat[i + 1], '^(%d+):(.*)$')
  if tonumber(till) < now then
    redis.call('HDEL', key, flat[i])
  else
    hosts = hosts + 1
    if flat[i] ~= instance then others = others + tonumber(used) end
  end
end
redis.call('EXPIRE', key, ARGV[5])
local clock = redis.call('TIME')
return {others, hosts, clock[1], clock[2]}
