-- Statistics in ngx.shared.kfk, with the keys and meanings of ngx_lua_lkfk, summed over the
-- workers:
--   msg_cnt             messages in the queues
--   succ_msg_cnt        acknowledged so far
--   fail_msg_cnt        given up so far
--   waitbuf             on their way to a broker
--   <topic><partition>  waiting to be sent; -1 stands for messages whose partition is not known yet
-- Each worker remembers, under one key of its own, what it has put into the sums that go up and
-- down, so that its successor can take out what a killed worker left there.

local cdefs = require "lkfk.cdefs"

local api, core = cdefs.api, cdefs.core
local ngx = ngx
local concat = table.concat
local max = math.max
local pairs = pairs
local setmetatable = setmetatable
local shared = ngx.shared
local tonumber = tonumber
local tostring = tostring

-- No topic has a slash in its name, so none of these is a topic's.
local OWN_KEY = "lkfk.worker/"
local TAKEN_KEY = "lkfk.taken/"
local LEFT_KEY = "lkfk.left/"
local TAKEN_FOR = 10

-- Sums that only grow; and all that are there from the start.
local COUNTERS = { "succ_msg_cnt", "fail_msg_cnt" }
local NAMES = { "succ_msg_cnt", "fail_msg_cnt", "waitbuf", "msg_cnt" }


local _M = {}

local Stats = {}
Stats.__index = Stats

local names = core.stat_names


-- read(handle) -> table of all values of this worker's producer.
function _M.read(handle)
    local values = {}
    for index = 1, #names do
        values[names[index]] = tonumber(api.stat(handle, index - 1))
    end
    return values
end


local function begins_with(key, beginning)
    return key:sub(1, #beginning) == beginning
end


local function add(dict, key, delta)
    if delta ~= 0 then
        dict:incr(key, delta, 0)
    end
end


-- The gauges as one string: "key=value;key=value".
local function remember(self)
    local parts = {}
    for key, value in pairs(self.gauges) do
        if value ~= 0 then
            parts[#parts + 1] = key .. "=" .. value
        end
    end
    self.dict:set(self.own_key, concat(parts, ";"))
end


-- Takes out what workers left that are gone. Of several that start at once one does it.
local function forget_dead_workers(dict)
    for _, key in pairs(dict:get_keys(0)) do
        local pid = begins_with(key, OWN_KEY) and tonumber(key:sub(#OWN_KEY + 1))
        if pid and not core.is_alive(pid) and dict:add(TAKEN_KEY .. pid, true, TAKEN_FOR) then
            local left = tostring(dict:get(key))
            dict:delete(key)
            dict:delete(LEFT_KEY .. pid)
            for name, value in left:gmatch("([^=;]+)=([^;]+)") do
                add(dict, name, -tonumber(value))
            end
        end
    end
end


-- The counters that a VM left which served this worker's producer before, see hand_over().
local function take_counters(dict, key)
    local counters = {}
    for name, value in tostring(dict:get(key)):gmatch("([^=;]+)=(%d+)") do
        counters[name] = tonumber(value)
    end
    dict:delete(key)
    return counters
end


-- new(served) -> statistics | nil, err: err is a warning; without the shared dict there are none.
function _M.new(served)
    local dict = shared.kfk
    if not dict then
        return nil, "no lua_shared_dict kfk: no statistics are kept"
    end
    forget_dead_workers(dict)
    for _, name in pairs(NAMES) do
        dict:incr(name, 0, 0)
    end
    local pid = ngx.worker.pid()
    return setmetatable({
        id = served.id, handle = served.handle, dict = dict,
        own_key = OWN_KEY .. pid, left_key = LEFT_KEY .. pid,
        -- What is in the sums from this worker: gauges, which a successor takes out, and counters.
        gauges = {}, counters = take_counters(dict, LEFT_KEY .. pid),
    }, Stats)
end


local function set_gauge(self, key, value)
    add(self.dict, key, value - (self.gauges[key] or 0))
    self.gauges[key] = value
end


local function add_counters(self, values)
    for _, name in pairs(COUNTERS) do
        add(self.dict, name, values[name] - (self.counters[name] or 0))
        self.counters[name] = values[name]
    end
end


-- publish(): brings this worker's part of the sums up to date.
function Stats:publish()
    local values = _M.read(self.handle)
    add_counters(self, values)
    set_gauge(self, "waitbuf", values.waitbuf)
    -- With what is left of adopted queues, which queue_messages leaves out.
    set_gauge(self, "msg_cnt", max(0, values.accepted_cnt + values.adopted_cnt
                                      - values.succ_msg_cnt - values.fail_msg_cnt
                                      - values.dropped_cnt))
    local waiting = core.waiting_by_partition(self.id)
    for key, value in pairs(waiting) do
        set_gauge(self, key, value)
    end
    for key in pairs(self.gauges) do
        if waiting[key] == nil and key ~= "msg_cnt" and key ~= "waitbuf" then
            set_gauge(self, key, 0)
        end
    end
    remember(self)
end


-- A worker that is gone has nothing that waits or is on its way.
local function take_gauges_out(self)
    for key, value in pairs(self.gauges) do
        add(self.dict, key, -value)
    end
    self.gauges = {}
    self.dict:delete(self.own_key)
end


-- hand_over(): the VM is closed and the worker lives on. What was counted is left for whichever VM
-- serves the producer next.
function Stats:hand_over()
    add_counters(self, _M.read(self.handle))
    take_gauges_out(self)
    local parts = {}
    for name, value in pairs(self.counters) do
        parts[#parts + 1] = ("%s=%.0f"):format(name, value)
    end
    self.dict:set(self.left_key, concat(parts, ";"))
end


-- last_line() -> the sums as one line, for the log at worker exit. Called when the Lua VM is being
-- closed, so it uses nothing but FFI and the shared dict.
function Stats:last_line()
    local dict = self.dict
    add_counters(self, _M.read(self.handle))
    take_gauges_out(self)
    local parts = {}
    for _, key in pairs(dict:get_keys(0)) do
        if not (begins_with(key, OWN_KEY) or begins_with(key, TAKEN_KEY)) then
            parts[#parts + 1] = key .. ":" .. dict:get(key)
        end
    end
    return "[kafka] [statistics] " .. concat(parts, ",")
end


return _M
