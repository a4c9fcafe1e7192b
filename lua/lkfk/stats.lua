-- Statistics in ngx.shared.kfk, with the keys and meanings of ngx_lua_lkfk, summed over the
-- workers:
--   msg_cnt             messages in the queues
--   succ_msg_cnt        acknowledged so far
--   fail_msg_cnt        failed so far
--   waitbuf             in flight to a broker
--   <topic><partition>  waiting to be sent; -1 stands for messages whose partition is not known yet
-- Each worker remembers, under keys of its own, what it has put into the sums that go up and down,
-- so that its successor can take out what a killed worker left there. There may be many partitions,
-- so they are published in groups, each with a key of its own, between which requests are served.

local cdefs = require "lkfk.cdefs"
local numbers = require "lkfk.numbers"

local api, core = cdefs.api, cdefs.core
local ngx = ngx
local ERR = ngx.ERR
local ngx_log = ngx.log
local sleep = ngx.sleep
local concat = table.concat
local ipairs = ipairs
local jit = require "jit"
local max = math.max
local pairs = pairs
local pcall = pcall
local setmetatable = setmetatable
local shared = ngx.shared
local text_of = numbers.text_of
local tonumber = tonumber
local tostring = tostring
local type = type

-- No topic has a slash in its name, so none of these is a topic's.
local OWN_KEY = "lkfk.worker/"
local TAKEN_KEY = "lkfk.taken/"
local LEFT_KEY = "lkfk.left/"
local TAKEN_FOR = 10

-- Partitions that are read, or changed in the dict, before others have their turn: some tenths of a
-- millisecond. Finding one as it was takes less time.
local SLICE = 100
local LOOKS_PER_CHANGE = 10
-- For how long they have it. With ngx.sleep(0) nginx would come back at once, without a look at
-- its sockets.
local PAUSE = 0.001

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


