-- A cluster that changes while messages flow: topics that are made anew or grow, a broker whose
-- disk is full.

local harness = require "spec.harness"

local kafka, load = harness.kafka, harness.load


local function await_delivered(nginx)
    harness.eventually(5, function()
        assert.is_true(nginx:run("return kfk.stats().succ_msg_cnt") > 100)
    end)
end


-- Deletes a topic and makes it anew, with another number of partitions, while two workers log.
local function make_anew(before, after)
    local topic = kafka:topic(("cluster-%d-%d"):format(before, after), before)
    local nginx = load.start(topic, {
        workers = 2,
        burst = 2,
        producer = {
            request_required_acks = -1, queue_buffering_max_ms = 5, retry_backoff_max_ms = 200,
            message_timeout_ms = 1000, allow_auto_create_topics = false,
        },
    })
    await_delivered(nginx)
    kafka:delete_topic(topic)
    ngx.sleep(0.5)
    -- What comes from now on does not go with the old topic.
    local gone = nginx:run([[
        local dict, values = ngx.shared.accepted, {}
        for _, pid in ipairs(dict:get_keys(0)) do values[pid] = dict:get(pid) end
        return values
    ]])
    -- Long enough for some to go to the backup.
    harness.eventually(5, function()
        assert.is_true(#nginx:backup(topic) > 0)
    end)
    harness.eventually(5, function()
        kafka:topic(topic, after)
    end)
    ngx.sleep(1)
    local accepted = load.stop(nginx)

    local function arrived()
        local times, last_partition = {}, 0
        for _, record in ipairs(kafka:records(topic)) do
            times[record.payload] = (times[record.payload] or 0) + 1
            last_partition = math.max(last_partition, record.partition)
        end
        return times, last_partition
    end
    harness.eventually(30, function()
        local times = arrived()
        for pid, last in pairs(accepted) do
            for i = gone[pid] + 1, last do
                assert.equal(1, times[pid .. ":" .. i], pid .. ":" .. i)
            end
        end
    end)
    nginx:stop()
    local times, last_partition = arrived()
    for payload, count in pairs(times) do
        assert.equal(1, count, payload)
    end
    assert.equal(after - 1, last_partition)
    -- The reason was said.
    assert.matches("topic " .. topic .. ": UNKNOWN_TOPIC", nginx:error_log(), 1, true)
end


it("BRK-05: a topic is deleted under load and made anew with more partitions", function()
    make_anew(1, 4)
end)


it("BRK-05: a topic is deleted under load and made anew with fewer partitions", function()
    make_anew(4, 1)
end)


it("BRK-06: a topic has more partitions under load, and they are used", function()
    local topic = kafka:topic("cluster-grows", 2)
    local nginx = load.start(topic, {
        workers = 2,
        burst = 5,
        producer = {
            request_required_acks = -1, queue_buffering_max_ms = 5,
            metadata_refresh_interval_ms = 300,
        },
    })
    await_delivered(nginx)
    kafka:grow_topic(topic, 16)
    ngx.sleep(1)
    local accepted = load.stop(nginx)
    nginx:stop()
    local seen = load.check(topic, accepted)
    assert.equal(0, seen.doubled)
    assert.is_nil(load.disordered(seen.records))
    local partitions = {}
    for _, record in ipairs(seen.records) do
        partitions[record.partition] = true
    end
    for partition = 0, 15 do
        assert.is_true(partitions[partition], partition)
    end
end)


it("BRK-13: a broker whose disk is full takes no message, and all of them once there is room",
   function()
    local COUNT = 2000
    local broker = kafka:new("full")
    local topic = broker:topic("cluster-full", 2)
    local nginx = harness.nginx {
        producer = {
            metadata_broker_list = { broker.bootstrap }, request_required_acks = -1,
            queue_buffering_max_ms = 5, message_timeout_ms = 100000,
        },
    }
    local pid = broker.pid
    -- No file of it grows beyond this.
    local code, _, err = harness.run { "prlimit", "--pid", pid, "--fsize=300000" }
    assert.equal(0, code, err)
    nginx:run([[
        local topic, count = ...
        for i = 1, count do
            assert(kfk.log(topic, i, ("x"):rep(1000) .. i))
            if i % 20 == 0 then ngx.sleep(0.01) end
        end
    ]], topic, COUNT)
    -- That is what Kafka does when all of its log directories failed.
    harness.eventually(20, function()
        assert.is_false(harness.alive(pid))
    end)
    assert.is_true(nginx:run("return kfk.stats().succ_msg_cnt") < COUNT)
    broker:start()
    assert.is_true(nginx:run("return kfk.flush(30)"))
    local times, last = {}, {}
    for _, record in ipairs(broker:records(topic)) do
        local number = tonumber(record.key)
        times[number] = (times[number] or 0) + 1
        assert.is_true(number > (last[record.partition] or 0), number)
        last[record.partition] = number
    end
    assert.equal(COUNT, #times)
    for number = 1, COUNT do
        assert.equal(1, times[number], number)
    end
end)


it("IDM-05: a broker that forgets producer ids doubles and loses nothing that was acknowledged",
   function()
    local broker = kafka:new("forgets", {
        "producer.id.expiration.ms=300", "producer.id.expiration.check.interval.ms=100",
    })
    local topic = broker:topic("cluster-forgets", 1)
    local nginx = harness.nginx {
        producer = {
            metadata_broker_list = { broker.bootstrap }, request_required_acks = -1,
            queue_buffering_max_ms = 5, batch_num_messages = 10,
        },
    }
    local expected = {}
    for round = 1, 4 do
        for i = 1, 50 do
            expected[#expected + 1] = round .. ":" .. i
        end
        assert.is_true(nginx:run([[
            local topic, round = ...
            for i = 1, 50 do assert(kfk.log(topic, nil, round .. ":" .. i)) end
            return kfk.flush(10)
        ]], topic, round))
        -- Then the numbers that follow are those of a producer that the broker does not know.
        ngx.sleep(1.5)
    end
    assert.same(expected, broker:payloads(topic))
    assert.equal(0, nginx:run("return kfk.stats().resent_in_doubt_cnt"))
end)
