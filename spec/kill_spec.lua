-- Workers that are killed, and a whole nginx: what they had accepted arrives all the same.

local harness = require "spec.harness"

local kafka, load = harness.kafka, harness.load
-- Long enough never to be over within a test.
local LONG = 100000
-- Long enough for a kill before a batch is sent.
local LINGER = 1500


-- -> the pid of the worker that took them.
local function log(nginx, topic, first, last)
    return nginx:run([[
        local topic, first, last = ...
        for i = first, last do assert(kfk.log(topic, nil, i)) end
        return ngx.worker.pid()
    ]], topic, first, last)
end


-- Payload -> how often it is in Kafka.
local function times(records)
    local found = {}
    for _, record in ipairs(records) do
        found[record.payload] = (found[record.payload] or 0) + 1
    end
    return found
end


-- -> the pids whose queues were adopted, sorted, as the log has them. Of an adopter that was killed
-- itself it may have nothing.
local function adopted(nginx)
    local pids = {}
    for pid in nginx:error_log():gmatch("adopted the queue of worker (%d+), which is gone") do
        pids[#pids + 1] = tonumber(pid)
    end
    table.sort(pids)
    return pids
end


local function await_one_queue_each(nginx)
    harness.eventually(10, function()
        assert.equal(nginx.workers, #nginx:queue_files())
    end)
end


-- Kills workers that log, and checks that all they accepted is in Kafka. -> see load.check.
local function kill_under_load(topic, kills, conf)
    local WORKERS = 2
    conf.queue_buffering_max_ms, conf.message_timeout_ms = 20, LONG
    local nginx = load.start(topic, { workers = WORKERS, producer = conf, burst = 10 })
    local killed = {}
    for i = 1, kills do
        ngx.sleep(0.4)
        killed[i] = nginx:kill_worker(i % WORKERS + 1)
    end
    ngx.sleep(0.4)
    local accepted = load.stop(nginx)
    await_one_queue_each(nginx)
    nginx:stop()
    assert.same({}, nginx:queue_files())
    assert.same({}, nginx:backup(topic))

    local seen = load.check(topic, accepted)
    assert.equal(WORKERS + kills, seen.workers)
    assert.is_true(seen.messages > 1000, seen.messages)
    io.stdout:write(("        %d messages, %d doubled\n"):format(seen.messages, seen.doubled))
    -- What lives is not adopted.
    local dead = {}
    for _, pid in ipairs(killed) do
        dead[pid] = true
    end
    local pids = adopted(nginx)
    assert.is_true(#pids > 0)
    for _, pid in ipairs(pids) do
        assert.is_true(dead[pid], pid)
    end
    return seen
end


it("workers that are killed under load lose nothing that they accepted", function()
    kill_under_load(kafka:topic("kill-load", 3), 6, {})
end)


it("with idempotence they double nothing either, and keep the order of each partition", function()
    local conf = { request_required_acks = -1, enable_idempotence = true }
    local seen = kill_under_load(kafka:topic("kill-idempotent", 3), 12, conf)
    assert.equal(0, seen.doubled)
    assert.is_nil(load.disordered(seen.records))
end)


it("a live worker sends what a dead one left, and does not wait for a successor", function()
    local topic = kafka:topic("kill-adopted", 1)
    local nginx = harness.nginx { workers = 2, producer = { queue_buffering_max_ms = LINGER } }
    local victim = log(nginx, topic, 1, 20)
    -- The master starts nobody.
    nginx:signal("STOP")
    nginx:signal("KILL", victim)
    harness.eventually(5, function()
        assert.same({ victim }, adopted(nginx))
    end)
    harness.eventually(5, function()
        assert.equal(20, #kafka:records(topic))
    end)
    harness.eventually(5, function()
        assert.equal(1, #nginx:queue_files())
    end)
    nginx:signal("CONT")
    await_one_queue_each(nginx)
    nginx:stop()
    assert.equal(20, #kafka:records(topic))
    assert.same({}, nginx:queue_files())
end)


describe("an nginx that crashed", function()
    local function crash(topic, conf)
        conf.message_timeout_ms, conf.batch_num_messages = LONG, 10000
        local nginx = harness.nginx { workers = 2, producer = conf }
        for i = 1, 20 do
            log(nginx, topic, i * 100 - 99, i * 100)
        end
        local victims = nginx:pids()
        nginx:kill()
        assert.equal(2, #nginx:queue_files())
        assert.equal(0, #kafka:records(topic))
        nginx:start()
        harness.eventually(5, function()
            assert.same(victims, adopted(nginx))
        end)
        return nginx
    end

    local function check(nginx, topic)
        local found = times(kafka:records(topic))
        for i = 1, 2000 do
            assert.equal(1, found[tostring(i)], "message " .. i)
        end
        assert.same({}, nginx:queue_files())
        assert.same({}, nginx:backup(topic))
    end

    it("sends what it had accepted when it starts again", function()
        local topic = kafka:topic("kill-crash", 2)
        local nginx = crash(topic, { queue_buffering_max_ms = LINGER })
        await_one_queue_each(nginx)
        nginx:stop()
        check(nginx, topic)
    end)

    it("sends it when it is stopped, too, whatever the linger", function()
        local topic = kafka:topic("kill-crash-stop", 2)
        local nginx = crash(topic, { queue_buffering_max_ms = LONG })
        nginx:stop()
        check(nginx, topic)
    end)

    it("sends it after a restart of the machine, too, when its queues are on a disk", function()
        local topic = kafka:topic("kill-machine", 2)
        local disk = os.getenv("LKFK_STAGE") .. "/kill-machine"
        assert.equal(0, (harness.run { "mkdir", disk }))
        local nginx = harness.nginx {
            workers = 2,
            producer = {
                queue_path = disk, queue_buffering_max_ms = LINGER,
                message_timeout_ms = LONG, batch_num_messages = 10000,
            },
        }
        log(nginx, topic, 1, 2000)
        nginx:kill()
        assert.equal(2, #nginx:queue_files(disk))
        assert.equal(0, #kafka:records(topic))
        -- The bytes are what comes back; locks and inode numbers do not.
        assert.equal(0, (harness.run { "cp", "-a", disk, disk .. ".back" }))
        assert.equal(0, (harness.run { "rm", "-r", disk }))
        assert.equal(0, (harness.run { "mv", disk .. ".back", disk }))
        nginx:start()
        harness.eventually(10, function()
            assert.equal(2000, #kafka:records(topic))
        end)
        nginx:stop()
        check(nginx, topic)
        assert.same({}, nginx:queue_files(disk))
    end)
end)


it("queue files of another nginx in the same directory are left alone", function()
    local topic = kafka:topic("kill-others", 1)
    local theirs = harness.nginx { producer = { queue_buffering_max_ms = LINGER } }
    log(theirs, topic, 1, 10)
    theirs:kill()
    local left = theirs:queue_files()
    assert.equal(1, #left)

    local ours = harness.nginx {
        producer = { queue_buffering_max_ms = 5, queue_path = theirs.queue_path },
    }
    log(ours, topic, 11, 20)
    assert.is_true(ours:run("return kfk.flush(10)"))
    -- It looks round once a second.
    ngx.sleep(2.2)
    assert.equal(2, #theirs:queue_files())
    ours:stop()
    assert.same(left, theirs:queue_files())
    assert.same({}, adopted(ours))
    assert.equal(10, #kafka:records(topic))

    theirs:start()
    harness.eventually(10, function()
        assert.equal(20, #kafka:records(topic))
    end)
    theirs:stop()
    assert.equal(1, #adopted(theirs))
    assert.equal(20, #kafka:records(topic))
    assert.same({}, theirs:queue_files())
end)
