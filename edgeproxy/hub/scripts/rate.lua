-- One host's report of a rate, and the answer: the same as tests/support/memory_hub.py, which says it in Python.
--
-- KEYS  totals: cell -> what all have in it, h<instance> -> when it last said something, l, a -> the bucket's
--               level, and when, i<instance> -> its claims that are not spent, if any
--       host:   s seq, b born, c cum, p spent, g claims; u<cell>, s<cell>, g<cell>: used, settled, granted
-- ARGV  instance, seq, born, now, span, cum, spent, want, seconds to keep,
--       limit, cells, cell (cells 0: no window), depth, rate, level, own (depth 0: no bucket), then cell, used, settled …
local totals, own = KEYS[1], KEYS[2]
local instance, seq, born = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now, span = tonumber(ARGV[4]), tonumber(ARGV[5])
local cum, spent, want = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local limit, cells, cell = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local depth, rate, level, fresh = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
local BEHIND, FORGOTTEN, JUMP = 2, 60, 5
local lowest, highest = cell - cells, cell + cells  -- Beyond it is what was said before a clock was set back.

local function whole(number) return string.format('%.0f', number) end
local function exact(number) return string.format('%.17g', number) end

local function hash(key)
  local flat, fields = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields, #flat > 0
end

local t = hash(totals)
local h, known = hash(own)
local set, gone, own_set, own_gone = {}, {}, {}, {}
local function put(list, fields, name, value)
  fields[name] = value
  list[name] = value
end
local function number(fields, name) return tonumber(fields[name] or '0') end

if not known then
  put(own_set, h, 's', '0'); put(own_set, h, 'b', born); put(own_set, h, 'c', '0')
  put(own_set, h, 'p', whole(spent)); put(own_set, h, 'g', whole(spent))
end

local last = number(t, 'a')
if last > now + JUMP then last = now end
local latest = math.max(last, now)
local heard, unspent = {}, 0
for name, value in pairs(t) do
  local of = tonumber(name)
  if of then
    if cells > 0 and of < lowest - BEHIND then gone[#gone + 1] = name end
  elseif string.sub(name, 1, 1) == 'h' then
    heard[string.sub(name, 2)] = tonumber(value)
  elseif string.sub(name, 1, 1) == 'i' then
    unspent = unspent + tonumber(value)
  end
end
for _, name in ipairs(gone) do t[name] = nil end
if depth > 0 then put(set, t, 'l', exact(math.max(unspent, number(t, 'l') - (latest - last) * rate))) end
put(set, t, 'a', exact(latest))
if cells > 0 then
  for name in pairs(h) do
    local of = tonumber(string.sub(name, 2))
    if of and of < lowest - BEHIND then own_gone[#own_gone + 1] = name end
  end
  for _, name in ipairs(own_gone) do h[name] = nil end
end

if seq > number(h, 's') then
  local goes_on = known and born == h['b']
  if born ~= h['b'] then
    put(own_set, h, 'b', born); put(own_set, h, 'c', '0')
    put(own_set, h, 'p', whole(spent)); put(own_set, h, 'g', whole(spent))
  end
  if cells > 0 then
    for i = 17, #ARGV, 3 do
      local of, used, settled = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
      if tonumber(of) >= lowest - BEHIND then
        local more = math.max(0, used - number(h, 'u' .. of))
        local less = math.max(0, math.min(settled, number(h, 'g' .. of)) - number(h, 's' .. of))
        if more > 0 then put(own_set, h, 'u' .. of, whole(number(h, 'u' .. of) + more)) end
        if less > 0 then put(own_set, h, 's' .. of, whole(number(h, 's' .. of) + less)) end
        if more ~= less then put(set, t, of, whole(number(t, of) + more - less)) end
      end
    end
  end
  spent = math.min(spent, number(h, 'g'))
  if depth > 0 then
    if goes_on then
      local poured = math.max(0, cum - number(h, 'c')) - math.max(0, spent - number(h, 'p'))
      put(set, t, 'l', exact(math.max(0, number(t, 'l') + poured)))
    else
      put(set, t, 'l', exact(math.max(number(t, 'l'), level) + fresh))
    end
  end
  put(own_set, h, 'c', whole(math.max(cum, number(h, 'c'))))
  put(own_set, h, 'p', whole(math.max(spent, number(h, 'p'))))
  if want > 0 then
    local granted = want
    if cells > 0 then
      local counted = 0
      for name, value in pairs(t) do
        local of = tonumber(name)
        if of and of >= lowest and of <= highest then counted = counted + tonumber(value) end
      end
      granted = math.min(granted, limit - counted)
    end
    if depth > 0 then granted = math.min(granted, math.floor(depth - number(t, 'l'))) end
    if granted > 0 then
      put(own_set, h, 'g', whole(number(h, 'g') + granted))
      if cells > 0 then
        local of = ARGV[12]
        put(set, t, of, whole(number(t, of) + granted))
        put(own_set, h, 'g' .. of, whole(number(h, 'g' .. of) + granted))
      end
      if depth > 0 then put(set, t, 'l', exact(number(t, 'l') + granted)) end
    end
  end
  if depth > 0 then
    local own_unspent = number(h, 'g') - number(h, 'p')
    if own_unspent ~= number(t, 'i' .. instance) then put(set, t, 'i' .. instance, whole(own_unspent)) end
  end
  put(own_set, h, 's', whole(seq))
  put(set, t, 'h' .. instance, exact(now))
  heard[instance] = now
end

local hosts = 0
for of, at in pairs(heard) do
  if at < latest - span - FORGOTTEN then
    for _, kind in ipairs({'h', 'i'}) do
      gone[#gone + 1] = kind .. of
      set[kind .. of] = nil
    end
  elseif at >= latest - span then
    hosts = hosts + 1
  end
end

local function write(key, fields, removed)
  for i = 1, #removed, 1000 do redis.call('HDEL', key, unpack(removed, i, math.min(i + 999, #removed))) end
  local list = {}
  for name, value in pairs(fields) do list[#list + 1] = name; list[#list + 1] = value end
  for i = 1, #list, 2000 do redis.call('HSET', key, unpack(list, i, math.min(i + 1999, #list))) end
  redis.call('EXPIRE', key, ARGV[9])
end
write(totals, set, gone)
write(own, own_set, own_gone)

local foreign, claims = {}, {}
if cells > 0 then
  for name, value in pairs(t) do
    local of = tonumber(name)
    if of and of >= lowest and of <= highest then
      local theirs = tonumber(value) - number(h, 'u' .. name) - number(h, 'g' .. name) + number(h, 's' .. name)
      if theirs > 0 then foreign[#foreign + 1] = of; foreign[#foreign + 1] = theirs end
    end
  end
  for name, value in pairs(h) do
    if string.sub(name, 1, 1) == 'g' and #name > 1 then
      local of = string.sub(name, 2)
      claims[#claims + 1] = tonumber(of); claims[#claims + 1] = tonumber(value)
      claims[#claims + 1] = number(h, 's' .. of)
    end
  end
end
local clock = redis.call('TIME')
return {known and 1 or 0, hosts, number(h, 'g') - number(h, 'p'), foreign, claims, t['l'] or '0', t['a'],
        clock[1], clock[2]}
