-- A full queue: log() says so at once, what it took before arrives, what it refused does not.

local harness = require "spec.harness"

local kafka = harness.kafka


local function start(conf)
    -- Nothing is given up while the broker is paused.
    conf.request_timeout_ms = 60000
    conf.message_timeout_ms = 120000
    conf.queue_buffering_max_ms = 5
    return harness.nginx {
        producer = conf,
        locations = { ["/ping"] = "ngx.print('pong')" },
    }
end


-- Logs 1, 2, ... up to `count` or the first refusal -> messages taken, the refusal's error.
local function log_until_refused(nginx, topic, count, size)
    return nginx:run([[
        local topic, count, size = ...
        for i = 1, count do
            local ok, err = kfk.log(topic, nil, ("0"):rep(size - #tostring(i)) .. i)
            if not ok then return i - 1, err end
        end
        return count
    ]], topic, count, size)
end


local function payloads(topic, size)
    local list = {}
    for i, record in ipairs(kafka:records(topic)) do
        assert.equal(size, #record.payload)
        list[i] = tonumber(record.payload)
    end
    return list
end


-- Fills the queue while the broker is paused -> messages taken, the error.
local function fill(nginx, topic, count, size)
    kafka:pause()
    local taken, err = log_until_refused(nginx, topic, count, size)
    -- Full is not stuck: nginx answers, and so does log(), the same.
    local began = ngx.now()
    assert.same({ 200, "pong" }, { nginx:get("/ping") })
    ngx.update_time()
    assert.is_true(ngx.now() - began < 0.5)
    local again, same = log_until_refused(nginx, topic, 1, size)
    assert.same({ 0, err }, { again, same })
    return taken, err
end


describe("a queue that is full by", function()
    it("queue_buffering_max_messages", function()
        local topic = kafka:topic("full-messages", 1)
        local nginx = start { queue_buffering_max_messages = 100 }
        local taken, err = fill(nginx, topic, 1000, 10)
        assert.equal(100, taken)
        assert.equal("queue full: queue_buffering_max_messages are waiting", err)

        kafka:resume()
        assert.is_true(nginx:run("return kfk.flush(20)"))
        assert.same(harness.count_to(100), payloads(topic, 10))

        assert.equal(50, (log_until_refused(nginx, topic, 50, 10)))
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.equal(150, #kafka:records(topic))
    end)

    it("queue_buffering_max_kbytes", function()
        local topic = kafka:topic("full-bytes", 1)
        local nginx = start { queue_buffering_max_kbytes = 64, message_max_bytes = 10000 }
        local taken, err = fill(nginx, topic, 1000, 1000)
        -- 64 KiB, and 64 bytes of overhead for each message.
        assert.is_true(taken >= 55 and taken <= 62, taken)
        assert.matches("queue full: queue_buffering_max_kbytes are in use", err, 1, true)

        kafka:resume()
        assert.is_true(nginx:run("return kfk.flush(20)"))
        assert.same(harness.count_to(taken), payloads(topic, 1000))

        assert.equal(20, (log_until_refused(nginx, topic, 20, 1000)))
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.equal(taken + 20, #kafka:records(topic))
    end)
end)


it("a full queue takes messages again as fast as Kafka does, and loses none it took", function()
    local topic = kafka:topic("full-again", 1)
    local nginx = start { queue_buffering_max_messages = 500, batch_num_messages = 100 }
    local taken, refused = nginx:run([[
        local topic = ...
        local taken, refused = 0, 0
        for round = 1, 50 do
            for _ = 1, 400 do
                if kfk.log(topic, nil, taken + 1) then
                    taken = taken + 1
                else
                    refused = refused + 1
                end
            end
            ngx.sleep(0.002)
        end
        return taken, refused
    ]], topic)
    assert.is_true(refused > 0)
    assert.is_true(taken > 1000, taken)
    assert.is_true(nginx:run("return kfk.flush(20)"))
    local seen = {}
    for i, record in ipairs(kafka:records(topic)) do
        seen[i] = tonumber(record.payload)
    end
    assert.same(harness.count_to(taken), seen)
end)
