-- What a worker runs out of: file descriptors.

local harness = require "spec.harness"

local MESSAGES = 30


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
    assert.equal(0, nginx:run("return kfk.stats()").driver_restarts)
end)
