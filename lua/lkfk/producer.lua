-- The functions of one producer: log(), flush() and stats(). They find it by its name when they are
-- first called, whichever Lua VM started it.

local callbacks = require "lkfk.callbacks"
local cdefs = require "lkfk.cdefs"
local events = require "lkfk.events"
local numbers = require "lkfk.numbers"
local options_of_log = require "lkfk.options"
local stats = require "lkfk.stats"

local core = cdefs.core
local api, handle_of = cdefs.api, cdefs.handle_of
local errors, codes = core.errors, core.codes
local push, push_record = api.push, api.push_record
local record = options_of_log.record
local ngx = ngx
local get_phase = ngx.get_phase
local now = ngx.now
local sleep = ngx.sleep
local update_time = ngx.update_time
local isyieldable = coroutine.isyieldable
local pcall = pcall
local text_of = numbers.text_of
local type = type

local FLUSH_TIMEOUT = 5
local FLUSH_LOOK_FIRST = 0.001
local FLUSH_LOOK_LAST = 0.05

local CALL_INIT = "call init() in init_worker_by_lua"

-- What failed_cb is told of, in the words of ngx_lua_lkfk.
local FAILURES = {
    [codes.TOO_MANY_MESSAGES] = "nobufs",
    [codes.NO_SPACE] = "nobufs",
    [codes.TOPIC_UNKNOWN] = "topic unknown",
}


local _M = {}


-- Functions that start a producer with its first use, by its name.
local kept = core.kept
kept.starters = kept.starters or {}


-- start_with_first_use(name, start): log() and flush() call start() once, before they give up.
function _M.start_with_first_use(name, start)
    kept.starters[name] = start
end


-- The producer of this name, started if that was left to its first use.
local function find_or_start(name)
    local id = core.find(name)
    local start = kept.starters[name]
    if id or not start then
        return id
    end
    kept.starters[name] = nil
    start()
    return core.find(name)
end


local function not_running(name)
    local err = core.init_error(name)
    return nil, "not running: " .. (err and "init() failed: " .. err or CALL_INIT)
end


-- Sleeps -> false where nothing may: the runtime is asked, since its phases become more.
local function may_sleep(seconds)
    -- Below a C function ngx.sleep() fails late, and leaves a timer behind.
    return (not isyieldable or isyieldable()) and (pcall(sleep, seconds))
end


-- new(name) -> { log, flush, stats } of the producer of that name; "" is the default one.
function _M.new(name)
    local functions = {}

    -- The producer, once it was found: its names in core and for FFI, and what stands between its
    -- messages and the user's callbacks.
    local id, handle, own_callbacks

    -- Topic name -> number, for all topics in use, and for those that log() need not think about.
    local known, topics = {}, {}

    local function attach(found)
        id = found
        if not id then
            return false
        end
        handle = handle_of(id)
        -- With lua_code_cache off a request's VM finds the producer running: another VM serves it.
        local served = events.served(name)
        own_callbacks = served and served.callbacks or callbacks.of_another_vm(id)
        return true
    end

    local function refuse(code, topic, key, payload, options)
        local failure = FAILURES[code]
        if failure then
            local headers, timestamp
            if options then
                headers, timestamp = options_of_log.kept()
            end
            own_callbacks:failed({
                topic = topic, key = key, str = payload, err = failure, timestamp = timestamp,
            }, headers)
        end
        return nil, errors[code]
    end

    -- Fills `record` with what was checked, and hands it over.
    local function push_with_options(number, key, payload)
        record.topic, record.partition = number, own_callbacks:partition(number, key)
        record.key, record.key_len = key, key and #key or 0
        record.payload, record.payload_len = payload, payload and #payload or 0
        return push_record(handle, record)
    end

    -- Everything that is not a plain call with a known topic, and everything when the user has
    -- callbacks.
    local function log_slowly(topic, key, payload, options)
        if not id and not attach(find_or_start(name)) then
            return not_running(name)
        end
        if type(topic) ~= "string" then
            return nil, "topic must be a string, got " .. type(topic)
        end
        local err
        if type(payload) == "number" then
            payload, err = text_of(payload)
            if err then
                return nil, "payload: " .. err
            end
        elseif type(payload) ~= "string" and not (options and options.tombstone) then
            return nil, "payload must be a string, got " .. type(payload)
        end
        if options then
            err = options_of_log.set(options, payload)
            if err then
                return nil, err
            end
        end
        if type(key) == "number" then
            key, err = text_of(key)
            if err then
                return nil, "key: " .. err
            end
        elseif key ~= nil and type(key) ~= "string" then
            return nil, "key must be a string or nil, got " .. type(key)
        end
        local number = known[topic]
        if not number then
            number = api.topic(handle, topic, #topic)
            if number < 0 then
                return refuse(number, topic, key, payload, options)
            end
            known[topic] = number
            if not own_callbacks.active then
                topics[topic] = number
            end
        end
        local code
        if options then
            code = push_with_options(number, key, payload)
        else
            code = push(handle, number, own_callbacks:partition(number, key), key,
                        key and #key or 0, payload, #payload)
        end
        if code == 0 then
            return true
        end
        return refuse(code, topic, key, payload, options)
    end

    -- log(topic, key, payload[, options]) -> true | nil, err
    function functions.log(topic, key, payload, options)
        local number = topics[topic]
        if not number or options ~= nil or type(payload) ~= "string" then
            return log_slowly(topic, key, payload, options)
        end
        local code
        if key == nil then
            code = push(handle, number, -1, nil, 0, payload, #payload)
        elseif type(key) == "string" then
            code = push(handle, number, -1, key, #key, payload, #payload)
        else
            return log_slowly(topic, key, payload)
        end
        if code == 0 then
            return true
        end
        return nil, errors[code]
    end

    -- flush([timeout_s]) -> true | nil, err
    function functions.flush(timeout)
        timeout = timeout or FLUSH_TIMEOUT
        if type(timeout) ~= "number" or timeout ~= timeout or timeout < 0 then
            return nil, "flush() takes a number of seconds"
        end
        if not id and not attach(find_or_start(name)) then
            return not_running(name)
        end
        -- Asked before the driver is told to hurry, so that the answer does not hang on how fast it
        -- is.
        local nothing_waits = core.waiting(id) == 0
        local position = core.flush(id)
        if not position then
            return nil, errors[codes.EXITING]
        end
        if nothing_waits then
            return true
        end
        update_time()
        local deadline = now() + timeout
        local pause = FLUSH_LOOK_FIRST
        repeat
            if not may_sleep(pause) then
                return nil, "flush() cannot wait in the phase " .. get_phase()
            end
            if core.is_done(id, position) then
                return true
            end
            pause = pause * 2 < FLUSH_LOOK_LAST and pause * 2 or FLUSH_LOOK_LAST
        until now() >= deadline
        return nil, "timeout: " .. core.waiting(id) .. " messages are still waiting"
    end

    -- stats() -> table
    function functions.stats()
        if not id and not attach(core.find(name)) then
            return {}
        end
        return stats.read(handle)
    end

    return functions
end


return _M
