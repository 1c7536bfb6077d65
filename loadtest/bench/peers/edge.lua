-- edgeproxy's job in nginx: who asks, within which limits, with which stamps, counted how often.
-- Limits are sliding windows of two counts (the one before weighted by what is left of it), the usual way with
-- shared dictionaries; requests at once are one count, given back in the log phase, which nginx runs however a request
-- ends. Every step is as cheap as we could make it, so that the yardstick is a fair one.

local ffi = require("ffi")
-- The three steps that lua-resty-string takes: SHA256() in one looks its provider up at each call.
ffi.cdef([[
typedef struct { unsigned int words[28]; } edge_sha256;
int SHA256_Init(edge_sha256 *state);
int SHA256_Update(edge_sha256 *state, const void *text, size_t length);
int SHA256_Final(unsigned char *digest, edge_sha256 *state);
]])

local ngx = ngx
local floor, ceil, random = math.floor, math.ceil, math.random
local format, sub, find = string.format, string.sub, ngx.re.find
local addresses, windows, slots = ngx.shared.addresses, ngx.shared.windows, ngx.shared.slots
local usage, metrics = ngx.shared.usage, ngx.shared.metrics

local M = {}
local routes          -- name -> its buckets, its codes for nobody, and its lanes by raw SHA-256 of the key
local address_rate    -- requests a second and address
local state, digest = ffi.new("edge_sha256"), ffi.new("unsigned char[32]")

-- Upper ends of the histogram's buckets in milliseconds: nginx's clock is no finer than one.
local bounds = {1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1250, 2500, 5000, 10000}

-- The keys of a route's histogram: of each millisecond its bucket, so that no request searches.
local function buckets(route)
    local keys, from = {beyond = route .. "|le+Inf", seconds = route .. "|seconds"}, 0
    for _, bound in ipairs(bounds) do
        for ms = from, bound do keys[ms] = route .. "|le" .. bound end
        from = bound + 1
    end
    return keys
end

-- The keys of status counters, made when a status first comes.
local function codes(route, tier)
    return setmetatable({}, {__index = function(self, status)
        local key = route .. "|" .. tier .. "|" .. status
        self[status] = key
        return key
    end})
end

