-- One host's report of a rate, and the answer: the same as loadtest/testbed/memory_hub.py, which says it in Python.
--
-- KEYS  totals: cell -> what all have in it, h<instance> -> when it last said something, l, a -> the bucket's
--               level, and when, i<instance> -> its claims that are not spent, if any; e -> when the totals began
--       host:   s seq, b born, c cum, p spent, g claims; u<cell>, s<cell>, g<cell>: used, settled, granted; e -> as that
--               of the totals in which these are: in others the host is not known, and reports all of it again
-- ARGV  instance, seq, born, now, span, cum, spent, want, seconds to keep,
--       limit, cells, cell (cells 0: no window), depth, rate, level, own (depth 0: no bucket), then cell, used, settled …
local ARGUMENTS, CHANGED_CELLS_MAX = 16, 1000
local prefix, numbers, instance = key_prefix(KEYS[1] or '', 'total'), parse_numbers(ARGV, 2), ARGV[1]
if #KEYS ~= 2 or #ARGV < ARGUMENTS or #ARGV > ARGUMENTS + 3 * CHANGED_CELLS_MAX or (#ARGV - ARGUMENTS) % 3 ~= 0
   or not (prefix and numbers and is_instance(instance) and is_retention(numbers[9]))
   or KEYS[2] ~= prefix .. 'host:' .. instance then
  return INVALID_ARGUMENTS
end
local seq, born, now, span = numbers[2], numbers[3], numbers[4], numbers[5]
local cum, spent, want, retention = numbers[6], numbers[7], numbers[8], numbers[9]
local limit, cells, cell = numbers[10], numbers[11], numbers[12]
local depth, rate, level, fresh = numbers[13], numbers[14], numbers[15], numbers[16]
local BEHIND, FORGOTTEN, JUMP = 2, 60, 5
local lowest, highest = cell - cells, cell + cells  -- Beyond it is what was said before a clock was set back.

local t = read_state(KEYS[1])
if not t then return reject_states(KEYS[1], KEYS[2]) end
local h = read_state(KEYS[2])
if not h then return reject_states(KEYS[2]) end
local clock = redis.call('TIME')
if not t.e then t.e = clock[1] * 1000000 + clock[2] end
local known = h.e == t.e
if not known then h = {e = t.e, s = 0, b = born, c = 0, p = spent, g = spent} end
for _, name in ipairs({'s', 'b', 'c', 'p', 'g'}) do
  if not h[name] then return reject_states(KEYS[2]) end
end

local last = t.a or 0
if last > now + JUMP then last = now end
local latest = math.max(last, now)
local names, heard, unspent = {}, {}, 0  -- Of totals: the names of cells by their numbers …
for name, value in pairs(t) do
  local of = tonumber(name)
  if of then
    if cells > 0 and of < lowest - BEHIND then t[name] = nil else names[name] = of end
  elseif string.sub(name, 1, 1) == 'h' then
    heard[string.sub(name, 2)] = value
  elseif string.sub(name, 1, 1) == 'i' then
    unspent = unspent + value
  end
end
if depth > 0 then t.l = math.max(unspent, (t.l or 0) - (latest - last) * rate) end
t.a = latest
if cells > 0 then
  for name in pairs(h) do
    local of = tonumber(string.sub(name, 2))
    if of and of < lowest - BEHIND then h[name] = nil end
  end
end

local function add(of, more)
  t[of] = (t[of] or 0) + more
  names[of] = tonumber(of)
end

if seq > h.s then
  local goes_on = known and born == h.b
  if born ~= h.b then h.b, h.c, h.p, h.g = born, 0, spent, spent end
  if cells > 0 then
    for i = ARGUMENTS + 1, #ARGV, 3 do
      local of, used, settled = ARGV[i], numbers[i + 1], numbers[i + 2]
      if numbers[i] >= lowest - BEHIND then
        local more = math.max(0, used - (h['u' .. of] or 0))
        local less = math.max(0, math.min(settled, h['g' .. of] or 0) - (h['s' .. of] or 0))
        if more > 0 then h['u' .. of] = (h['u' .. of] or 0) + more end
        if less > 0 then h['s' .. of] = (h['s' .. of] or 0) + less end
        if more ~= less then add(of, more - less) end
      end
    end
  end
  spent = math.min(spent, h.g)
  if depth > 0 then
    if goes_on then
      local poured = math.max(0, cum - h.c) - math.max(0, spent - h.p)
      t.l = math.max(0, t.l + poured)
    else
      t.l = math.max(t.l, level) + fresh
    end
  end
  h.c, h.p = math.max(cum, h.c), math.max(spent, h.p)
  if want > 0 then
    local granted = want
    if cells > 0 then
      local counted = 0
      for name, of in pairs(names) do
        if of >= lowest and of <= highest then counted = counted + t[name] end
      end
      granted = math.min(granted, limit - counted)
    end
    if depth > 0 then granted = math.min(granted, math.floor(depth - t.l)) end
    if granted > 0 then
      h.g = h.g + granted
      if cells > 0 then
        local of = ARGV[12]
        add(of, granted)
        h['g' .. of] = (h['g' .. of] or 0) + granted
      end
      if depth > 0 then t.l = t.l + granted end
    end
  end
  if depth > 0 and h.g - h.p ~= (t['i' .. instance] or 0) then t['i' .. instance] = h.g - h.p end
  h.s = seq
  t['h' .. instance] = now
  heard[instance] = now
end

local hosts = 0
for of, at in pairs(heard) do
  if at < latest - span - FORGOTTEN then
    t['h' .. of], t['i' .. of] = nil, nil
  elseif at >= latest - span then
    hosts = hosts + 1
  end
end

local totals_text, host_text = pack_state(t), pack_state(h)
if not (totals_text and host_text) then return STATE_FULL end
redis.call('SET', KEYS[1], totals_text, 'EX', retention)
redis.call('SET', KEYS[2], host_text, 'EX', retention)

local foreign, claims = {}, {}
if cells > 0 then
  for name, of in pairs(names) do
    if of >= lowest and of <= highest then
      local theirs = t[name] - (h['u' .. name] or 0) - (h['g' .. name] or 0) + (h['s' .. name] or 0)
      if theirs > 0 then foreign[#foreign + 1] = of; foreign[#foreign + 1] = theirs end
    end
  end
  for name, value in pairs(h) do
    if string.sub(name, 1, 1) == 'g' and #name > 1 then
      local of = string.sub(name, 2)
      claims[#claims + 1] = tonumber(of); claims[#claims + 1] = value
      claims[#claims + 1] = h['s' .. of] or 0
    end
  end
end
return {known and 1 or 0, hosts, h.g - h.p, foreign, claims, string.format('%.17g', t.l or 0), string.format('%.17g', t.a),
        clock[1], clock[2]}
