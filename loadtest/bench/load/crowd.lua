-- Requests of many customers (loadtest/bench/measure/crowd.py), in wrk. Customer and path are drawn for each request.
local customers, routes, is_zipf, has_new_paths, is_first = @CUSTOMERS@, @ROUTES@, @ZIPF@, @NEW@, @FIRST@
local begin = @BEGIN@
local format, random = string.format, math.random
local sent, answered, refused, bytes = 0, 0, 0, 0
math.randomseed(@SEED@)

local sums = {}
if is_zipf then
    local sum = 0
    for k = 1, customers do
        sum = sum + 1 / k
        sums[k] = sum
    end
end

local function draw_customer()
    if is_first then return begin + (sent - 1) % customers end
    if not is_zipf then return random(0, customers - 1) end
    local low, high, drawn = 1, customers, random() * sums[customers]
    while low < high do
        local middle = math.floor((low + high) / 2)
        if sums[middle] < drawn then low = middle + 1 else high = middle end
    end
    return low - 1
end

request = function()
    sent = sent + 1
    local tail = has_new_paths and "orders/" .. random(1000000, 2000000000) or "@KIND@"
    return format("GET /r%d/%s HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer @KEY@\r\n\r\n",
        random(0, routes - 1), tail, draw_customer())
end

-- wrk runs for a time, so a script of customers in turn ends it itself, after these requests of each customer.
local rounds = @ROUNDS@
if is_first then
    local ffi = require("ffi")
    ffi.cdef("typedef struct { long seconds, microseconds; } moment; int gettimeofday(moment *now, void *zone);")
    local function read_clock()
        local now = ffi.new("moment")
        ffi.C.gettimeofday(now, nil)
        return tonumber(now.seconds) * 1e6 + tonumber(now.microseconds)
    end
    local began = read_clock()
    response = function(status, headers, body)
        answered = answered + 1
        if status >= 400 then refused = refused + 1 end
        bytes = bytes + #body + #"HTTP/1.1 200 OK\r\n"
        if answered == customers * rounds then
            io.write(format('RESULT {"requests": %d, "microseconds": %d, "bytes": %d, "refused": %d, "failed": 0}\n',
                answered, read_clock() - began, bytes, refused))
            io.flush()
            os.exit(0)
        end
    end
end