local function raw(hex)
    return (hex:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

-- The pieces of a problem+json body around the request id. They are sent as pieces, since long strings that
-- differ in their middle only all fall into one bucket of LuaJIT's string table.
local function problem(status, title, more)
    return {
        status = status,
        head = format('{"type": "about:blank", "title": "%s", "status": %d, "detail": "%s", "instance": "',
            title, status, title),
        tail = '"' .. (more or "") .. "}",
    }
end

local FLOOD = problem(429, "Too many requests from this address")
local NOBODY = problem(401, "No or unknown key")

-- People by raw SHA-256 of the key, from lines of `digest name tier limit at_once`. A table in Lua source has its
-- entries as constants of one function, of which LuaJIT allows 65,536.
local function read_people(path)
    local people = {}
    for line in io.lines(path) do
        local hex, name, tier, limit, at_once = line:match("^(%x+) (%S+) (%S+) (%d+) (%d+)$")
        people[raw(hex)] = {name = name, tier = tier, limit = tonumber(limit), at_once = tonumber(at_once)}
    end
    return people
end

-- A lane is a customer on a route, with all that is settled before a request comes.
function M.setup(path, names, rate)
    math.randomseed(ngx.time() * 1000 + ngx.worker.pid())
    address_rate = rate
    routes = {}
    local by_digest = read_people(path)
    for _, name in ipairs(names) do
        -- Lanes are made when a customer first uses a route: many customers on many routes would not fit into memory.
        local lanes = setmetatable({}, {__index = function(self, digest)
            local person = by_digest[digest]
            if not person then return nil end
            local lane = {
                customer = person.name,
                tier = person.tier,
                limit = person.limit,
                at_once = person.at_once,
                subject = person.name .. "|",
                policy = format('"%s";q=%d;w=60', person.tier, person.limit),
                shown = format('"%s";r=', person.tier),
                usage = person.name .. "|" .. name,
                codes = codes(name, person.tier),
                spent = problem(429, "Quota exceeded", format(', "violated-policies": ["%s"]', person.tier)),
                crowded = problem(429, "Quota exceeded", ', "violated-policies": ["concurrency"]'),
            }
            self[digest] = lane
            return lane
        end})
        routes[name] = {buckets = buckets(name), codes = codes(name, "-"), lanes = lanes}
    end
end

local function identify(var, lanes)
    local key = var.http_authorization
    if key and sub(key, 1, 7) == "Bearer " then
        key = sub(key, 8)
    else
        key = var.http_x_api_key
    end
    if not key then return nil end
    ffi.C.SHA256_Init(state)
    ffi.C.SHA256_Update(state, key, #key)
    ffi.C.SHA256_Final(digest, state)
    return lanes[ffi.string(digest, 32)]
end

-- Charge one to a window; returns what is left of it, or nil where it is spent (then nothing is charged).
local function charge(dict, subject, limit, width, now)
    local cell = floor(now / width)
    local current = subject .. cell
    local used = dict:incr(current, 1, 0, 2 * width)
    local before = dict:get(subject .. (cell - 1))
    if before then used = used + before * (1 - (now / width - cell)) end
    if used > limit then
        dict:incr(current, -1)
        return nil
    end
    return limit - ceil(used)
end

-- Take back a charge of this moment: what is refused is charged nowhere.
local function uncharge(dict, subject, width, now)
    dict:incr(subject .. floor(now / width), -1)
end

-- A UUIDv7 (RFC 9562), made here: nginx's own $request_id asks OpenSSL for random bytes, which costs 2 µs.
local function new_id(now)
    return format("%08x-%04x-7%03x-%04x-%04x%08x", floor(now / 65.536), floor(now * 1000) % 65536,
        random(0, 4095), random(32768, 49151), random(0, 65535), random(0, 4294967295))
end

local function hex16()
    return format("%08x%08x", random(0, 4294967295), random(0, 4294967295))
end

-- version-trace-span-flags: the trace continued where the client's is well-formed, else begun.
local function trace(given)
    if given and find(given, "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$", "jo") then
        return sub(given, 1, 36) .. hex16() .. sub(given, 53)
    end
    return "00-" .. hex16() .. hex16() .. "-" .. hex16() .. "-01"
end

local function refuse(ctx, this)
    ctx.refused = true
    ngx.status = this.status
    local header = ngx.header
    header["Content-Type"] = "application/problem+json"
    header["Content-Length"] = #this.head + #ctx.id + #this.tail
    ngx.print(this.head, ctx.id, this.tail)
    return ngx.exit(ngx.HTTP_OK)
end

-- The access phase: guard, identify, admit, stamp.
function M.admit(name)
    local var, now, route = ngx.var, ngx.now(), routes[name]
    local ctx = {id = new_id(now), route = route}
    ngx.ctx = ctx
    if not charge(addresses, var.binary_remote_addr, address_rate, 1, now) then
        return refuse(ctx, FLOOD)
    end
    local lane = identify(var, route.lanes)
    if not lane then
        ngx.header["WWW-Authenticate"] = "Bearer"
        return refuse(ctx, NOBODY)
    end
    ctx.lane = lane
    local left = charge(windows, lane.subject, lane.limit, 60, now)
    ctx.left = left or 0
    ctx.reset = ceil(60 - now % 60)
    if not left then
        ngx.header["Retry-After"] = ctx.reset
        return refuse(ctx, lane.spent)
    end
    if slots:incr(lane.customer, 1, 0) > lane.at_once then
        slots:incr(lane.customer, -1)
        uncharge(windows, lane.subject, 60, now)
        ctx.left = left + 1
        ngx.header["Retry-After"] = 1
        return refuse(ctx, lane.crowded)
    end
    ctx.holds = lane.customer
    var.customer = lane.customer
    var.tier = lane.tier
    var.id = ctx.id
    var.trace = trace(var.http_traceparent)
end

-- The head of an answer: its fields, and the count for billing before it goes to the client.
function M.respond()
    local ctx, header = ngx.ctx, ngx.header
    header["X-Request-Id"] = ctx.id
    local lane = ctx.lane
    if not lane then return end
    header["RateLimit-Policy"] = lane.policy
    header["RateLimit"] = lane.shown .. ctx.left .. ";t=" .. ctx.reset
    if not ctx.refused and ngx.status < 500 then usage:incr(lane.usage, 1, 0) end
end

-- After the answer: the slot is free again, status counter and latency histogram.
function M.observe()
    local ctx = ngx.ctx
    if ctx.holds then slots:incr(ctx.holds, -1) end
    local keys = ctx.route.buckets
    metrics:incr((ctx.lane or ctx.route).codes[ngx.status], 1, 0)
    local took = ngx.now() - ngx.req.start_time()
    metrics:incr(keys[floor(took * 1000 + 0.5)] or keys.beyond, 1, 0)
    metrics:incr(keys.seconds, took, 0)
end

function M.report_usage()
    local rows = {}
    for _, row in ipairs(usage:get_keys(0)) do
        rows[#rows + 1] = format('"%s": %d', row, usage:get(row))
    end
    ngx.say("{" .. table.concat(rows, ", ") .. "}")
end

return M
