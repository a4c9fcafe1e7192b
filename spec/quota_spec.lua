-- A broker that throttles: it announces a pause, and answers nothing on that connection meanwhile.

local harness = require "spec.harness"

local kafka = harness.kafka
local PARTITIONS = 64
local MESSAGES = 100000


-- The quota of all clients, in bytes a second.
local function limit_producers(broker, rate)
    broker:tool("kafka.admin.ConfigCommand", "--alter", "--entity-type", "clients",
                "--entity-default", "--add-config", "producer_byte_rate=" .. rate)
end


it("FLT-01: a burst beyond a producer's quota arrives once, with acks = 1", function()
    local broker = kafka:new("quota")
    local topic = broker:topic("quota", PARTITIONS)
    limit_producers(broker, 500000)
    local nginx = harness.nginx {
        producer = {
            metadata_broker_list = { broker.bootstrap }, request_required_acks = 1,
            message_timeout_ms = 120000, queue_buffering_max_messages = 2 * MESSAGES,
        },
    }
    nginx:run([[
        local topic, count = ...
        for i = 1, count do assert(kfk.log(topic, nil, i .. (" "):rep(120))) end
    ]], topic, MESSAGES)
    harness.eventually(90, function()
        assert.equal(0, nginx:run("return kfk.stats().queue_messages"))
    end)
    local found, different, duplicates = {}, 0, 0
    for _, record in ipairs(broker:records(topic)) do
        local number = tonumber(record.payload)
        if found[number] then
            duplicates = duplicates + 1
        else
            found[number], different = true, different + 1
        end
    end
    assert.same({ MESSAGES, 0 }, { different, duplicates })
    assert.same({}, nginx:backup(topic))
    assert.is_true(nginx:stats().throttle_ms > 0)
    assert.matches("throttles this client for %d+ ms, since its quota is used up",
                   nginx:error_log())
end)
