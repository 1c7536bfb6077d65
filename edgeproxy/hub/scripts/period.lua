-- One host's report of a quota's count in a period of the calendar, and the answer: as tests/support/memory_hub.py says it in Python.
-- KEYS one hash: p period, t total, h<instance> what that host counted in it. ARGV instance, period, count, seconds to keep
local key, instance = KEYS[1], ARGV[1]
local period, count = tonumber(ARGV[2]), tonumber(ARGV[3])
local there = tonumber(redis.call('HGET', key, 'p') or '0')
if period > there then
  redis.call('DEL', key)
  redis.call('HSET', key, 'p', ARGV[2])
  there = period
end
local own = tonumber(redis.call('HGET', key, 'h' .. instance) or '0')
if period == there and count ~= own then
  -- A count may go down: what did not come about is given back. It never does below what a hub that forgot knows of.
  redis.call('HSET', key, 'h' .. instance, ARGV[3])
  redis.call('HINCRBY', key, 't', string.format('%.0f', count - own))
  own = count
end
redis.call('EXPIRE', key, ARGV[4])
local total = tonumber(redis.call('HGET', key, 't') or '0')
local clock = redis.call('TIME')
return {there, total - own, clock[1], clock[2]}
