-- A worker that ends delivers or saves everything it holds, queues that it adopted included; every
-- worker that is exiting hears of a fast stop.

local harness = require "spec.harness"

local kafka = harness.kafka
local DEAD = { "127.0.0.1:1" }
-- Longer than any test.
local LONG = 100000


-- The payloads of these records or lines, as sorted numbers.
local function numbers(...)
    local list = {}
    for _, records in ipairs { ... } do
        for _, record in ipairs(records) do
            list[#list + 1] = tonumber(record.payload)
        end
    end
    table.sort(list)
    return list
end


-- How many messages the last lines of workers speak of.
local function told(nginx)
    local sum = 0
    for count in nginx:error_log():gmatch("exit: (%d+) messages") do
        sum = sum + count
    end
    return sum
end


-- A worker is killed, and the queue it leaves adopted by the next one.
local function kill_and_adopt(nginx)
    local victim = nginx:kill_worker()
    harness.eventually(10, function()
        assert.matches("adopted the queue of worker " .. victim, nginx:error_log(), 1, true)
    end)
end


local function await_end(nginx)
    nginx:await_end()
    assert.is_nil(nginx:error_log():match("[^\n]*exited on signal[^\n]*"))
end


describe("a graceful stop of a worker that adopted a queue", function()
    it("FLT-02: leaves what it adopted in the backup, too, and says so", function()
        local topic = "whole-adopted"
        local nginx = harness.nginx {
            producer = { metadata_broker_list = DEAD, message_timeout_ms = LONG },
        }
        nginx:log_numbers(topic, 1, 100)
        kill_and_adopt(nginx)
        nginx:log_numbers(topic, 101, 150)
        nginx:stop()
        assert.same(harness.count_to(150), numbers(nginx:backup(topic)))
        assert.same({}, nginx:queue_files())
        assert.same({}, nginx:queue_files(nginx.backpath))
        assert.equal(150, told(nginx))
    end)

    it("FLT-02: carries over what it adopted in doubt, and says so", function()
        local topic = kafka:topic("whole-in-doubt", 2)
        local nginx = harness.nginx {
            producer = {
                request_required_acks = -1, queue_buffering_max_ms = 5, batch_num_messages = 100,
                message_timeout_ms = LONG,
            },
        }
        nginx:log_numbers(topic, 1, 100)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        kafka:pause()
        nginx:log_numbers(topic, 101, 1100)
        nginx:run("ngx.sleep(0.2)")
        kill_and_adopt(nginx)
        nginx:log_numbers(topic, 1101, 1150)
        nginx:stop()
        assert.same({}, nginx:queue_files())
        assert.is_true(#nginx:queue_files(nginx.backpath) > 0)
        assert.equal(1050, told(nginx))
        kafka:resume()
        nginx:start()
        harness.eventually(20, function()
            assert.same(harness.count_to(1150), numbers(kafka:records(topic)))
        end)
        harness.eventually(5, function()
            assert.same({}, nginx:backup(topic))
        end)
    end)
end)


describe("a fast stop is heard by workers that wait for their broker after", function()
    -- Each worker logs its pid, and waits for the broker for longer than any test.
    local function start(topic, workers)
        return harness.nginx {
            workers = workers,
            main = "worker_shutdown_timeout 100s;",
            producer = {
                queue_buffering_max_ms = 5, exit_timeout_ms = 200, message_timeout_ms = LONG,
                queue_buffering_max_kbytes = 4096,
            },
            init_worker = ("assert(require('lkfk.kfk').log(%q, nil, ngx.worker.pid()))")
                          :format(topic),
        }
    end

    -- Lists pids that logged, those that reload brings included.
    local function reload(nginx, pids)
        for _, pid in ipairs(nginx:reload()) do
            pids[#pids + 1] = pid
        end
        table.sort(pids)
    end

    local function stop_fast(nginx, topic, pids)
        nginx:signal("TERM")
        await_end(nginx)
        assert.same(pids, numbers(nginx:backup(topic)))
        assert.same({}, nginx:queue_files())
    end

    it("FLT-03: two reloads", function()
        kafka:pause()
        local nginx = start("whole-reloads", 1)
        local pids = nginx:pids()
        reload(nginx, pids)
        ngx.sleep(0.5)
        reload(nginx, pids)
        ngx.sleep(0.5)
        stop_fast(nginx, "whole-reloads", pids)
    end)

    it("FLT-03: one reload of 40", function()
        kafka:pause()
        local nginx = start("whole-forty", 40)
        local pids = nginx:pids()
        reload(nginx, pids)
        harness.eventually(10, function()
            assert.equal(40, #select(2, nginx:pids()))
        end)
        ngx.sleep(1)
        stop_fast(nginx, "whole-forty", pids)
    end)
end)
