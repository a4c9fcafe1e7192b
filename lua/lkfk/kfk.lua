-- lkfk: messages from nginx to Kafka. This is the whole public surface; README.md describes it.

local callbacks = require "lkfk.callbacks"
local cdefs = require "lkfk.cdefs"
local events = require "lkfk.events"
local stats = require "lkfk.stats"

local core = cdefs.core
local errors = cdefs.errors
local ngx = ngx
local get_phase = ngx.get_phase
local now = ngx.now
local ngx_log = ngx.log
local sleep = ngx.sleep
local update_time = ngx.update_time
local WARN = ngx.WARN
local error = error
local getmetatable = getmetatable
local loadstring = loadstring
local newproxy = newproxy
local package = package
local pairs = pairs
local pcall = pcall
local require = require
local tostring = tostring
local type = type

local FLUSH_TIMEOUT = 5
local FLUSH_LOOK_FIRST = 0.001
local FLUSH_LOOK_LAST = 0.05

-- Codes that failed_cb is told of, as ngx_lua_lkfk called them.
local FAILURES = { [-1] = "nobufs", [-2] = "nobufs", [-7] = "topic unknown" }

local NOT_RUNNING = "not running: call init() in init_worker_by_lua"

-- Phases in which ngx.sleep() may be called.
local YIELDS = {
    rewrite = true, access = true, content = true, timer = true, preread = true,
    server_rewrite = true, ssl_cert = true, ssl_session_fetch = true, ssl_client_hello = true,
}


local _M = { _VERSION = cdefs._VERSION }


-- The running producer. `push` and `handle` are apart so that a compiled log() has nothing to look
-- up.
local api, push, handle

-- Topic name -> number, for all topics in use, and for those that log() need not think about.
local known, topics = {}, {}

-- Stops the producer when the VM that started it is closed, which nginx does when a worker exits.
local anchor


local function attach()
    api = cdefs.attach()
    if api then
        push, handle = api.push, api.handle
    end
    return api ~= nil
end


local function stop_at_exit(statistics)
    local stopping = api
    anchor = newproxy(true)
    getmetatable(anchor).__gc = function()
        stopping.stop(stopping.handle)
        local line = statistics and stats.last_line()
        if line then
            stopping.write_line(line, #line, WARN)
        end
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


-- A configuration with the defaults that can be written down in Lua, for callbacks to read, and
-- perhaps to log: without the password.
local function with_defaults(conf)
    local all = {}
    for name, text in pairs(core.defaults) do
        local default = loadstring("local prefix = ... return " .. text)
        local ok, value = pcall(default or error, ngx.config.prefix())
        if ok then
            all[name] = value
        end
    end
    for name, value in pairs(conf) do
        if name ~= "sasl_password" and name ~= "sasl.password" then
            all[name] = value
        end
    end
    return all
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
    local how
    how, err = core.init(merged, ngx.config.prefix())
    if not how then
        return nil, err
    end
    -- With lua_code_cache off a request's VM may find the producer running: it belongs to another.
    if how == "started" then
        attach()
        callbacks.setup(with_defaults(merged))
        local statistics = false
        if merged.kfk_status ~= false then
            statistics, err = stats.start(api)
            if not statistics then
                ngx_log(WARN, "[lkfk] ", err)
            end
        end
        stop_at_exit(statistics)
        local ok
        ok, err = events.start(api, callbacks.active and callbacks, statistics and stats)
        if not ok then
            return nil, "cannot start a timer: " .. tostring(err)
        end
    end
    return true
end


local function refuse(code, topic, key, payload)
    local failure = FAILURES[code]
    if failure then
        callbacks.failed(topic, key, payload, failure)
    end
    return nil, errors[code]
end


-- Everything that is not a plain call with a known topic, and everything when the user has
-- callbacks.
local function log_slowly(topic, key, payload)
    if not api then
        if not attach() then
            return nil, NOT_RUNNING
        end
        callbacks.attach()
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
    local id = known[topic]
    if not id then
        id = api.topic(handle, topic, #topic)
        if id < 0 then
            return refuse(id, topic, key, payload)
        end
        known[topic] = id
        if not callbacks.active then
            topics[topic] = id
        end
    end
    local code = push(handle, id, callbacks.partition(id, key), key, key and #key or 0,
                      payload, #payload)
    if code == 0 then
        return true
    end
    return refuse(code, topic, key, payload)
end


-- log(topic, key, payload) -> true | nil, err
function _M.log(topic, key, payload)
    local id = topics[topic]
    if not id or type(payload) ~= "string" then
        return log_slowly(topic, key, payload)
    end
    local code
    if key == nil then
        code = push(handle, id, -1, nil, 0, payload, #payload)
    elseif type(key) == "string" then
        code = push(handle, id, -1, key, #key, payload, #payload)
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
    if type(timeout) ~= "number" or timeout ~= timeout or timeout < 0 then
        return nil, "flush() takes a number of seconds"
    end
    -- Asked before the driver is told to hurry, so that the answer does not hang on how fast it is.
    local nothing_waits = core.waiting() == 0
    local position = core.flush()
    if not position then
        return nil, NOT_RUNNING
    end
    if nothing_waits then
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
    if not api and not attach() then
        return {}
    end
    return stats.read(api)
end


-- The README of ngx_lua_lkfk misspells its own name; handlers that copied it go on working.
package.preload["lfkf.kfk"] = function()
    return _M
end


return _M
