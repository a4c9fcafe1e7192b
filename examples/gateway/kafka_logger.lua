-- The log phase of a gateway's plugin: entries of a route are collected, and sent as one message, a
-- JSON array, when there are batch_max_size of them, or inactive_timeout seconds after the first.
--
-- Who reads the topic one entry a message needs none of this: lkfk makes batches of messages by
-- itself, so log() each entry as it comes.

local cjson = require "cjson.safe"
local kfk = require "lkfk.kfk"

local ngx = ngx
local var = ngx.var

local _M = {}

-- Of this worker: what waits for each route.
local waiting = {}


local function entry_of(route)
    return {
        route_id = route,
        start_time = ngx.req.start_time() * 1000,
        latency = tonumber(var.request_time) * 1000,
        client_ip = var.remote_addr,
        request = { method = ngx.req.get_method(), uri = var.request_uri },
        response = { status = ngx.status, size = tonumber(var.bytes_sent) },
    }
end


local function send(route)
    local batch = waiting[route]
    waiting[route] = nil
    -- The route is the key, so that its messages are in one partition, in order.
    local ok, err = kfk.log(batch.topic, route, cjson.encode(batch.entries))
    if not ok then
        ngx.log(ngx.ERR, "lkfk: ", #batch.entries, " entries of ", route, ": ", err)
    end
end


-- When nginx exits, its timers fire early, and premature is true: then it is the last chance.
local function on_timer(_, route, batch)
    if waiting[route] == batch then
        send(route)
    end
end


-- log(route, conf): conf is that of the route.
function _M.log(route, conf)
    local batch, timer = waiting[route], true
    if not batch then
        batch = { topic = conf.topic, entries = {} }
        waiting[route] = batch
        timer = ngx.timer.at(conf.inactive_timeout, on_timer, route, batch)
    end
    batch.entries[#batch.entries + 1] = entry_of(route)
    -- A worker that exits has no more timers.
    if #batch.entries >= conf.batch_max_size or not timer then
        send(route)
    end
end


return _M
