-- What the functions of limits share: their state, numbers by their names, packed into strings of Redis.
--
-- Redis holds each command of a function against its caller's rights, so that the caller may send it alone as well. These
-- are therefore GETRANGE, SET and TIME: none of them can be sent so that Redis walks something large. What no
-- function has written is forgotten at the next call, which answers an error: edges then report all that counts again.
local STATE_BYTES_MAX, KEY_BYTES_MAX, SECONDS_MAX = 131072, 512, 366 * 86400
local COUNT_MAX = 9007199254740992  -- The largest number up to which a double has all whole ones.

local INVALID_ARGUMENTS = {err = 'INVALIDARGUMENTS an argument of this function is not what it must be'}
local INVALID_STATE = {err = 'INVALIDSTATE a limit had a state that no edge has written: it is forgotten'}
local STATE_FULL = {err = 'STATEFULL a limit has the state of as many hosts as it can have'}

-- The numbers from a place of the arguments on, each from 0 to COUNT_MAX; nil where one is none.
local function parse_numbers(arguments, first)
  local numbers = {}
  for place = first, #arguments do
    local number = tonumber(arguments[place])
    if not (number and number >= 0 and number <= COUNT_MAX) then return nil end
    numbers[place] = number
  end
  return numbers
end

local function is_instance(text) return #text <= 18 and string.find(text, '^%d+$') ~= nil end

local function is_retention(seconds) return seconds >= 1 and seconds <= SECONDS_MAX and seconds % 1 == 0 end

-- What the key of a limit begins with, given how it ends; nil where it is another key.
local function key_prefix(key, suffix)
  if #key > KEY_BYTES_MAX or string.sub(key, 1, 4) ~= 'rl:{' or string.sub(key, -#suffix) ~= suffix then return nil end
  return string.sub(key, 1, -#suffix - 1)
end

-- The numbers of a state by their names, an empty table where there is none; nil where no function has written it.
local function read_state(key)
  local packed = redis.call('GETRANGE', key, 0, STATE_BYTES_MAX)
  if packed == '' then return {} end
  if #packed > STATE_BYTES_MAX then return nil end
  local is_read, state = pcall(cmsgpack.unpack, packed)
  if not is_read or type(state) ~= 'table' then return nil end
  for name, number in pairs(state) do
    if type(name) ~= 'string' or type(number) ~= 'number' or not (number >= -COUNT_MAX and number <= COUNT_MAX) then
      return nil
    end
  end
  return state
end

-- A state as it is stored; nil where it is too large.
local function pack_state(state)
  local packed = cmsgpack.pack(state)
  return #packed <= STATE_BYTES_MAX and packed or nil
end

-- Forgets states of which no function has written one.
local function reject_states(...)
  for _, key in ipairs({...}) do redis.call('SET', key, '', 'EX', 1) end
  return INVALID_STATE
end

-- What the functions of the directory share (wire/directory_versions.py, wire/quota_counts.py).
local LOG_KEY, TIME_KEY, COUNTED_KEY = 'dir:{people}:log', 'dir:{people}:time', 'dir:{people}:counted'
local PARTS_PREFIX = 'dir:{people}:parts:'
local LIST_FULL = {err = 'LISTFULL a list of the directory has as many lines as it can have'}

local function is_parts_key(key) return #key <= KEY_BYTES_MAX and string.sub(key, 1, #PARTS_PREFIX) == PARTS_PREFIX end

local function is_line(text) return #text <= 65536 end
