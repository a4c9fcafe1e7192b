-- What the driver thread has to say, brought to nginx's event loop: its log lines go to ngx.log,
-- its work to the callbacks. And what nginx has to say to it: that the worker shuts down.
--
-- One light thread of this VM waits for the driver's bell, and looks at what was left when it
-- rings. Where there is no bell, for want of a connection or of a path that is short enough, it
-- looks ten times a second, and tries again now and then. A timer publishes statistics, hears of
-- the shutdown, and puts the light thread back should it be gone; without statistics it runs once a
-- minute. Callbacks run in timers of their own: what they do to their thread is done to no other.

local cdefs = require "lkfk.cdefs"
local ffi = require "ffi"
local shutdown = require "lkfk.shutdown"

local api, core = cdefs.api, cdefs.core
local ffi_string = ffi.string
local ngx = ngx
local exiting = ngx.worker.exiting
local ngx_log = ngx.log
local ERR = ngx.ERR
local NOTICE = ngx.NOTICE
local now = ngx.now
local sleep = ngx.sleep
local tcp = ngx.socket.tcp
local timer_at = ngx.timer.at
local timer_every = ngx.timer.every
local pairs = pairs
local pcall = pcall
local tostring = tostring
local min = math.min

local STATISTICS_EVERY = 0.5
local LOOK_EVERY = 0.1
local BEAT_EVERY = 60
-- Pauses between attempts to hear the bell.
local RETRY_FIRST = 1
local RETRY_LAST = 60
-- Times of the socket, in milliseconds. What it waits for may never come.
local SOON = 1000
local FOREVER = 2147483647

local LINE_SIZE = 1024


local _M = {}


-- What outlives this module should it be loaded anew: the producers that this VM serves, by name,
-- and whether its light thread is there.
local kept = core.kept
kept.served = kept.served or {}


-- Moves all waiting lines to ngx.log.
local function drain(served)
    local line = ffi.new("char[?]", LINE_SIZE)
    local level = ffi.new("int32_t[1]")
    while true do
        local len = api.next_line(served.handle, line, LINE_SIZE, level)
        if len < 0 then
            return
        end
        ngx_log(level[0], served.tag, ffi_string(line, len))
    end
end


local function run_callbacks(_, callbacks)
    callbacks:run()
end


-- Looks at all that was left. False when callbacks could not be given their turn.
local function look()
    local all = true
    for _, served in pairs(kept.served) do
        drain(served)
        local callbacks = served.callbacks
        if callbacks.active and not callbacks:is_running() then
            all = timer_at(0, run_callbacks, callbacks) and all
        end
    end
    return all
end


-- Looks now and then for so many seconds.
local function look_for(seconds)
    local deadline = now() + seconds
    repeat
        look()
        sleep(LOOK_EVERY)
    until exiting() or now() >= deadline
end


-- connect(id) -> socket | nil, err
local function connect(id)
    local path, err = core.bell(id)
    if not path then
        return nil, err
    end
    local socket = tcp()
    socket:settimeouts(SOON, SOON, FOREVER)
    local ok
    ok, err = socket:connect("unix:" .. path)
    return ok and socket, err
end


-- Looks whenever the bell rings, until its end.
local function hear(id, socket)
    local rang, err
    repeat
        -- Said before the look: what is left during it rings again. The first look is for what was
        -- left before the bell could be heard.
        core.heard(id)
        while not look() and not exiting() do
            sleep(LOOK_EVERY)
        end
        rang, err = socket:receive(1)
    until not rang and err ~= "timeout"
    socket:close()
end


local function listen(id)
    local pause = RETRY_FIRST
    repeat
        local socket, err = connect(id)
        if socket then
            pause = RETRY_FIRST
            hear(id, socket)
        elseif not exiting() and err ~= kept.bell_error then
            -- Told once, not at each attempt.
            kept.bell_error = err
            ngx_log(NOTICE, "[lkfk] log lines and callbacks are looked for ten times a second, ",
                    "since there is no bell: ", tostring(err))
        end
        if not exiting() then
            look_for(pause)
            pause = min(pause * 2, RETRY_LAST)
        end
    until exiting()
end


local function light_thread(premature, id)
    if premature or kept.listens then
        return
    end
    kept.listens = true
    local ok, err = pcall(listen, id)
    kept.listens = false
    if not ok then
        ngx_log(ERR, "[lkfk] what the driver has to say is looked at again in a while: ",
                tostring(err))
    end
end


-- Timers do not run any more, though the worker may live on for long.
local function leave(served)
    drain(served)
    core.shuts_down(shutdown.timeout())
    if served.callbacks.active then
        served.callbacks:run()
        served.callbacks:stop()
    end
end


local function beat(premature, served)
    if premature then
        if served.stats then
            served.stats:publish(true)
        end
        leave(served)
        return
    end
    if not kept.listens then
        timer_at(0, light_thread, served.id)
    end
    -- A callback that does not return is not waited for any more, some day.
    if served.callbacks:is_overdue() then
        timer_at(0, run_callbacks, served.callbacks)
    end
    -- The last thing, since it takes its time.
    if served.stats then
        served.stats:publish()
    end
end


-- served(name) -> the producer of that name, if this VM serves it.
function _M.served(name)
    return kept.served[name]
end


-- start(name, served) -> true | nil, err: serves a producer for as long as the worker lives.
function _M.start(name, served)
    local interval = served.stats and STATISTICS_EVERY or BEAT_EVERY
    local ok, err = timer_every(interval, beat, served)
    if not ok then
        return nil, err
    end
    kept.served[name] = served
    -- Where this fails the timer does it.
    timer_at(0, light_thread, served.id)
    return true
end


return _M
