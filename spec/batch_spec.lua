-- When a batch is closed and sent: by count, by bytes, by linger, by flush().

local harness = require "spec.harness"

local kafka = harness.kafka
-- Long enough never to be over within a test.
local LONG = 100000


local function clock()
    ngx.update_time()
    return ngx.now()
end


local function start(conf)
    conf.message_timeout_ms = conf.message_timeout_ms or 2 * LONG
    return harness.nginx {
        producer = conf,
        locations = { ["/ping"] = "ngx.print('pong')" },
    }
end


local function log(nginx, topic, count, payload)
    nginx:run([[
        local topic, count, payload = ...
        for i = 1, count do assert(kfk.log(topic, nil, payload or i)) end
    ]], topic, count, payload)
end


describe("a batch", function()
    it("is sent as soon as it holds batch_num_messages", function()
        local topic = kafka:topic("batch-count", 1)
        local nginx = start { queue_buffering_max_ms = LONG, batch_num_messages = 10 }
        log(nginx, topic, 25)
        harness.eventually(5, function()
            assert.equal(20, #kafka:records(topic))
        end)
        local seen = nginx:stats()
        assert.same({ 2, 10, 20, 5 }, {
            seen.batches_sent, seen.batch_records_max, seen.succ_msg_cnt, seen.queue_messages,
        })
        log(nginx, topic, 5)
        harness.eventually(5, function()
            assert.equal(30, #kafka:records(topic))
        end)
        assert.equal(3, nginx:stats().batches_sent)
    end)

    it("is sent before it would exceed batch_size", function()
        local topic = kafka:topic("batch-size", 1)
        local nginx = start { queue_buffering_max_ms = LONG, batch_size = 1024 }
        -- Two of them fit, three do not.
        log(nginx, topic, 7, ("x"):rep(400))
        harness.eventually(5, function()
            assert.equal(6, #kafka:records(topic))
        end)
        local seen = nginx:stats()
        assert.same({ 3, 2, 1 }, {
            seen.batches_sent, seen.batch_records_max, seen.queue_messages,
        })
    end)

    it("is sent with what it has when queue_buffering_max_ms is over, not before", function()
        local topic = kafka:topic("batch-linger", 1)
        local nginx = start { queue_buffering_max_ms = 1500 }
        local began = clock()
        for _ = 1, 5 do
            log(nginx, topic, 1)
            ngx.sleep(0.1)
        end
        harness.eventually(10, function()
            return nginx:stats().succ_msg_cnt > 0
        end)
        assert.is_true(clock() - began > 1.4)
        local seen = nginx:stats()
        assert.same({ 1, 5 }, { seen.batches_sent, seen.succ_msg_cnt })
        assert.equal(5, #kafka:records(topic))
    end)

    it("is sent at once when queue_buffering_max_ms is 0", function()
        local topic = kafka:topic("batch-no-linger", 1)
        local nginx = start { queue_buffering_max_ms = 0, topics = { topic } }
        harness.eventually(5, function()
            return nginx:stats().metadata_requests_sent > 0
        end)
        log(nginx, topic, 1)
        harness.eventually(1, function()
            assert.equal(1, nginx:stats().succ_msg_cnt)
        end)
        assert.equal(1, #kafka:records(topic))
    end)

    it("belongs to one partition, and one request may carry several", function()
        local topic = kafka:topic("batch-partitions", 4)
        local nginx = start { queue_buffering_max_ms = LONG }
        nginx:run([[
            local topic = ...
            for i = 1, 100 do assert(kfk.log(topic, "key " .. i, i)) end
            assert(kfk.flush(10))
        ]], topic)
        assert.equal(100, #kafka:records(topic))
        local seen = nginx:stats()
        assert.equal(4, seen.batches_sent)
        assert.is_true(seen.requests_sent <= seen.batches_sent)
    end)
end)


describe("flush()", function()
    local topic, nginx

    setup(function()
        topic = kafka:topic("batch-flush", 1)
        nginx = start { queue_buffering_max_ms = LONG, request_timeout_ms = LONG }
    end)

    it("returns true when all that was logged is delivered, without lingering", function()
        local before = #kafka:records(topic)
        log(nginx, topic, 3)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.equal(before + 3, #kafka:records(topic))
    end)

    it("returns true at once when nothing waits", function()
        assert.is_true(nginx:run("return kfk.flush(0)"))
    end)

    it("waits for messages that were logged before it, not for later ones", function()
        local done = nginx:run([[
            local topic = ...
            assert(kfk.log(topic, nil, "before"))
            local flushing = ngx.thread.spawn(kfk.flush, 10)
            assert(kfk.log(topic, nil, "after"))
            local _, done = ngx.thread.wait(flushing)
            return done
        ]], topic)
        assert.is_true(done)
        assert.is_true(nginx:run("return kfk.flush(10)"))
    end)

    it("yields while it waits, gives up at its time limit, and can be tried again", function()
        local before = #kafka:records(topic)
        kafka:pause()
        log(nginx, topic, 1)
        local flushing = ngx.thread.spawn(nginx.run, nginx, "return kfk.flush(1)")
        ngx.sleep(0.2)
        local began = clock()
        assert.same({ 200, "pong" }, { nginx:get("/ping") })
        assert.is_true(clock() - began < 0.5)
        local _, ok, err = ngx.thread.wait(flushing)
        assert.is_nil(ok)
        assert.equal("timeout: 1 messages are still waiting", err)
        kafka:resume()
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.equal(before + 1, #kafka:records(topic))
    end)

    it("refuses a time limit that is none", function()
        for _, limit in ipairs { "'x'", "-1", "0/0", "{}", "true" } do
            local ok, err = nginx:run(("return kfk.flush(%s)"):format(limit))
            assert.is_nil(ok)
            assert.matches("flush() takes a number of seconds", err, 1, true)
        end
    end)

    it("says so before init()", function()
        local ok, err = harness.nginx():run("return kfk.flush()")
        assert.is_nil(ok)
        assert.matches("not running", err, 1, true)
    end)
end)


it("flush() in a phase that may not yield answers nil and an error instead of throwing", function()
    local topic = kafka:topic("batch-phases", 1)
    local flush = [[
        local kfk = require "lkfk.kfk"
        if kfk.stats().queue_messages == 0 then assert(kfk.flush(1) == true) end
        assert(kfk.log("]] .. topic .. [[", nil, ngx.get_phase()))
        local returned, ok, err = pcall(kfk.flush, 1)
        ngx.shared.seen:set(ngx.get_phase(), tostring(returned) .. " " .. tostring(ok) .. " "
                                             .. tostring(err))
    ]]
    local nginx = harness.nginx {
        http = "lua_shared_dict seen 1m;",
        producer = { queue_buffering_max_ms = LONG, message_timeout_ms = 2 * LONG },
        init_worker = flush,
        locations = {
            ["/"] = {
                conf = "set_by_lua_block $set { " .. flush .. " return '' }",
                content = "ngx.print('here')",
                header_filter = flush,
                body_filter = flush,
                log = flush,
            },
        },
    }
    assert.same({ 200, "here" }, { nginx:get("/") })
    for _, phase in ipairs { "init_worker", "set", "header_filter", "body_filter", "log" } do
        harness.eventually(2, function()
            assert.equal("true nil flush() cannot wait in the phase " .. phase,
                         nginx:run("return ngx.shared.seen:get(...)", phase))
        end)
    end
end)


it("while nothing can be delivered log() does not wake the driver for each message", function()
    local topic = kafka:topic("batch-wakeups", 1)
    local nginx = harness.nginx {
        producer = {
            queue_buffering_max_ms = 100,
            request_timeout_ms = 60000,
            message_timeout_ms = 60000,
        },
    }
    assert.is_true(nginx:run("assert(kfk.log(...)); return kfk.flush(10)", topic, nil, "first"))
    kafka:pause()
    -- With time to look at each, were it asked for.
    local woken = nginx:run([[
        local topic = ...
        assert(kfk.log(topic, nil, "on its way"))
        ngx.sleep(0.3)
        local before = kfk.stats().wakeups
        for i = 1, 300 do
            assert(kfk.log(topic, nil, i))
            ngx.sleep(0.002)
        end
        return kfk.stats().wakeups - before
    ]], topic)
    kafka:resume()
    harness.eventually(10, function()
        assert.equal(0, nginx:run("return kfk.stats().queue_messages"))
    end)
    assert.equal(302, #kafka:records(topic))
    assert.is_true(woken < 100, woken)
end)