-- The gauges of a group as one string: "key=value;key=value".
local function remember(self, group)
    local parts = {}
    for _, name in ipairs(group.names) do
        local value = group.values[name] or 0
        if value ~= 0 then
            parts[#parts + 1] = ("%s=%.0f"):format(name, value)
        end
    end
    self.dict:set(group.own_key, concat(parts, ";"))
end


-- Takes out what workers left that are gone. Of several that start at once one does it.
local function forget_dead_workers(dict)
    for _, key in pairs(dict:get_keys(0)) do
        local left_by = begins_with(key, LEFT_KEY) and tonumber(key:sub(#LEFT_KEY + 1))
        if left_by and not core.is_alive(left_by) then
            dict:delete(key)
        end
        local group = begins_with(key, OWN_KEY) and key:sub(#OWN_KEY + 1)
        local pid = group and tonumber(group:match("^%d+"))
        if pid and not core.is_alive(pid) and dict:add(TAKEN_KEY .. group, true, TAKEN_FOR) then
            local left = tostring(dict:get(key))
            dict:delete(key)
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


-- What is published at once: names, what was found, and what of it is in the sums.
local function new_group(own_key)
    return { own_key = own_key, names = {}, found = {}, values = {} }
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
    local sums = new_group(OWN_KEY .. pid)
    sums.names = { "waitbuf", "msg_cnt" }
    return setmetatable({
        id = served.id, handle = served.handle, dict = dict, tag = served.tag,
        own_key = OWN_KEY .. pid .. "/", left_key = LEFT_KEY .. pid,
        -- What is in the sums from this worker: gauges, which a successor takes out, and counters.
        sums = sums, groups = {}, group_of = {},
        counters = take_counters(dict, LEFT_KEY .. pid),
        -- The call of publish() that counts, while it is at work, and whether the last one has
        -- used up what it found.
        publishing = nil, found_is_empty = true,
    }, Stats)
end


local function add_counters(self, values)
    for _, name in pairs(COUNTERS) do
        local delta = values[name] - (self.counters[name] or 0)
        if delta ~= 0 then
            self.dict:incr(name, delta, 0)
        end
        self.counters[name] = values[name]
    end
end


-- Brings a group's part of the sums up to date with group.found -> how much work that was. All of
-- it happens at once, so that a successor takes out what was put in.
local function publish_group(self, group)
    local changes = 0
    for _, name in ipairs(group.names) do
        local value, before = group.found[name] or 0, group.values[name] or 0
        group.found[name] = nil
        if value ~= before then
            add(self.dict, name, value - before)
            group.values[name] = value
            changes = changes + 1
        end
    end
    if changes > 0 then
        remember(self, group)
    end
    return changes + #group.names / LOOKS_PER_CHANGE
end


local function publish_sums(self)
    local values = _M.read(self.handle)
    add_counters(self, values)
    self.sums.found = {
        waitbuf = values.waitbuf,
        -- With what is left of adopted queues, which queue_messages leaves out.
        msg_cnt = max(0, values.accepted_cnt + values.adopted_cnt - values.succ_msg_cnt
                         - values.fail_msg_cnt - values.dropped_cnt),
    }
    publish_group(self, self.sums)
end


-- The group of a name that is seen for the first time.
local function join_group(self, name)
    local group = self.groups[#self.groups]
    if not group or #group.names == SLICE then
        group = new_group(self.own_key .. #self.groups + 1)
        self.groups[#self.groups + 1] = group
    end
    group.names[#group.names + 1] = name
    self.group_of[name] = group
    return group
end


-- Calls go_on() after each slice, and ends where that is false.
local function publish_partitions(self, go_on)
    if not self.found_is_empty then
        -- An earlier call has not come to its end.
        for _, group in ipairs(self.groups) do
            group.found = {}
        end
    end
    self.found_is_empty = false
    for rows in core.waiting_by_partition(self.id, SLICE) do
        for i = 1, #rows, 2 do
            local name = rows[i]
            local found = (self.group_of[name] or join_group(self, name)).found
            -- Topic "t1" with partition 1 and topic "t" with partition 11 have one name.
            found[name] = (found[name] or 0) + rows[i + 1]
        end
        if not go_on() then
            return
        end
    end
    local work = 0
    for _, group in ipairs(self.groups) do
        work = work + publish_group(self, group)
        if work >= SLICE then
            work = 0
            if not go_on() then
                return
            end
        end
    end
    self.found_is_empty = true
end


-- publish([at_once]): brings this worker's part of the sums up to date, in slices between which
-- others have their turn, or at once. One that is at work is not joined by another one, and is
-- ended by one that does it at once.
function Stats:publish(at_once)
    if self.publishing and not at_once then
        return
    end
    local this = {}
    self.publishing = this
    local ok, err = pcall(function()
        publish_sums(self)
        publish_partitions(self, function()
            if not at_once then
                sleep(PAUSE)
            end
            return self.publishing == this
        end)
    end)
    if self.publishing == this then
        self.publishing = nil
    end
    if not ok then
        ngx_log(ERR, self.tag, "statistics: ", tostring(err))
    end
end


local function take_group_out(self, group)
    for name, value in pairs(group.values) do
        if value ~= 0 then
            self.dict:incr(name, -value, 0)
        end
    end
    self.dict:delete(group.own_key)
end


-- A worker that is gone has nothing that waits or is in flight.
local function take_gauges_out(self)
    self.publishing = nil
    take_group_out(self, self.sums)
    for _, group in ipairs(self.groups) do
        take_group_out(self, group)
    end
    self.sums.values, self.groups, self.group_of = {}, {}, {}
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
        if not key:find("^lkfk%.%l+/") then
            local value = dict:get(key)
            parts[#parts + 1] = key .. ":" .. (type(value) == "number" and text_of(value)
                                               or tostring(value))
        end
    end
    return "[kafka] [statistics] " .. concat(parts, ",")
end


-- What runs while nginx closes the VM, in a finalizer, stays in the interpreter: LuaJIT neither
-- compiles nor steps its collector there, and a trace that has to leave for either may come back
-- without end.
for _, at_exit in ipairs {
    Stats.last_line, Stats.hand_over, take_gauges_out, take_group_out, add_counters, _M.read,
} do
    jit.off(at_exit)
end


return _M
