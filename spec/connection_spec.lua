-- Connections that end while nothing is on them.

local harness = require "spec.harness"

local kafka = harness.kafka


it("NET-08: what comes after a broker closed an idle connection is delivered, once", function()
    local broker = kafka:new("idle", { "connections.max.idle.ms=1000" })
    local topic = broker:topic("idle", 1)
    local nginx = harness.nginx {
        producer = {
            metadata_broker_list = { broker.bootstrap },
            queue_buffering_max_ms = 5,
            request_required_acks = -1,
        },
    }
    local function stats()
        return nginx:stats()
    end
    for round = 1, 3 do
        assert.is_true(nginx:run([[
            assert(kfk.log(...))
            return kfk.flush(5)
        ]], topic, nil, round))
        local broken = stats().connections_broken
        harness.eventually(10, function()
            assert.is_true(stats().connections_broken > broken)
        end)
    end
    assert.same({ "1", "2", "3" }, broker:payloads(topic))
    assert.same({ 0, 3 }, { stats().fail_msg_cnt, stats().batches_sent })
    -- The log tells of the first one alone, within half a minute.
    assert.is_true(stats().reported_connection_failed >= 3)
    assert.is_true(stats().reported_broker_connected >= 3)
    assert.equal(0, stats().reported_topic_error)
end)
