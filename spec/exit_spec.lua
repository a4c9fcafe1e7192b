-- The end of a worker: by a stop, a reload, with a broker that answers and with one that does not.

local harness = require "spec.harness"

local kafka = harness.kafka


local function start(options)
    options.producer.message_timeout_ms = 60000
    return harness.nginx(options)
end


-- The payloads that are in Kafka or in the backup, as sorted numbers.
local function kept(nginx, topic)
    local list = {}
    for _, record in ipairs(kafka:records(topic)) do
        list[#list + 1] = tonumber(record.payload)
    end
    for _, line in ipairs(nginx:backup(topic)) do
        list[#list + 1] = tonumber(line.payload)
    end
    table.sort(list)
    return list
end


local function ended_cleanly(nginx)
    assert.is_nil(nginx:error_log():match("[^\n]*exited on signal[^\n]*"))
    assert.matches("exited with code 0", nginx:error_log(), 1, true)
    assert.same({}, nginx:queue_files())
end


-- Processor time of a process so far, in seconds.
local function cpu_seconds(pid)
    local file = assert(io.open("/proc/" .. pid .. "/stat"))
    local fields, text = {}, file:read("*a")
    file:close()
    for field in text:match("%) (.*)"):gmatch("%S+") do
        fields[#fields + 1] = field
    end
    return (fields[12] + fields[13]) / 100
end


describe("a graceful stop", function()
    it("delivers everything first, whatever the linger", function()
        local topic = kafka:topic("exit-quit", 2)
        local nginx = start { producer = { queue_buffering_max_ms = 50000 } }
        nginx:log_numbers(topic, 1, 5000)
        nginx:stop()
        assert.equal(5000, #kafka:records(topic))
        assert.same(harness.count_to(5000), kept(nginx, topic))
        ended_cleanly(nginx)
    end)

    it("delivers what a request logs that was open when it began", function()
        local topic = kafka:topic("exit-open", 1)
        local nginx = start {
            producer = { queue_buffering_max_ms = 50000 },
            locations = {
                ["/slow"] = {
                    content = "ngx.sleep(1) ngx.print('slow')",
                    log = ("require('lkfk.kfk').log(%q, nil, 1)"):format(topic),
                },
            },
        }
        local slow = ngx.thread.spawn(nginx.get, nginx, "/slow")
        ngx.sleep(0.2)
        nginx:stop()
        local _, status = ngx.thread.wait(slow)
        assert.equal(200, status)
        assert.equal(1, #kafka:records(topic))
        ended_cleanly(nginx)
    end)

    it("NGX-07: delivers what a request logs that worker_shutdown_timeout cuts", function()
        local topic = kafka:topic("exit-cut", 1)
        local nginx = start {
            main = "worker_shutdown_timeout 1s;",
            producer = { queue_buffering_max_ms = 50000 },
            locations = {
                ["/endless"] = {
                    content = ("require('lkfk.kfk').log(%q, nil, 1) ngx.sleep(60)"):format(topic),
                    log = ("require('lkfk.kfk').log(%q, nil, 2)"):format(topic),
                },
            },
        }
        local cut = ngx.thread.spawn(nginx.get, nginx, "/endless")
        ngx.sleep(0.2)
        nginx:stop(10)
        local _, status = ngx.thread.wait(cut)
        assert.is_nil(status)
        assert.same(harness.count_to(2), kept(nginx, topic))
        assert.equal(2, #kafka:records(topic))
        ended_cleanly(nginx)
    end)

    it("REG-02: waits for all parts of a batch that was too large for the broker", function()
        local topic = kafka:topic("exit-split", 1, { ["max.message.bytes"] = 2000 })
        local nginx = start {
            producer = { queue_buffering_max_ms = 50000, request_required_acks = -1 },
        }
        nginx:log_numbers(topic, 1, 500)
        nginx:stop()
        local payloads = kafka:payloads(topic)
        assert.equal(500, #payloads)
        for i, payload in ipairs(payloads) do
            assert.equal(tostring(i), payload)
        end
        ended_cleanly(nginx)
    end)

    it("delivers what exit_worker_by_lua logs", function()
        local topic = kafka:topic("exit-worker", 1)
        local nginx = start {
            producer = { queue_buffering_max_ms = 50000 },
            http = ([[exit_worker_by_lua_block {
                assert(require("lkfk.kfk").log(%q, nil, ngx.get_phase()))
            }]]):format(topic),
        }
        nginx:stop()
        local records = kafka:records(topic)
        assert.same({ 1, "exit_worker" }, { #records, records[1].payload })
        ended_cleanly(nginx)
    end)

    it("waits exit_timeout_ms for a broker that is slow to answer, and idles meanwhile", function()
        local topic = kafka:topic("exit-slow", 1)
        local nginx = start { producer = { queue_buffering_max_ms = 5, exit_timeout_ms = 8000 } }
        kafka:pause()
        nginx:log_numbers(topic, 1, 100)
        local worker = nginx:pids()[1]
        local before = cpu_seconds(worker)
        local stopping = ngx.thread.spawn(nginx.stop, nginx)
        ngx.sleep(2)
        assert.is_true(cpu_seconds(worker) - before < 0.5)
        kafka:resume()
        assert.is_true(ngx.thread.wait(stopping))
        assert.equal(100, #kafka:records(topic))
        assert.same({}, nginx:backup(topic))
        ended_cleanly(nginx)
    end)

    it("waits for worker_shutdown_timeout when that is longer", function()
        local topic = kafka:topic("exit-shutdown", 1)
        local nginx = start {
            main = "worker_shutdown_timeout 12s;",
            producer = { queue_buffering_max_ms = 5, request_timeout_ms = 20000 },
        }
        assert.is_true(nginx:run("return kfk.flush(10)"))
        kafka:pause()
        nginx:log_numbers(topic, 1, 100)
        local stopping = ngx.thread.spawn(nginx.stop, nginx)
        -- Three times as long as exit_timeout_ms.
        ngx.sleep(3)
        kafka:resume()
        assert.is_true(ngx.thread.wait(stopping))
        assert.equal(100, #kafka:records(topic))
        assert.same({}, nginx:backup(topic))
        ended_cleanly(nginx)
    end)

    it("ends with worker_shutdown_timeout when the broker does not answer", function()
        local topic = kafka:topic("exit-shutdown-deaf", 1)
        local nginx = start {
            main = "worker_shutdown_timeout 2s;",
            producer = { queue_buffering_max_ms = 5, exit_timeout_ms = 100 },
        }
        kafka:pause()
        nginx:log_numbers(topic, 1, 100)
        local master = nginx.master
        local stopping = ngx.thread.spawn(nginx.stop, nginx, 6)
        ngx.sleep(1)
        assert.is_true(harness.alive(master))
        assert.is_true(ngx.thread.wait(stopping))
        assert.equal(100, #nginx:backup(topic))
        ended_cleanly(nginx)
    end)

    it("gives up after exit_timeout_ms when the broker does not answer", function()
        local topic = kafka:topic("exit-deaf", 1)
        local nginx = start { producer = { queue_buffering_max_ms = 5, exit_timeout_ms = 300 } }
        kafka:pause()
        nginx:log_numbers(topic, 1, 100)
        nginx:stop(2)
        assert.equal(100, #nginx:backup(topic))
        ended_cleanly(nginx)
    end)
end)


describe("a fast stop", function()
    it("does not wait for worker_shutdown_timeout", function()
        local topic = kafka:topic("exit-term-deaf", 1)
        local nginx = start {
            main = "worker_shutdown_timeout 60s;",
            producer = { queue_buffering_max_ms = 5 },
        }
        kafka:pause()
        nginx:log_numbers(topic, 1, 100)
        nginx:signal("TERM")
        nginx:await_end(3)
        assert.equal(100, #nginx:backup(topic))
        ended_cleanly(nginx)
    end)

    it("cuts a graceful one short that waits for its broker (NGX-02)", function()
        local topic = kafka:topic("exit-quit-term", 1)
        local nginx = start {
            main = "worker_shutdown_timeout 60s;",
            producer = { queue_buffering_max_ms = 5, exit_timeout_ms = 500 },
        }
        kafka:pause()
        nginx:log_numbers(topic, 1, 100)
        nginx:signal("QUIT")
        ngx.sleep(1)
        assert.is_true(harness.alive(nginx.master))
        nginx:signal("TERM")
        nginx:await_end(3)
        assert.equal(100, #nginx:backup(topic))
        ended_cleanly(nginx)
    end)

    it("delivers everything when the broker answers", function()
        local topic = kafka:topic("exit-term", 2)
        local nginx = start { producer = { queue_buffering_max_ms = 50000 } }
        nginx:log_numbers(topic, 1, 5000)
        nginx:signal("TERM")
        nginx:await_end(3)
        assert.equal(5000, #kafka:records(topic))
        assert.same(harness.count_to(5000), kept(nginx, topic))
        ended_cleanly(nginx)
    end)

    it("leaves the rest in the backup when it does not, and says how much", function()
        local topic = kafka:topic("exit-rest", 1)
        local nginx = start { producer = { queue_buffering_max_ms = 5 } }
        nginx:log_numbers(topic, 1, 100)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        kafka:pause()
        nginx:log_numbers(topic, 101, 1100)
        nginx:signal("TERM")
        nginx:await_end(3)
        local lines = nginx:backup(topic)
        assert.equal(1000, #lines)
        for i, line in ipairs(lines) do
            assert.equal(tostring(100 + i), line.payload)
        end
        ended_cleanly(nginx)
        local line = nginx:error_log():match("[^\n]*exit: [^\n]*")
        assert.matches("1000 messages were not acknowledged in time and went to "
                       .. nginx.backpath:gsub("/$", ""), line, 1, true)
        assert.matches("^%d+/%d%d/%d%d %d%d:%d%d:%d%d %[warn%] %d+#0: %[lkfk%] ", line)
    end)

    it("keeps on disk what the broker may have, and the next worker repeats it", function()
        local topic = kafka:topic("exit-in-doubt", 2)
        local nginx = start {
            producer = {
                request_required_acks = -1, queue_buffering_max_ms = 5, batch_num_messages = 100,
            },
        }
        nginx:log_numbers(topic, 1, 100)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        kafka:pause()
        nginx:log_numbers(topic, 101, 1100)
        nginx:run("ngx.sleep(0.2)")
        nginx:signal("TERM")
        nginx:await_end(3)
        -- Five batches of each partition are on their way.
        local open = tonumber(nginx:error_log():match("exit: (%d+) messages were sent and not"))
        assert.is_true(open >= 100 and open <= 1000, open)
        assert.equal(1000 - open, #nginx:backup(topic))
        assert.same({}, nginx:queue_files())
        assert.equal(1, #nginx:queue_files(nginx.backpath))
        ended_cleanly(nginx)
        kafka:resume()
        nginx:start()
        -- What went to the backup comes from there.
        harness.eventually(20, function()
            assert.equal(1100, #kafka:records(topic))
        end)
        harness.eventually(5, function()
            assert.same(harness.count_to(1100), kept(nginx, topic))
            assert.same({}, nginx:queue_files(nginx.backpath))
        end)
        nginx:stop()
    end)
end)


describe("a reload", function()
    -- Each request logs its number from log_by_lua.
    local function serve(workers, topic)
        return start {
            workers = workers,
            producer = { queue_buffering_max_ms = 100 },
            locations = {
                ["/"] = {
                    content = "ngx.print('here')",
                    log = ("assert(require('lkfk.kfk').log(%q, nil, ngx.var.arg_i))"):format(topic),
                },
            },
        }
    end

    it("under load loses and doubles nothing", function()
        local topic = kafka:topic("exit-reload", 2)
        local nginx = serve(2, topic)
        local last, stop = 0, false
        local function load()
            while not stop do
                last = last + 1
                assert.equal(200, (nginx:get("/?i=" .. last)))
            end
        end
        local clients = {}
        for i = 1, 4 do
            clients[i] = ngx.thread.spawn(load)
        end
        for _ = 1, 3 do
            ngx.sleep(0.3)
            nginx:reload()
        end
        ngx.sleep(0.3)
        stop = true
        for _, client in ipairs(clients) do
            assert.is_true(ngx.thread.wait(client))
        end
        assert.is_true(last > 200, last)

        harness.eventually(10, function()
            local _, leaving = nginx:pids()
            assert.same({}, leaving)
        end)
        assert.equal(2, #nginx:queue_files())
        for _, pid in ipairs(nginx:pids()) do
            assert.equal(1, nginx:threads(pid))
        end
        nginx:stop()
        assert.same(harness.count_to(last), kept(nginx, topic))
        ended_cleanly(nginx)
        assert.is_nil(nginx:error_log():match("[^\n]*%[error%][^\n]*"))
    end)

    it("while the broker does not answer leaves what old workers took in the backup", function()
        local topic = kafka:topic("exit-reload-deaf", 1)
        local nginx = serve(1, topic)
        kafka:pause()
        for i = 1, 50 do
            assert.equal(200, (nginx:get("/?i=" .. i)))
        end
        nginx:reload()
        harness.eventually(5, function()
            assert.equal(50, #nginx:backup(topic))
        end)
        harness.eventually(5, function()
            assert.equal(1, #nginx:queue_files())
        end)
        for i = 51, 60 do
            assert.equal(200, (nginx:get("/?i=" .. i)))
        end
        kafka:resume()
        assert.is_true(nginx:run("return kfk.flush(10)"))
        local seen = {}
        for _, record in ipairs(kafka:records(topic)) do
            seen[tonumber(record.payload)] = true
        end
        for i = 51, 60 do
            assert.is_true(seen[i], "message " .. i)
        end
    end)
end)


it("what a killed worker took, its successor delivers", function()
    local topic = kafka:topic("exit-killed", 1)
    local nginx = start { producer = { queue_buffering_max_ms = 3000 } }
    -- None is on its way yet, so none can be doubled.
    nginx:log_numbers(topic, 1, 400)
    local victim = nginx:kill_worker()
    harness.eventually(10, function()
        assert.equal(1, #nginx:queue_files())
    end)
    assert.is_true(nginx:run("return kfk.flush(10)"))
    assert.equal(400, #kafka:records(topic))
    assert.same(harness.count_to(400), kept(nginx, topic))
    harness.eventually(5, function()
        assert.matches("adopted the queue of worker " .. victim, nginx:error_log(), 1, true)
    end)
end)
