-- lkfk: messages from nginx to Kafka. This is the whole public surface; README.md describes it.

-- A thread of ngx.run_worker_thread() has an `ngx`, too, without what belongs to the event loop.
if not (ngx and ngx.timer and ngx.socket) then
    error("lkfk runs on the event loop of nginx's workers, and neither in ngx.run_worker_thread() "
          .. "nor outside of nginx: let the thread return what is to be logged, and log it there",
          0)
end

local callbacks = require "lkfk.callbacks"
local cdefs = require "lkfk.cdefs"
local events = require "lkfk.events"
local producer = require "lkfk.producer"
local stats = require "lkfk.stats"

local core = cdefs.core
local api = cdefs.api
local ngx = ngx
local get_phase = ngx.get_phase
local ngx_log = ngx.log
local ERR = ngx.ERR
local WARN = ngx.WARN
local concat = table.concat
local gsub = string.gsub
local error = error
local getenv = os.getenv
local getmetatable = getmetatable
local loadstring = loadstring
local newproxy = newproxy
local package = package
local pairs = pairs
local pcall = pcall
local require = require
local tostring = tostring
local type = type

-- The name of the default producer.
local DEFAULT = ""


local _M = producer.new(DEFAULT)
_M._VERSION = cdefs._VERSION


-- Notices that the VM is closed, which nginx does with its last breath when a worker exits. The VM
-- keeps it, so that nothing but that collects it.
local function watch_vm(served)
    local anchor = newproxy(true)
    local handle, statistics = served.handle, served.stats
    getmetatable(anchor).__gc = function()
        local process_ends = api.leave(handle) == 1
        if statistics and process_ends then
            local line = statistics:last_line()
            api.write_line(line, #line, WARN)
        elseif statistics then
            statistics:hand_over()
        end
    end
    return anchor
end


-- From now on this VM brings the producer's log lines to nginx, publishes its statistics and runs
-- its callbacks.
local function serve(id, conf)
    local served = {
        id = id, handle = cdefs.handle_of(id), tag = "[lkfk] ",
        callbacks = callbacks.new(id, conf),
    }
    if conf.kfk_status ~= false then
        local err
        served.stats, err = stats.new(served)
        if not served.stats then
            ngx_log(WARN, served.tag, err)
        end
    end
    local ok, err = events.start(DEFAULT, served)
    if not ok then
        error("cannot start a timer: " .. tostring(err), 0)
    end
    -- Not before it is served: the finalizer of one that is not would end its successor's service.
    served.anchor = watch_vm(served)
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


-- Whether a directory is removed after its process, or some day: the name is what resty gives it.
local function is_temporary(path)
    if path:find("/resty_[%w_]+/?$") then
        return true
    end
    for _, root in pairs { "/tmp", "/var/tmp", getenv("TMPDIR") } do
        local below = root:gsub("/+$", "") .. "/"
        if below ~= "/" and path:sub(1, #below) == below then
            return true
        end
    end
    return false
end


-- A configuration with the defaults that can be written down in Lua, for callbacks to read, and
-- perhaps to log: without passwords and private keys.
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
        if not core.secrets[(gsub(name, "%.", "_"))] then
            all[name] = value
        end
    end
    return all
end


-- Where nginx's prefix does not outlive its process, as below resty, what lies there by default is
-- lost with it.
local function warn_of_temporary_prefix(conf)
    local prefix = ngx.config.prefix()
    if not is_temporary(prefix) then
        return
    end
    local advice = {}
    if conf.backpath == nil then
        advice[1] = "backpath lies in it, and what could not be delivered is lost with it: set "
                    .. "backpath to a directory that stays"
    end
    if conf.instance == nil then
        advice[#advice + 1] = "instance is its name, so that no later run finds what a killed one "
                              .. "left in its queue: set instance to a name that each run has"
    end
    if #advice > 0 then
        ngx_log(WARN, "[lkfk] nginx's prefix ", prefix, " is temporary: ", concat(advice, "; "))
    end
end


-- Starts the default producer, or finds it running -> true | nil, err
local function start(conf)
    local id, err = core.init(conf, ngx.config.prefix())
    if not id then
        return nil, err
    end
    -- With lua_code_cache off a request's VM may find the producer running: another one serves it.
    if core.serve(id) then
        warn_of_temporary_prefix(conf)
        -- The producer runs whatever becomes of this, so init() does not fail any more.
        local ok
        ok, err = pcall(serve, id, with_defaults(conf))
        if not ok then
            ngx_log(ERR, "[lkfk] log lines, statistics and callbacks wait for the next init(): ",
                    tostring(err))
            api.leave(cdefs.handle_of(id))
        end
    elseif events.served(DEFAULT) then
        -- A module that was loaded anew brings new functions.
        events.served(DEFAULT).callbacks:set_functions(conf)
    end
    return true
end


-- The privileged agent has the rights of nginx's master, root's mostly: in the workers' backpath it
-- would make files, and perhaps the directory itself, that they may not write to.
local function for_agent(conf)
    local own = {}
    for name, value in pairs(conf) do
        own[name] = value
    end
    local backpath = conf.backpath or with_defaults({}).backpath
    if type(backpath) == "string" then
        own.backpath = backpath:gsub("/+$", "") .. "-agent"
    end
    return own
end


local function is_privileged_agent()
    local has_process, process = pcall(require, "ngx.process")
    return has_process and process.type() == "privileged agent"
end


local function init(conf)
    if conf ~= nil and type(conf) ~= "table" then
        return nil, "init() takes a table, got a " .. type(conf)
    end
    if get_phase() == "init" then
        return nil, "init() must be called in init_worker_by_lua: a thread that is started in "
                    .. "init_by_lua does not survive the fork into the workers"
    end
    local merged, err = configuration(conf)
    if not merged then
        return nil, err
    end
    local is_agent = is_privileged_agent()
    if is_agent then
        merged = for_agent(merged)
    end
    if not is_agent or core.find(DEFAULT) then
        return start(merged)
    end
    local ok
    ok, err = core.check(merged, ngx.config.prefix())
    if ok then
        -- It serves no requests, and rarely has something to send: threads, a queue and a directory
        -- of its own come with the first message.
        producer.start_with_first_use(DEFAULT, function()
            local _, refusal = start(merged)
            core.set_init_error(DEFAULT, refusal)
        end)
    end
    return ok, err
end


-- init([conf]) -> true | nil, err
function _M.init(conf)
    local ok, err = init(conf)
    core.set_init_error(DEFAULT, err)
    return ok, err
end


-- The README of ngx_lua_lkfk misspells its own name; handlers that copied it go on working.
package.preload["lfkf.kfk"] = function()
    return _M
end


return _M
