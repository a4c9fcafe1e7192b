-- The queue's file, when somebody lays hands on it while it is in use.

local harness = require "spec.harness"

local kafka = harness.kafka


-- -> the path of the only queue file.
local function queue_file(nginx)
    local files = nginx:queue_files()
    assert.equal(1, #files)
    local code, out = harness.run { "find", nginx.queue_path, "-name", files[1] }
    assert.equal(0, code)
    return (out:gsub("\n", ""))
end


local function log(nginx, topic, first, last)
    return nginx:run([[
        local topic, first, last = ...
        for i = first, last do assert(kfk.log(topic, nil, i)) end
        return kfk.flush(10)
    ]], topic, first, last)
end


it("RNG-05: a queue that is cut short costs its worker, and the next one starts clean", function()
    local topic = kafka:topic("queue-cut", 1)
    local nginx = harness.nginx { producer = { queue_buffering_max_ms = 5 } }
    assert.is_true(log(nginx, topic, 1, 100))
    local before = nginx:pids()
    local path = queue_file(nginx)
    assert.equal(0, (harness.run { "truncate", "-s", "0", path }))
    -- Whoever touches it first, log() or the driver.
    pcall(log, nginx, topic, 0, 0)
    harness.eventually(10, function()
        local workers = nginx:pids()
        assert.equal(1, #workers)
        assert.not_equal(before[1], workers[1])
    end)
    assert.is_truthy(nginx:error_log():find(before[1] .. " exited on signal 7", 1, true))
    assert.is_true(log(nginx, topic, 101, 200))
    harness.eventually(5, function()
        assert.is_truthy(nginx:error_log():find("[lkfk] a dead worker's queue is left as it is: "
                                                .. path, 1, true))
    end)
    local found = {}
    for _, record in ipairs(kafka:records(topic)) do
        found[tonumber(record.payload)] = (found[tonumber(record.payload)] or 0) + 1
    end
    for i = 1, 200 do
        assert.equal(1, found[i], "message " .. i)
    end
end)


it("RNG-06: a queue whose file was removed goes on, and the log says so", function()
    local topic = kafka:topic("queue-removed", 1)
    local nginx = harness.nginx { producer = { queue_buffering_max_ms = 5 } }
    local path = queue_file(nginx)
    assert.is_true(os.remove(path))
    local line = "[lkfk] queue " .. path .. " was removed while in use"
    harness.eventually(10, function()
        assert.is_truthy(nginx:error_log():find(line, 1, true))
    end)
    assert.is_true(log(nginx, topic, 1, 1000))
    assert.equal(1000, #kafka:records(topic))
    -- As the line promises.
    nginx:reload()
    queue_file(nginx)
    assert.is_true(log(nginx, topic, 1001, 2000))
    nginx:stop()
    assert.equal(2000, #kafka:records(topic))
    assert.same({}, nginx:queue_files())
    assert.is_nil(nginx:error_log():find("are left in", 1, true))
end)


it("RNG-06: at exit what was sent from a removed queue is kept under another name", function()
    local topic = kafka:topic("queue-carried", 1)
    local dir = os.getenv("LKFK_STAGE") .. "/removed/"
    assert.equal(0, (harness.run { "mkdir", "-p", dir }))
    local nginx = harness.nginx {
        producer = {
            queue_path = dir,
            backpath = dir,
            queue_buffering_max_ms = 5,
            request_required_acks = -1,
            exit_timeout_ms = 200,
        },
    }
    -- The next one may follow what was acknowledged just now.
    assert.is_true(log(nginx, topic, 1, 10))
    kafka:pause()
    nginx:run("for i = 11, 20 do assert(kfk.log(..., nil, i)) end", topic)
    harness.eventually(5, function()
        assert.equal(10, nginx:run("return kfk.stats().waitbuf"))
    end)
    assert.equal(0, (harness.run { "find", dir, "-name", "*.queue", "-delete" }))
    nginx:stop()
    -- It never gets to what it was sent.
    kafka:kill()
    kafka:start()
    nginx:start()
    harness.eventually(10, function()
        assert.equal(20, #kafka:records(topic))
    end)
    assert.is_true(nginx:run("return kfk.flush(10)"))
    assert.equal(20, #kafka:records(topic))
end)
