-- What the driver thread has to say, brought to nginx's event loop: its log lines go to ngx.log.
-- And what nginx has to say to it: that the worker shuts down.

local cdefs = require "lkfk.cdefs"
local ffi = require "ffi"
local shutdown = require "lkfk.shutdown"

local api, core = cdefs.api, cdefs.core
local ffi_string = ffi.string
local ngx = ngx
local ngx_log = ngx.log
local timer_every = ngx.timer.every

local INTERVAL = 0.5
local INTERVAL_WITH_CALLBACKS = 0.1
local LINE_SIZE = 1024


local _M = {}


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


-- start(served) -> true | nil, err: drains now and then for as long as the worker lives, and runs
-- callbacks and publishes statistics where there are any.
function _M.start(served)
    local callbacks = served.callbacks.active and served.callbacks
    local stats = served.stats
    local interval = callbacks and INTERVAL_WITH_CALLBACKS or INTERVAL
    return timer_every(interval, function(premature)
        drain(served)
        if stats then
            stats:publish()
        end
        if premature then
            core.shuts_down(shutdown.timeout())
        end
        if callbacks then
            callbacks:run()
            if premature then
                -- Timers do not run any more, though the worker may live on for long.
                callbacks:stop()
            end
        end
    end)
end


return _M
