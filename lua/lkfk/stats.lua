-- Statistics in ngx.shared.kfk, with the keys and meanings of ngx_lua_lkfk, summed over the
-- workers:
--   msg_cnt             messages in the queues
--   succ_msg_cnt        acknowledged so far
--   fail_msg_cnt        given up so far
--   waitbuf             on their way to a broker
--   <topic><partition>  waiting to be sent; -1 stands for messages whose partition is not known yet
-- Each worker remembers, under one key of its own, what it has put into the sums that go up and
-- down, so that its successor can take out what a killed worker left there.

local core = require "lkfk.core"

local ngx = ngx
local concat = table.concat
local max = math.max
local pairs = pairs
local shared = ngx.shared
local tonumber = tonumber

local OWN_KEY = "lkfk.worker."
local TAKEN_KEY = "lkfk.taken."
local TAKEN_FOR = 10

-- What stats() calls them, and whether they only grow.
local NAMES = {
    { "succ_msg_cnt", "succ_msg_cnt", true },
    { "fail_msg_cnt", "fail_msg_cnt", true },
    { "waitbuf", "waitbuf", false },
}


local _M = {}


local names = core.stat_names
local dict, api, own_key

-- What is in the sums from this worker: gauges, which a successor takes out, and counters.
local gauges, counters = {}, {}


-- read(api) -> table of all values of this worker.
function _M.read(from)
    local values = {}
    for index = 1, #names do
        values[names[index]] = tonumber(from.stat(from.handle, index - 1))
    end
    return values
end


local function add(key, delta)
    if delta ~= 0 then
        dict:incr(key, delta, 0)
    end
end


-- The gauges as one string: "key=value;key=value".
local function remember()
    local parts = {}
    for key, value in pairs(gauges) do
        if value ~= 0 then
            parts[#parts + 1] = key .. "=" .. value
        end
    end
    dict:set(own_key, concat(parts, ";"))
end


-- Takes out what workers left that are gone. Of several that start at once one does it.
local function forget_dead_workers()
    for _, key in pairs(dict:get_keys(0)) do
        local pid = key:sub(1, #OWN_KEY) == OWN_KEY and tonumber(key:sub(#OWN_KEY + 1))
        if pid and not core.is_alive(pid) and dict:add(TAKEN_KEY .. pid, true, TAKEN_FOR) then
            local left = dict:get(key) or ""
            dict:delete(key)
            for name, value in left:gmatch("([^=;]+)=([^;]+)") do
                add(name, -tonumber(value))
            end
        end
    end
end


-- start(api) -> true | nil, err: err is a warning; without the shared dict there are no statistics.
function _M.start(running)
    api = running
    dict = shared.kfk
    if not dict then
        return nil, "no lua_shared_dict kfk: no statistics are kept"
    end
    own_key = OWN_KEY .. ngx.worker.pid()
    forget_dead_workers()
    for _, name in pairs(NAMES) do
        dict:incr(name[2], 0, 0)
    end
    dict:incr("msg_cnt", 0, 0)
    return true
end


local function set_gauge(key, value)
    add(key, value - (gauges[key] or 0))
    gauges[key] = value
end


-- publish(): brings this worker's part of the sums up to date.
function _M.publish()
    if not dict then
        return
    end
    local values = _M.read(api)
    for _, name in pairs(NAMES) do
        local value, key = values[name[1]], name[2]
        if name[3] then
            add(key, value - (counters[key] or 0))
            counters[key] = value
        else
            set_gauge(key, value)
        end
    end
    -- With what is left of adopted queues, which queue_messages leaves out.
    set_gauge("msg_cnt", max(0, values.accepted_cnt + values.adopted_cnt - values.succ_msg_cnt
                                - values.fail_msg_cnt - values.dropped_cnt))
    if core.waiting_by_partition then
        local waiting = core.waiting_by_partition()
        for key, value in pairs(waiting) do
            set_gauge(key, value)
        end
        for key in pairs(gauges) do
            if waiting[key] == nil and key ~= "msg_cnt" and key ~= "waitbuf" then
                set_gauge(key, 0)
            end
        end
    end
    remember()
end


-- last_line() -> text | nil: the sums as one line, for the log at worker exit. Called when the Lua
-- VM is being closed, so it uses nothing but FFI and the shared dict.
function _M.last_line()
    if not dict then
        return nil
    end
    local values = _M.read(api)
    for _, name in pairs(NAMES) do
        if name[3] then
            add(name[2], values[name[1]] - (counters[name[2]] or 0))
        end
    end
    -- A worker that is gone has nothing that waits or is on its way.
    for key, value in pairs(gauges) do
        add(key, -value)
    end
    dict:delete(own_key)
    local parts = {}
    for _, key in pairs(dict:get_keys(0)) do
        if key:sub(1, #OWN_KEY) ~= OWN_KEY and key:sub(1, #TAKEN_KEY) ~= TAKEN_KEY then
            parts[#parts + 1] = key .. ":" .. dict:get(key)
        end
    end
    return "[kafka] [statistics] " .. concat(parts, ",")
end


return _M
