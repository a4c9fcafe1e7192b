-- A load that says what it is: each worker logs "PID:1", "PID:2", ... and notes how far it has
-- come, so that what was accepted can be looked for, whatever became of the worker.

local assert, ipairs, pairs, tonumber = assert, ipairs, pairs, tonumber

local kafka = require "spec.harness.kafka"
local start = require("spec.harness.nginx").start

local WORKER = [[
    local kfk, accepted = require "lkfk.kfk", ngx.shared.accepted
    local pid, last = ngx.worker.pid(), 0
    ngx.timer.every(0.002, function()
        for _ = 1, %d do
            if not accepted:get("stop") and kfk.log(%q, last, pid .. ":" .. last + 1) then
                last = last + 1
                accepted:set(pid, last)
            end
        end
    end)
]]

local STOP = [[
    local dict, values = ngx.shared.accepted, {}
    dict:set("stop", true)
    ngx.sleep(0.1)
    for _, key in ipairs(dict:get_keys(0)) do values[key] = dict:get(key) end
    values.stop = nil
    return values
]]


local _M = {}


-- start(topic, { workers =, producer =, burst = }) -> nginx. A burst of messages (1) every two
-- milliseconds.
function _M.start(topic, options)
    return start {
        workers = options.workers,
        http = "lua_shared_dict accepted 1m;",
        producer = options.producer,
        init_worker = WORKER:format(options.burst or 1, topic),
    }
end


-- stop(nginx) -> pid of a worker -> how many messages it had accepted.
function _M.stop(nginx)
    return nginx:run(STOP)
end


-- check(topic, accepted) -> { records, doubled, workers, messages }. Raises unless each that was
-- accepted is in Kafka.
function _M.check(topic, accepted)
    local records = kafka:records(topic)
    local found, doubled, workers, messages = {}, 0, 0, 0
    for _, record in ipairs(records) do
        if found[record.payload] then
            doubled = doubled + 1
        end
        found[record.payload] = true
    end
    for pid, last in pairs(accepted) do
        workers, messages = workers + 1, messages + last
        for i = 1, last do
            local payload = ("%d:%d"):format(pid, i)
            assert(found[payload], payload .. " is missing")
        end
    end
    return { records = records, doubled = doubled, workers = workers, messages = messages }
end


-- disordered(records) -> the payload of the first one that follows a later one of its worker and
-- partition, if there is one.
function _M.disordered(records)
    local last = {}
    for _, record in ipairs(records) do
        local worker, number = record.payload:match "^(%d+):(%d+)$"
        local stream = worker .. " " .. record.partition
        if tonumber(number) <= (last[stream] or 0) then
            return record.payload
        end
        last[stream] = tonumber(number)
    end
end


return _M
