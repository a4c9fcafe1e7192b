-- The user's own functions, failed_cb and partitioner, run on nginx's event loop. The driver thread
-- leaves work for them and takes their answers; events.lua calls them when there is some. None of
-- this runs when neither is set.

local core = require "lkfk.core"
local numbers = require "lkfk.numbers"

local ngx = ngx
local ERR = ngx.ERR
local ngx_log = ngx.log
local now = ngx.now
local sleep = ngx.sleep
local update_time = ngx.update_time
local concat = table.concat
local floor = math.floor
local pcall = pcall
local select = select
local setmetatable = setmetatable
local text_of = numbers.text_of
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


local _M = {}

local Callbacks = {}
Callbacks.__index = Callbacks


local file_methods = {}


-- The text of one argument of write(); a null key is written as \N.
local function written(part)
    if part == nil then
        return "\\N"
    end
    if type(part) == "number" then
        return text_of(part)
    end
    return tostring(part)
end


-- kfk.fp[topic]:write(...): as a file's, but by the driver. When a text is refused in a failed_cb,
-- that one has not handled its message.
function file_methods:write(...)
    local parts, err = {}
    for i = 1, select("#", ...) do
        parts[i], err = written((select(i, ...)))
        if err then
            self.callbacks.text_refused = true
            return nil, "number " .. i .. " of what was to be written: " .. err
        end
    end
    if not core.append(self.callbacks.id, self.topic, concat(parts)) then
        self.callbacks.text_refused = true
        return nil, "backup file of topic " .. self.topic .. " is not taking more"
    end
    return self
end


function file_methods:flush()
    return self
end


local FILE = { __index = file_methods }


local function files_of(callbacks)
    return setmetatable({}, {
        __index = function(self, topic)
            local file = setmetatable({ topic = topic, callbacks = callbacks }, FILE)
            self[topic] = file
            return file
        end,
    })
end


local function new(id)
    return setmetatable({
        id = id,
        -- True when log() must ask here.
        active = false,
        -- A partitioner is set, but in another VM (lua_code_cache off): that one will be asked.
        partitioner_elsewhere = false,
        -- Messages that log() itself could not take, oldest first.
        pending = {}, pending_first = 1, pending_last = 0, pending_bytes = 0,
        -- A text of failed_cb's was refused since its call began.
        text_refused = false,
        -- The call of run() that counts; a callback that never returned may have ended an earlier
        -- one.
        current_run = 0,
        -- When the last callback began, while run() is at work.
        running_since = nil,
        -- The message whose failed_cb has not returned: with its id a failure that the driver has
        -- given, without one from log().
        in_hand = nil,
        complained_at = {},
    }, Callbacks)
end


-- new(id, cf) -> the callbacks of a configuration, of the producer that core calls id.
function _M.new(id, cf)
    local self = new(id)
    self.kfk = { cf = cf, fp = files_of(self) }
    self:set_functions(cf)
    self.active = self.failed_cb ~= nil or self.partitioner ~= nil
    return self
end


-- of_another_vm(id) -> the callbacks of a producer that another VM serves.
function _M.of_another_vm(id)
    local self = new(id)
    self.partitioner_elsewhere = core.has_partitioner(id)
    self.active = self.partitioner_elsewhere
    return self
end


-- set_functions(cf): takes over the functions of a configuration.
function Callbacks:set_functions(cf)
    self.failed_cb, self.partitioner = cf.failed_cb, cf.partitioner
end


-- An error of a callback's is said once a second.
local function complain(self, name, text)
    local second = floor(now())
    if self.complained_at[name] ~= second then
        self.complained_at[name] = second
        ngx_log(ERR, "[lkfk] ", name, ": ", text)
    end
end


local function valid_partition(partition, count)
    return type(partition) == "number" and partition >= 0 and partition < count
           and floor(partition) == partition
end


-- What the user's partitioner says; nil leaves it to the default one.
local function partition_of(self, key, count)
    local ok, partition = pcall(self.partitioner, key, count)
    if not ok then
        complain(self, "partitioner", tostring(partition))
        return nil
    end
    if not valid_partition(partition, count) then
        local shown = type(partition) == "number" and text_of(partition) or tostring(partition)
        complain(self, "partitioner", "returned " .. shown .. " for " .. count
                                      .. " partitions; the default partitioner is used")
        return nil
    end
    return partition
end


-- partition(topic number, key) -> number for push(): the partition, -1 for the default partitioner,
-- -2 to be asked again when the number of partitions is known.
function Callbacks:partition(topic, key)
    if not self.partitioner then
        return self.partitioner_elsewhere and -2 or -1
    end
    local count = core.partition_count(self.id, topic)
    if not count then
        return -2
    end
    return partition_of(self, key, count) or -1
