-- The user's own functions, failed_cb and partitioner, run on nginx's event loop. The driver thread
-- leaves work for them and takes their answers; a timer brings both together. None of this runs
-- when neither is set.

local core = require "lkfk.core"

local ngx = ngx
local ERR = ngx.ERR
local ngx_log = ngx.log
local now = ngx.now
local sleep = ngx.sleep
local update_time = ngx.update_time
local floor = math.floor
local pcall = pcall
local select = select
local setmetatable = setmetatable
local tostring = tostring
local type = type

-- How long callbacks may hold the event loop before others get their turn, and for how long those
-- do.
local SLICE = 0.001
local PAUSE = 0.001
-- A callback that has not returned for so long, in seconds, is not waited for any more.
local GIVEN_UP_AFTER = 60
-- Failures inside log() that may wait for their callback.
local PENDING_MAX = 10000


local _M = { active = false }


local failed_cb, partitioner, kfk

-- A partitioner is set, but in another VM (lua_code_cache off): that one will be asked.
local partitioner_elsewhere = false

-- Messages that log() itself could not take, oldest first.
local pending, pending_first, pending_last = {}, 1, 0

local complained_at = {}


-- An error of a callback's is said once a second.
local function complain(name, text)
    local second = floor(now())
    if complained_at[name] ~= second then
        complained_at[name] = second
        ngx_log(ERR, "[lkfk] ", name, ": ", text)
    end
end


local file_methods = {}


-- kfk.fp[topic]:write(...): as a file's, but by the driver. A null key is written as \N.
function file_methods:write(...)
    local parts = {}
    for i = 1, select("#", ...) do
        local part = select(i, ...)
        parts[i] = part == nil and "\\N" or tostring(part)
    end
    if not core.append(self.topic, table.concat(parts)) then
        return nil, "backup file of topic " .. self.topic .. " is not taking more"
    end
    return self
end


function file_methods:flush()
    return self
end


local files = setmetatable({}, {
    __index = function(self, topic)
        local file = setmetatable({ topic = topic }, { __index = file_methods })
        self[topic] = file
        return file
    end,
})


-- setup(cf): takes over the functions of a configuration.
function _M.setup(cf)
    failed_cb, partitioner = cf.failed_cb, cf.partitioner
    kfk = { cf = cf, fp = files }
    _M.active = failed_cb ~= nil or partitioner ~= nil
end


-- attach(): for a VM that found the producer running.
function _M.attach()
    partitioner_elsewhere = core.has_partitioner()
    _M.active = partitioner_elsewhere
end


local function valid_partition(partition, count)
    return type(partition) == "number" and partition >= 0 and partition < count
           and floor(partition) == partition
end


-- partition(key, count) -> number | nil: what the user's partitioner says; nil leaves it to the
-- default one.
local function partition_of(key, count)
    local ok, partition = pcall(partitioner, key, count)
    if not ok then
        complain("partitioner", tostring(partition))
        return nil
    end
    if not valid_partition(partition, count) then
        complain("partitioner", "returned " .. tostring(partition) .. " for " .. count
                                .. " partitions; the default partitioner is used")
        return nil
    end
    return partition
end


-- partition(topic number, key) -> number for push(): the partition, -1 for the default partitioner,
-- -2 to be asked again when the number of partitions is known.
function _M.partition(id, key)
    if not partitioner then
        return partitioner_elsewhere and -2 or -1
    end
    local count = core.partition_count(id)
    if not count then
        return -2
    end
    return partition_of(key, count) or -1
end


-- failed(topic, key, payload, err): log() itself could not take a message. The callback runs later,
-- outside log(). Without one of the user's the message goes to the backup file when its topic is
-- not allowed; when the queue is full, log()'s caller alone is told.
function _M.failed(topic, key, payload, err)
    if failed_cb then
        if pending_last - pending_first + 1 >= PENDING_MAX then
            complain("failed_cb", PENDING_MAX .. " messages wait for it; the next ones are dropped")
            return
        end
        pending_last = pending_last + 1
        pending[pending_last] = { topic = topic, key = key, str = payload, err = err }
    elseif err == "topic unknown" then
        core.back_up(topic, key, payload, now())
    end
end


local function call_failed_cb(msg)
    local ok, err = pcall(failed_cb, kfk, msg)
    if not ok then
        complain("failed_cb", tostring(err))
    end
    return ok
end


local function run_one()
    local id, count, key = core.next_question()
    if id then
        core.answer(id, partition_of(key, count))
        return true
    end
    local msg = core.next_failure()
    if msg then
        id, msg.id = msg.id, nil
        core.failure_done(id, call_failed_cb(msg))
        return true
    end
    if pending_first <= pending_last then
        msg = pending[pending_first]
        pending[pending_first] = nil
        pending_first = pending_first + 1
        if not call_failed_cb(msg) then
            core.back_up(msg.topic, msg.key, msg.str, now())
        end
        return true
    end
    return false
end


-- When the last callback began, while run() is at work.
local running_since


-- stop(): there will be no more calls of run().
function _M.stop()
    core.end_callbacks()
end


-- run(): runs what there is, in slices. Called from a timer; while it runs, further calls do
-- nothing, unless a callback has not come back for a minute: then it may have ended its thread.
function _M.run()
    update_time()
    if running_since and now() - running_since < GIVEN_UP_AFTER then
        return
    end
    running_since = now()
    local slice_began = running_since
    local idle = false
    repeat
        local ran = run_one()
        update_time()
        running_since = now()
        if not ran and idle then
            break
        end
        -- The driver has more, perhaps: it is told, and given a moment, before this ends.
        idle = not ran
        if idle or running_since - slice_began >= SLICE then
            core.signal()
            sleep(PAUSE)
            update_time()
            slice_began = now()
        end
    until false
    running_since = nil
end


return _M
