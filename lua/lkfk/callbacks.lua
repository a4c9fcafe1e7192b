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
-- Failures inside log() that may wait for their callback, and bytes of them.
local PENDING_MAX = 10000
local PENDING_BYTES_MAX = 8 * 1024 * 1024


local _M = { active = false }


local failed_cb, partitioner, kfk

-- A partitioner is set, but in another VM (lua_code_cache off): that one will be asked.
local partitioner_elsewhere = false

-- Messages that log() itself could not take, oldest first.
local pending, pending_first, pending_last, pending_bytes = {}, 1, 0, 0

-- A text of failed_cb's was refused since its call began.
local text_refused = false

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


-- kfk.fp[topic]:write(...): as a file's, but by the driver. A null key is written as \N. When a
-- text is refused in a failed_cb, that one has not handled its message.
function file_methods:write(...)
    local parts = {}
    for i = 1, select("#", ...) do
        local part = select(i, ...)
        parts[i] = part == nil and "\\N" or tostring(part)
    end
    if not core.append(self.topic, table.concat(parts)) then
        text_refused = true
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


local function bytes_of(key, payload)
    return #tostring(key or "") + #tostring(payload)
end


-- failed(topic, key, payload, err): log() itself could not take a message. The callback runs later,
-- outside log(). Without one of the user's the message goes to the backup file when its topic is
-- not allowed; when the queue is full, log()'s caller alone is told.
function _M.failed(topic, key, payload, err)
    if failed_cb then
        local count = pending_last - pending_first + 1
        local bytes = bytes_of(key, payload)
        if count >= PENDING_MAX or pending_bytes + bytes > PENDING_BYTES_MAX then
            complain("failed_cb", count .. " messages wait for it; the next ones are dropped")
            return
        end
        pending_bytes = pending_bytes + bytes
        pending_last = pending_last + 1
        pending[pending_last] = { topic = topic, key = key, str = payload, err = err }
    elseif err == "topic unknown" then
        core.back_up(topic, key, payload, now())
    end
end


local function call_failed_cb(msg)
    text_refused = false
    local ok, err = pcall(failed_cb, kfk, msg)
    if not ok then
        complain("failed_cb", tostring(err))
    end
    return ok and not text_refused
end


-- The call of run() that counts; a callback that never returned may have ended an earlier one.
local current_run = 0

-- The message whose failed_cb has not returned: with its id a failure that the driver has given,
-- without one from log().
local in_hand


-- What failed_cb made of the message in hand.
local function settle_in_hand(handled)
    local msg, id = in_hand.msg, in_hand.id
    in_hand = nil
    if id then
        core.failure_done(id, handled)
    elseif not handled then
        core.back_up(msg.topic, msg.key, msg.str, now())
    end
end


local function hand_over(msg, id, this_run)
    in_hand = { msg = msg, id = id }
    local handled = call_failed_cb(msg)
    if current_run == this_run then
        settle_in_hand(handled)
    end
    return true
end


local function run_one(this_run)
    local id, count, key = core.next_question()
    if id then
        core.answer(id, partition_of(key, count))
        return true
    end
    local msg = core.next_failure()
    if msg then
        id, msg.id = msg.id, nil
        return hand_over(msg, id, this_run)
    end
    if pending_first <= pending_last then
        msg = pending[pending_first]
        pending[pending_first] = nil
        pending_first = pending_first + 1
        pending_bytes = pending_bytes - bytes_of(msg.key, msg.str)
        return hand_over(msg, nil, this_run)
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
-- nothing, unless a callback has not come back for a minute: then it may have ended its thread, and
-- what it had in hand goes to the backup file.
function _M.run()
    update_time()
    if running_since and now() - running_since < GIVEN_UP_AFTER then
        return
    end
    current_run = current_run + 1
    local this_run = current_run
    if in_hand then
        complain("failed_cb", "has not returned for " .. GIVEN_UP_AFTER .. " s")
        settle_in_hand(false)
    end
    running_since = now()
    local slice_began = running_since
    local idle = false
    repeat
        local ran = run_one(this_run)
        if current_run ~= this_run then
            return
        end
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
