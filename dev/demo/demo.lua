-- What the demo's nginx does: logs each request as a line of JSON, measures log() in a loop, and
-- takes orders, with a reply that says whether log() took them.

local ffi = require "ffi"
local kfk = require "lkfk.kfk"

local ngx = ngx
local say, sleep, var = ngx.say, ngx.sleep, ngx.var
local byte, format, gsub, rep = string.byte, string.format, string.gsub, string.rep
local sort = table.sort
local C = ffi.C

ffi.cdef [[
typedef struct { long seconds, nanoseconds; } demo_time;
int demo_clock(int id, demo_time *now) __asm__("clock_gettime");
]]

local THREAD_CPU_TIME = 3
local CHUNK = 1000
local PAYLOAD_BYTES = 400

local _M = {}

local sequence = 0


function _M.start(conf)
    local ok, err = kfk.init(conf)
    if not ok then
        error(err)
    end
end


local function escape(char)
    return format("\\u%04x", byte(char))
end


local function quoted(text)
    return '"' .. gsub(text or "", '[%c"\\\127-\255]', escape) .. '"'
end


-- log_by_lua: one key for each client connection, so that the lines of one client stay in order.
function _M.log()
    sequence = sequence + 1
    local line = format(
        '{"seq":%d,"time":%.3f,"client":%s,"request":%s,"status":%d,"bytes":%d,"agent":%s}',
        sequence, ngx.now(), quoted(var.remote_addr), quoted(var.request), ngx.status,
        var.bytes_sent, quoted(var.http_user_agent))
    local ok, err = kfk.log("access", var.connection, line)
    if not ok then
        ngx.log(ngx.ERR, "not accepted: ", err)
    end
end


-- "yes ID" or "no ID". The id has the worker and how many came before, so that each order has one
-- of its own, and a place.
function _M.order()
    sequence = sequence + 1
    local id = ngx.worker.pid() .. "-" .. sequence
    local line = format('{"id":"%s","time":%.3f,"client":%s}', id, ngx.now(),
                        quoted(var.remote_addr))
    local ok = kfk.log("orders", var.connection, line)
    say(ok and "yes " or "no ", id)
end


-- One line for each counter, and the requests seen.
function _M.stats()
    say("requests ", sequence)
    local stats = kfk.stats()
    local names = {}
    for name in pairs(stats) do
        names[#names + 1] = name
    end
    sort(names)
    for _, name in ipairs(names) do
        say(name, " ", tostring(stats[name]))
    end
end


function _M.flush()
    local ok, err = kfk.flush(20)
    if not ok then
        ngx.status = 500
    end
    say(ok and "flushed" or err)
end


local time = ffi.new("demo_time")


local function thread_nanoseconds()
    C.demo_clock(THREAD_CPU_TIME, time)
    return tonumber(time.seconds) * 1e9 + tonumber(time.nanoseconds)
end


-- Logs until CHUNK messages are accepted; a full queue is waited for, and its chunk is not timed.
local function log_chunk(keys, payload)
    local begun, waited = thread_nanoseconds(), false
    for i = 1, CHUNK do
        while not kfk.log("loop", keys[i], payload) do
            waited = true
            sleep(0.005)
        end
    end
    return not waited and (thread_nanoseconds() - begun) / CHUNK
end


-- Logs `count` messages and says what log() costs this thread: the median and the 99th percentile
-- over chunks of a thousand.
function _M.measure()
    local count = tonumber(var.arg_count) or 200000
    local keys, payload, costs = {}, rep("x", PAYLOAD_BYTES), {}
    for i = 1, CHUNK do
        keys[i] = "key" .. i
    end
    for _ = 1, count / CHUNK do
        costs[#costs + 1] = log_chunk(keys, payload) or nil
        sleep(0.001)
    end
    sort(costs)
    say("median ", format("%.0f", costs[math.ceil(#costs * 0.5)] or 0))
    say("p99 ", format("%.0f", costs[math.ceil(#costs * 0.99)] or 0))
end


return _M
