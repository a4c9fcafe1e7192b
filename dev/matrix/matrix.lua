-- What the matrix's nginx does: logs numbered messages, all at once or over some seconds.

local kfk = require "lkfk.kfk"
local sizes = require "sizes"

local ngx = ngx
local say, sleep, var = ngx.say, ngx.sleep, ngx.var
local rep = string.rep
local error, ipairs, tonumber = error, ipairs, tonumber

local FLUSH_TIMEOUT = 60

local _M = {}


function _M.start(conf)
    local ok, err = kfk.init(conf)
    if not ok then
        error(err)
    end
end


local function fail(...)
    ngx.status = 500
    say(...)
end


-- /log?from=1&to=1000&seconds=4. The payload names the number and the key.
function _M.log()
    local from, to = tonumber(var.arg_from), tonumber(var.arg_to)
    local pause = (tonumber(var.arg_seconds) or 0) / (to - from + 1)
    for i = from, to do
        local key = rep("k", i % 7) .. i
        local ok, err = kfk.log("matrix", key, i .. " " .. key)
        if not ok then
            return fail("message ", i, ": ", err)
        end
        if pause > 0 then
            sleep(pause)
        end
    end
end


function _M.flush()
    local ok, err = kfk.flush(FLUSH_TIMEOUT)
    if not ok then
        fail(err)
    end
end


-- /log_sizes?topic=t&batch=1000&sizes=1,100: so many messages at once, then each of those sizes.
function _M.log_sizes()
    local all = sizes.messages(tonumber(var.arg_batch), var.arg_sizes)
    for number, message in ipairs(all) do
        local ok, err = kfk.log(var.arg_topic, message.key, message.payload)
        if ok and number >= tonumber(var.arg_batch) then
            ok, err = kfk.flush(FLUSH_TIMEOUT)
        end
        if not ok then
            return fail("message ", number, ": ", err)
        end
    end
end


return _M
