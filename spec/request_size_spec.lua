-- A broker that closes the connection, without an answer, on a request larger than its
-- socket.request.max.bytes.

local harness = require "spec.harness"

local kafka = harness.kafka
local LIMIT = 262144
local MESSAGES = 400


for _, acks in ipairs { 1, -1 } do
    it("FLT-22: a burst larger than a request may be arrives, acks = " .. acks, function()
        local broker = kafka:new("small-requests", { "socket.request.max.bytes=" .. LIMIT })
        local topic = broker:topic("small-requests", 1)
        local nginx = harness.nginx {
            producer = {
                metadata_broker_list = { broker.bootstrap }, request_required_acks = acks,
            },
        }
        nginx:run([[
            local topic, count = ...
            for i = 1, count do assert(kfk.log(topic, nil, i .. (" "):rep(1000))) end
        ]], topic, MESSAGES)
        harness.eventually(10, function()
            local stats = nginx:stats()
            assert.same({ MESSAGES, 0 }, { stats.succ_msg_cnt, stats.queue_messages })
        end)
        local list = {}
        for i, record in ipairs(broker:records(topic)) do
            list[i] = tonumber(record.payload)
        end
        table.sort(list)
        assert.same(harness.count_to(MESSAGES), list)
        assert.same({}, nginx:backup(topic))
        assert.same({}, nginx:backup(topic .. "~bad"))
        -- Within that a second line would come.
        ngx.sleep(1)
        local _, lines = nginx:error_log():gsub("socket%.request%.max%.bytes", "")
        assert.equal(1, lines)
    end)
end
