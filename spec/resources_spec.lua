-- What workers take, and what they run out of: memory, file descriptors.

local harness = require "spec.harness"
local process = require "spec.harness.process"

local MESSAGES = 30
local WORKERS = 64
local KIB, MIB = 1024, 1024 * 1024


-- From now on the process may open no more than so many files; those that are open stay.
local function limit_files(pid, count)
    local limit = ("--nofile=%d:"):format(count)
    assert.equal(0, (harness.run { "prlimit", "--pid", tostring(pid), limit }))
end


it("RES-01: without a descriptor for a connection messages wait, and arrive once there is one",
   function()
    local broker = harness.kafka:new("resources")
    local topic = broker:topic("resources", 1)
    local nginx = harness.nginx {
        producer = {
            metadata_broker_list = { broker.bootstrap },
            request_required_acks = -1,
            message_timeout_ms = 60000,
            queue_buffering_max_ms = 5,
        },
    }
    local pid = nginx:pids()[1]
    -- Its connection is there before.
    local logging = ngx.thread.spawn(nginx.run, nginx, [[
        local topic, count = ...
        for i = 1, count do
            assert(kfk.log(topic, nil, i))
            ngx.sleep(0.1)
        end
    ]], topic, MESSAGES)
    harness.eventually(5, function()
        assert.is_true(#broker:records(topic) > 0)
    end)
    limit_files(pid, 4)
    broker:kill()
    broker:start()
    harness.eventually(10, function()
        assert.matches("Too many open files", nginx:error_log():match("%[lkfk%] broker.*"), 1, true)
    end)
    assert.is_true(ngx.thread.wait(logging))
    limit_files(pid, 1024)

    harness.eventually(15, function()
        assert.equal(MESSAGES, #broker:records(topic))
    end)
    assert.equal(pid, nginx:pids()[1])
    assert.equal(0, nginx:stats().driver_restarts)
end)


-- Bytes of memory that the queue files below a directory take.
local function queue_memory(path)
    local code, out = harness.run { "du", "--summarize", "--block-size=1", path }
    assert.equal(0, code)
    return tonumber(out:match("^%d+"))
end


it("64 idle workers take at most 64 MiB for their queues, and 14 MB each", function()
    local nginx = harness.nginx({ workers = WORKERS, producer = { queue_path = nil } })
    harness.eventually(10, function()
        assert.equal(WORKERS, #nginx:queue_files())
    end)
    ngx.sleep(1)
    local queues, largest = queue_memory(nginx.queue_path), 0
    for _, pid in ipairs(nginx:pids()) do
        local status = process.read("/proc/" .. pid .. "/status")
        largest = math.max(largest, tonumber(status:match("VmRSS:%s*(%d+)")))
    end
    print(("        queues %.1f MiB, largest worker %.1f MB"):format(queues / MIB,
                                                                   largest * KIB / 1e6))
    assert.is_true(queues <= 64 * MIB, queues)
    assert.is_true(largest * KIB <= 14e6, largest)
end)
