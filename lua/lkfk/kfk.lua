-- lkfk: messages from nginx to Kafka. This is the whole public surface; README.md describes it.

local cdefs = require "lkfk.cdefs"
local events = require "lkfk.events"

local core = cdefs.core
local errors = cdefs.errors
local ngx = ngx
local get_phase = ngx.get_phase
local now = ngx.now
local sleep = ngx.sleep
local update_time = ngx.update_time
local getmetatable = getmetatable
local newproxy = newproxy
local pairs = pairs
local pcall = pcall
local require = require
local tostring = tostring
local type = type

local FLUSH_TIMEOUT = 5
local FLUSH_LOOK_FIRST = 0.001
local FLUSH_LOOK_LAST = 0.05

local NOT_RUNNING = "not running: call init() in init_worker_by_lua"

-- Phases in which ngx.sleep() may be called.
local YIELDS = {
    rewrite = true, access = true, content = true, timer = true, preread = true,
    server_rewrite = true, ssl_cert = true, ssl_session_fetch = true, ssl_client_hello = true,
}


local _M = { _VERSION = cdefs._VERSION }


-- The running producer. `push` and `handle` are apart so that a compiled log() has nothing to look up.
local api, push, handle

-- Topic name -> number.
local topics = {}

-- Stops the producer when the VM that started it is closed, which nginx does when a worker exits.
local anchor


local function attach()
    api = cdefs.attach()
    if api then
        push, handle = api.push, api.handle
    end
    return api ~= nil
end


local function stop_at_exit()
    local stopping = api
    anchor = newproxy(true)
    getmetatable(anchor).__gc = function()
        stopping.stop(stopping.handle)
    end
end


-- The configuration of conf.lua with `conf` laid over it.
local function configuration(conf)
    local found, default = pcall(require, "lkfk.conf")
    if not found then
        return nil, "lkfk.conf: " .. tostring(default)
    end
    if type(default) ~= "table" or type(default.default_conf) ~= "table" then
        return nil, "lkfk.conf must return { default_conf = { ... } }"
    end
    local merged = {}
    for key, value in pairs(default.default_conf) do
        merged[key] = value
    end
    for key, value in pairs(conf or {}) do
        merged[key] = value
    end
    return merged
end


-- init([conf]) -> true | nil, err
function _M.init(conf)
    if conf ~= nil and type(conf) ~= "table" then
        return nil, "init() takes a table, got a " .. type(conf)
    end
    if get_phase() == "init" then
        return nil, "init() must be called in init_worker_by_lua: a thread that is started in "
                    .. "init_by_lua does not survive the fork into the workers"
    end
    local has_process, process = pcall(require, "ngx.process")
    if has_process and process.type() == "privileged agent" then
        -- It serves no requests, so there is nothing to send.
        return true
    end

    local merged, err = configuration(conf)
    if not merged then
        return nil, err
    end
    local ok
    ok, err = core.init(merged, ngx.config.prefix())
    if not ok then
        return nil, err
    end
    if not anchor then
        attach()
        stop_at_exit()
        ok, err = events.start(api)
        if not ok then
            return nil, "cannot start a timer: " .. tostring(err)
        end
    end
    return true
end


-- Everything that is not a plain call with a known topic.
local function log_slowly(topic, key, payload)
    if not api and not attach() then
        return nil, NOT_RUNNING
    end
    if type(topic) ~= "string" then
        return nil, "topic must be a string, got " .. type(topic)
    end
    if type(payload) == "number" then
        payload = tostring(payload)
    elseif type(payload) ~= "string" then
        return nil, "payload must be a string, got " .. type(payload)
    end
    if type(key) == "number" then
        key = tostring(key)
    elseif key ~= nil and type(key) ~= "string" then
        return nil, "key must be a string or nil, got " .. type(key)
    end
    local id = topics[topic]
    if not id then
        id = api.topic(handle, topic, #topic)
        if id < 0 then
            return nil, errors[id]
        end
        topics[topic] = id
    end
    local code = push(handle, id, key, key and #key or 0, payload, #payload)
    if code == 0 then
        return true
    end
    return nil, errors[code]
end


-- log(topic, key, payload) -> true | nil, err
function _M.log(topic, key, payload)
    local id = topics[topic]
    if not id or type(payload) ~= "string" then
        return log_slowly(topic, key, payload)
    end
    local code
    if key == nil then
        code = push(handle, id, nil, 0, payload, #payload)
    elseif type(key) == "string" then
        code = push(handle, id, key, #key, payload, #payload)
    else
        return log_slowly(topic, key, payload)
    end
    if code == 0 then
        return true
    end
    return nil, errors[code]
end


-- flush([timeout_s]) -> true | nil, err
function _M.flush(timeout)
    timeout = timeout or FLUSH_TIMEOUT
    if type(timeout) ~= "number" or not (timeout >= 0) then
        return nil, "flush() takes a number of seconds"
    end
    local position = core.flush()
    if not position then
        return nil, NOT_RUNNING
    end
    if core.is_done(position) then
        return true
    end
    local phase = get_phase()
    if not YIELDS[phase] then
        return nil, "flush() cannot wait in the phase " .. phase
    end
    update_time()
    local deadline = now() + timeout
    local pause = FLUSH_LOOK_FIRST
    repeat
        sleep(pause)
        if core.is_done(position) then
            return true
        end
        pause = pause * 2 < FLUSH_LOOK_LAST and pause * 2 or FLUSH_LOOK_LAST
    until now() >= deadline
    return nil, "timeout: " .. core.waiting() .. " messages are still waiting"
end


-- stats() -> table
function _M.stats()
    return core.stats()
end


return _M
