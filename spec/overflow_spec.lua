-- A queue that fills up while partitions are out of reach: what moves, what is refused, what is
-- dropped, and that nginx waits for none of it.

local harness = require "spec.harness"

local kafka = harness.kafka

-- Filler that makes a message some 1,000 bytes.
local SIZE = 1000


local function start(conf)
    -- Nothing is given up for its age.
    conf.message_timeout_ms = 120000
    conf.queue_buffering_max_ms = 5
    conf.queue_buffering_max_kbytes = conf.queue_buffering_max_kbytes or 1024
    conf.message_max_bytes = 10000
    conf.replay_rate = 0
    return harness.nginx {
        producer = conf,
        locations = { ["/ping"] = "ngx.print('pong')" },
    }
end


-- Logs first to last, in lots that leave the driver a moment -> the numbers that were taken, and
-- the error of the last one that was not.
local function log(nginx, topic, first, last)
    return nginx:run([[
        local topic, first, last, size = ...
        local taken, why = {}
        for i = first, last do
            local ok, err = kfk.log(topic, "k", i .. " " .. ("x"):rep(size))
            if ok then taken[#taken + 1] = i else why = err end
            if i % 50 == 0 then ngx.sleep(0.01) end
        end
        return taken, why
    ]], topic, first, last, SIZE)
end


-- How often each number is in Kafka.
local function arrived(topic)
    local times = {}
    for _, record in ipairs(kafka:records(topic)) do
        local number = tonumber(record.payload:match("^%d+"))
        times[number] = (times[number] or 0) + 1
    end
    return times
end


-- Kills the broker and waits until the nginx knows: what is sent in between is in doubt, and keeps
-- its place at the head of the queue until message_timeout_ms.
local function kill_broker(nginx)
    local before = nginx:stats().connections_broken
    kafka:kill()
    harness.eventually(10, function()
        assert.is_true(nginx:stats().connections_broken > before)
    end)
end


local function assert_serves(nginx)
    assert.same({ 200, "pong" }, { nginx:get("/ping", { seconds = 1 }) })
end


it("RNG-08: with the broker gone the oldest messages move to the backup, and all arrive", function()
    local topic = kafka:topic("overflow-gone", 2)
    local nginx = start {}
    local before = log(nginx, topic, 1, 100)
    assert.is_true(nginx:run("return kfk.flush(10)"))
    kill_broker(nginx)
    -- Five times what the queue holds.
    local taken, why = log(nginx, topic, 101, 5000)
    assert.is_nil(why)
    assert.equal(4900, #taken)
    assert_serves(nginx)
    local seen = nginx:stats()
    assert.is_true(seen.evicted_cnt > 3000, seen.evicted_cnt)
    assert.equal(seen.evicted_cnt, seen.fail_msg_cnt)
    assert.equal(0, seen.rejected_cnt)
    -- Below the mark, with as much in it as that leaves.
    assert.is_true(seen.queue_bytes < 900 * 1024 and seen.queue_bytes > 400 * 1024)
    harness.eventually(5, function()
        assert.matches("topic overflow-gone: queue full and partition out of reach; messages go to",
                       nginx:error_log(), 1, true)
    end)
    kafka:start()
    harness.eventually(30, function()
        local now = nginx:stats()
        assert.same({ now.evicted_cnt, 0 }, { now.replayed_cnt, now.queue_messages })
    end)
    local times = arrived(topic)
    for i = 1, #before + #taken do
        assert.equal(1, times[i], "message " .. i)
    end
end)


it("messages of a topic that can be reached stay when another's are moved", function()
    local topic = kafka:topic("overflow-reached", 1)
    local nginx = start { allow_auto_create_topics = false }
    for lot = 0, 19 do
        assert.is_nil(select(2, log(nginx, "overflow-unknown", lot * 100 + 1, lot * 100 + 100)))
        assert.is_nil(select(2, log(nginx, topic, lot * 100 + 1, lot * 100 + 100)))
    end
    harness.eventually(10, function()
        assert.equal(2000, nginx:stats().succ_msg_cnt)
    end)
    assert.is_true(nginx:stats().evicted_cnt > 500)
    assert.same({}, nginx:backup(topic))
    assert.is_true(#nginx:backup("overflow-unknown") > 500)
end)


describe("when the backup takes no more, overflow =", function()
    local function fill(topic, conf)
        conf.backup_max_bytes = 65536
        conf.backup_total_bytes = 300000
        local nginx = start(conf)
        log(nginx, topic, 1, 10)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        kill_broker(nginx)
        local taken, why = log(nginx, topic, 11, 5000)
        assert_serves(nginx)
        harness.eventually(5, function()
            assert.matches("backup_total_bytes (300000) are in use", nginx:error_log(), 1, true)
        end)
        assert.is_true(nginx:stats().backup_refused_cnt > 0)
        return nginx, taken, why
    end

    it("\"reject\" refuses new messages and loses none that were taken (DSK-12)", function()
        local topic = kafka:topic("overflow-reject", 1)
        local nginx, taken, why = fill(topic, {})
        assert.matches("queue full: queue_buffering_max_kbytes are in use", why, 1, true)
        assert.is_true(#taken < 1500, #taken)
        local seen = nginx:stats()
        assert.same({ 4990 - #taken, 0 }, { seen.rejected_cnt, seen.dropped_cnt })
        kafka:start()
        harness.eventually(40, function()
            local now = nginx:stats()
            assert.same({ now.fail_msg_cnt, 0 }, { now.replayed_cnt, now.queue_messages })
        end)
        local times, count = arrived(topic), 0
        for _ in pairs(times) do
            count = count + 1
        end
        for _, number in ipairs(taken) do
            assert.equal(1, times[number], "message " .. number)
        end
        assert.equal(#taken + 10, count)
    end)

    it("\"drop_oldest\" drops the oldest, counts them and says so", function()
        local topic = kafka:topic("overflow-drop", 1)
        local nginx, taken, why = fill(topic, { overflow = "drop_oldest" })
        assert.is_nil(why)
        assert.equal(4990, #taken)
        kafka:start()
        harness.eventually(40, function()
            local now = nginx:stats()
            assert.same({ now.fail_msg_cnt, 0 }, { now.replayed_cnt, now.queue_messages })
        end)
        local dropped = nginx:stats().dropped_cnt
        assert.is_true(dropped > 2000, dropped)
        local times, count = arrived(topic), 0
        for _, number in ipairs(taken) do
            count = count + (times[number] or 0)
        end
        assert.equal(4990 - dropped, count)
        -- The newest are there.
        for i = 4700, 5000 do
            assert.equal(1, times[i], "message " .. i)
        end
        harness.eventually(5, function()
            assert.matches('messages are lost (overflow = "drop_oldest")', nginx:error_log(), 1,
                           true)
        end)
    end)
end)
