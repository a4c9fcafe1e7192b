-- Workers that are frozen, signalled, and made fewer and more.

local harness = require "spec.harness"

local kafka, load = harness.kafka, harness.load


local function start(topic, workers, conf)
    conf.queue_buffering_max_ms = 20
    conf.request_required_acks = -1
    conf.queue_buffering_max_kbytes = 4096
    return load.start(topic, { workers = workers, producer = conf })
end


-- Ends the load and the nginx, and checks that each accepted message is in Kafka, once.
-- -> how many workers have logged.
local function check(nginx, topic)
    local accepted = load.stop(nginx)
    nginx:stop()
    assert.same({}, nginx:queue_files())
    assert.same({}, nginx:backup(topic))
    local seen = load.check(topic, accepted)
    assert.equal(0, seen.doubled)
    return seen.workers
end


it("NGX-06: a frozen worker's queue is not taken, and it goes on where it was", function()
    local topic = kafka:topic("workers-frozen", 2)
    local nginx = start(topic, 2, { request_timeout_ms = 500, message_timeout_ms = 60000 })
    local frozen = nginx:pids()[1]
    for _ = 1, 2 do
        ngx.sleep(0.5)
        nginx:signal("STOP", frozen)
        -- Living ones look round once a second.
        ngx.sleep(2.5)
        nginx:signal("CONT", frozen)
    end
    ngx.sleep(0.5)
    for _ = 1, 10 do
        local seen = nginx:stats()
        assert.same({ 0, 0 }, { seen.adopted_cnt, seen.driver_restarts })
    end
    assert.is_nil(nginx:error_log():find("adopted", 1, true))
    assert.equal(2, check(nginx, topic))
end)


it("NGX-11: workers that become fewer and more again lose and double nothing", function()
    local topic = kafka:topic("workers-count", 2)
    local nginx = start(topic, 8, {})
    local main = nginx.prefix .. "/main.conf"
    for _, workers in ipairs { 2, 8, 2 } do
        ngx.sleep(0.7)
        local file = assert(io.open(main, "w"))
        file:write(("worker_processes %d;\n"):format(workers))
        file:close()
        nginx.workers = workers
        nginx:reload()
        -- Those that are killed leave a queue to the others.
        nginx:signal("KILL", nginx:pids()[1])
    end
    harness.eventually(10, function()
        assert.same({ 2, 2 }, { #nginx:pids(), #nginx:queue_files() })
    end)
    -- One that was killed at once may have logged nothing.
    assert.is_true(check(nginx, topic) >= 8 + 2 + 8 + 2)
end)


-- -> for each of our threads of PID, the low 32 signals that it blocks, as a number.
local function blocked(pid)
    local _, out = harness.run { "sh", "-c", ([[
        for task in /proc/%d/task/*; do
            if grep -q '^Name:.lkfk' "$task/status"; then grep '^SigBlk' "$task/status"; fi
        done
    ]]):format(pid) }
    local masks = {}
    for mask in out:gmatch("SigBlk:%s*%x%x%x%x%x%x%x%x(%x%x%x%x%x%x%x%x)") do
        masks[#masks + 1] = tonumber(mask, 16)
    end
    return masks
end


it("NGX-13: no signal that nginx uses runs on a thread of ours", function()
    local topic = kafka:topic("workers-signals", 2)
    local nginx = start(topic, 1, {})
    local worker = nginx:pids()[1]
    local masks = harness.eventually(5, function()
        local masks = blocked(worker)
        return #masks == 2 and masks
    end)
    for name, number in pairs {
        HUP = 1, INT = 2, QUIT = 3, USR1 = 10, USR2 = 12, PIPE = 13, ALRM = 14, TERM = 15,
        CHLD = 17, WINCH = 28, IO = 29, SYS = 31,
    } do
        for _, mask in ipairs(masks) do
            assert.is_true(math.floor(mask / 2 ^ (number - 1)) % 2 == 1, name)
        end
    end
    -- Those that a worker outlives, a thousand of each.
    local _, out = harness.run { "bash", "-c", ([[
        for signal in USR1 CHLD ALRM IO PIPE SYS; do
            for i in {1..1000}; do kill -s $signal %d; done
        done; echo sent
    ]]):format(worker) }
    assert.equal("sent\n", out)
    ngx.sleep(0.3)
    assert.same({ worker }, nginx:pids())
    assert.equal(0, nginx:run("return kfk.stats().driver_restarts"))
    assert.equal(1, check(nginx, topic))
end)