end


local function bytes_of(msg, block)
    return (msg.key and #msg.key or 0) + (msg.str and #msg.str or 0) + (block and #block or 0)
end


-- failed(msg, block): log() itself could not take a message; `block` are its headers as a request
-- has them. The callback runs later, outside log(). Without one of the user's the message goes to
-- the backup file when its topic is not allowed; when the queue is full, log()'s caller alone is
-- told.
function Callbacks:failed(msg, block)
    if self.failed_cb then
        local count = self.pending_last - self.pending_first + 1
        local bytes = bytes_of(msg, block)
        if count >= PENDING_MAX or self.pending_bytes + bytes > PENDING_BYTES_MAX then
            complain(self, "failed_cb", count .. " messages wait for it; the next ones are dropped")
            return
        end
        self.pending_bytes = self.pending_bytes + bytes
        self.pending_last = self.pending_last + 1
        self.pending[self.pending_last] = { msg = msg, block = block }
        core.ring(self.id)
    elseif msg.err == "topic unknown" then
        core.back_up(self.id, msg.topic, msg.key, msg.str, now(), block, msg.timestamp)
    end
end


local function call_failed_cb(self, msg)
    self.text_refused = false
    local ok, err = pcall(self.failed_cb, self.kfk, msg)
    if not ok then
        complain(self, "failed_cb", tostring(err))
    end
    return ok and not self.text_refused
end


-- What failed_cb made of the message in hand.
local function settle_in_hand(self, handled)
    local in_hand = self.in_hand
    self.in_hand = nil
    if in_hand.id then
        core.failure_done(self.id, in_hand.id, handled)
    elseif not handled then
        core.back_up(self.id, in_hand.topic, in_hand.key, in_hand.payload, now(), in_hand.block,
                     in_hand.timestamp)
    end
end


local function hand_over(self, msg, id, block, this_run)
    -- The table is the callback's, which may change it.
    self.in_hand = {
        id = id, topic = msg.topic, key = msg.key, payload = msg.str, block = block,
        timestamp = msg.timestamp,
    }
    local handled = call_failed_cb(self, msg)
    if self.current_run == this_run then
        settle_in_hand(self, handled)
    end
    return true
end


local function take_pending(self)
    local first = self.pending_first
    if first > self.pending_last then
        return nil
    end
    local msg, block = self.pending[first].msg, self.pending[first].block
    self.pending[first] = nil
    self.pending_first = first + 1
    self.pending_bytes = self.pending_bytes - bytes_of(msg, block)
    msg.headers = block and core.headers_of(block)
    return msg, block
end


local function run_one(self, this_run)
    local id, count, key = core.next_question(self.id)
    if id then
        core.answer(self.id, id, partition_of(self, key, count))
        return true
    end
    local msg = core.next_failure(self.id)
    if msg then
        id, msg.id = msg.id, nil
        return hand_over(self, msg, id, nil, this_run)
    end
    local block
    msg, block = take_pending(self)
    return msg ~= nil and hand_over(self, msg, nil, block, this_run)
end


-- stop(): there will be no more calls of run().
function Callbacks:stop()
    core.end_callbacks(self.id)
end


-- is_overdue() -> true when a callback has not come back for so long that it may have ended its
-- thread.
function Callbacks:is_overdue()
    return self.running_since ~= nil and now() - self.running_since >= GIVEN_UP_AFTER
end


-- is_running() -> true while run() is at work, as far as one can tell.
function Callbacks:is_running()
    return self.running_since ~= nil and not self:is_overdue()
end


-- run(): runs what there is, in slices. While it is at work further calls do nothing; when it is
-- overdue, what it had in hand goes to the backup file, and its place is taken.
function Callbacks:run()
    update_time()
    if self:is_running() then
        return
    end
    self.current_run = self.current_run + 1
    local this_run = self.current_run
    if self.in_hand then
        complain(self, "failed_cb", "has not returned for " .. GIVEN_UP_AFTER .. " s")
        settle_in_hand(self, false)
    end
    self.running_since = now()
    local slice_began = self.running_since
    local idle = false
    repeat
        local ran = run_one(self, this_run)
        if self.current_run ~= this_run then
            return
        end
        update_time()
        self.running_since = now()
        if not ran and idle then
            break
        end
        -- The driver has more, perhaps: it is told, and given a moment, before this ends.
        idle = not ran
        if idle or self.running_since - slice_began >= SLICE then
            core.signal(self.id)
            sleep(PAUSE)
            update_time()
            slice_began = now()
        end
    until false
    self.running_since = nil
end


return _M
