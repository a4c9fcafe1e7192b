-- The keys of ngx_lua_lkfk's README that decide what becomes of a message, and what is said of it.
-- Each is tried with two values, which must not do the same.

local harness = require "spec.harness"

local kafka = harness.kafka
local DEAD = { "127.0.0.1:1" }


local function start(conf, functions)
    conf.queue_buffering_max_ms = conf.queue_buffering_max_ms or 5
    return harness.nginx {
        -- Functions cannot be given to `producer`, so they stand in lkfk/conf.lua.
        init = ([[
            package.loaded.seen = {}
            package.loaded["lkfk.conf"] = { default_conf = { %s } }
        ]]):format(functions or ""),
        producer = conf,
    }
end


local function log(nginx, topic, first, last)
    return nginx:run([[
        local topic, first, last = ...
        local accepted, err
        for i = first, last do accepted, err = kfk.log(topic, "key", i) end
        return accepted, err
    ]], topic, first, last)
end


local function await_failed(nginx, count)
    harness.eventually(10, function()
        assert.equal(count, nginx:stats().fail_msg_cnt)
    end)
end


it("failed_cb", function()
    local conf = { metadata_broker_list = DEAD, message_timeout_ms = 300 }
    local nginx = start(conf)
    log(nginx, "keys-failed-cb", 1, 3)
    await_failed(nginx, 3)
    assert.equal(3, #nginx:backup("keys-failed-cb"))

    nginx = start(conf, [[failed_cb = function(_, msg)
        table.insert(require("seen"), { msg.topic, msg.key, msg.str })
    end]])
    log(nginx, "keys-failed-cb", 1, 3)
    await_failed(nginx, 3)
    assert.same({
        { "keys-failed-cb", "key", "1" },
        { "keys-failed-cb", "key", "2" },
        { "keys-failed-cb", "key", "3" },
    }, nginx:run("return require('seen')"))
    assert.same({}, nginx:backup("keys-failed-cb"))
end)


it("backpath", function()
    local nginx = harness.nginx {
        init_worker = [[assert(require("lkfk.kfk").init {
            metadata_broker_list = { "127.0.0.1:1" }, message_timeout_ms = 300,
            queue_path = queue_path,
        })]],
    }
    assert.equal(nginx.prefix .. "/backup/", nginx.backpath)
    log(nginx, "keys-backpath", 1, 1)
    await_failed(nginx, 1)
    assert.equal(1, #nginx:backup("keys-backpath"))

    nginx = start { metadata_broker_list = DEAD, message_timeout_ms = 300,
                    backpath = nginx.prefix .. "/elsewhere" }
    log(nginx, "keys-backpath", 1, 2)
    await_failed(nginx, 2)
    assert.same({}, nginx:backup("keys-backpath"))
end)


describe("topics", function()
    local CALLBACK = [[failed_cb = function(_, msg)
        table.insert(require("seen"), { msg.topic, msg.key, msg.str, msg.err })
    end]]
    local listed, other

    setup(function()
        listed, other = kafka:topic("keys-topics-listed", 1), kafka:topic("keys-topics-other", 1)
    end)

    it("that are listed may be logged to, others go to the backup file", function()
        local nginx = start { topics = { listed } }
        assert.is_true(log(nginx, listed, 1, 1))
        local accepted, err = log(nginx, other, 1, 2)
        assert.is_nil(accepted)
        assert.matches("topic unknown", err, 1, true)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.same({ 1, 0 }, { #kafka:records(listed), #kafka:records(other) })
        harness.eventually(5, function()
            local lines = nginx:backup(other)
            assert.equal(2, #lines)
            assert.same({ "key", "1" }, { lines[1].key, lines[1].payload })
        end)
    end)

    it("that are not listed go to failed_cb where there is one", function()
        local nginx = start({ topics = { listed } }, CALLBACK)
        assert.is_true(log(nginx, listed, 2, 2))
        assert.is_nil((log(nginx, other, 1, 1)))
        harness.eventually(5, function()
            assert.same({ { other, "key", "1", "topic unknown" } },
                        nginx:run("return require('seen')"))
        end)
        assert.same({}, nginx:backup(other))
    end)

    it("may all be logged to when none is listed", function()
        local nginx = start { topics = {} }
        assert.is_true(log(nginx, listed, 3, 3))
        assert.is_true(log(nginx, other, 3, 3))
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.equal(1, #kafka:records(other))
    end)
end)


describe("request_required_acks", function()
    it("= 1 and -1 wait for the broker, 0 does not", function()
        local topic = kafka:topic("keys-acks", 1)
        local nginxes = {}
        for _, acks in ipairs { 0, 1, -1 } do
            nginxes[acks] = start { request_required_acks = acks, message_timeout_ms = 60000 }
            assert.is_true(log(nginxes[acks], topic, acks, acks))
            assert.is_true(nginxes[acks]:run("return kfk.flush(10)"))
        end
        kafka:pause()
        for acks, nginx in pairs(nginxes) do
            log(nginx, topic, acks, acks)
        end
        local delivered = { [0] = 2, 1, [-1] = 1 }
        for acks, nginx in pairs(nginxes) do
            harness.eventually(5, function()
                local seen = nginx:stats()
                assert.same({ delivered[acks], 2 - delivered[acks] },
                            { seen.succ_msg_cnt, seen.waitbuf })
            end)
        end
        kafka:resume()
        for _, nginx in pairs(nginxes) do
            assert.is_true(nginx:run("return kfk.flush(10)"))
        end
        harness.eventually(5, function()
            assert.equal(6, #kafka:records(topic))
        end)
    end)

    it("= 2 is refused", function()
        assert.error_matches(function()
            start { request_required_acks = 2 }
        end, 'request_required_acks: expected 1, 0, -1 or "all", got 2', 1, true)
    end)
end)


-- With a broker that is frozen.
it("request_timeout_ms", function()
    local topic = kafka:topic("keys-request-timeout", 1)
    local nginxes = {}
    for name, ms in pairs { short = 300, long = 20000 } do
        nginxes[name] = start { request_timeout_ms = ms, message_timeout_ms = 60000 }
        log(nginxes[name], topic, 1, 1)
        assert.is_true(nginxes[name]:run("return kfk.flush(10)"))
    end
    kafka:pause()
    for _, nginx in pairs(nginxes) do
        log(nginx, topic, 2, 2)
    end
    harness.eventually(10, function()
        return nginxes.short:stats().connections_broken > 0
    end)
    ngx.sleep(1)
    assert.same({ 0, 1 }, { nginxes.long:stats().connections_broken, nginxes.long:stats().waitbuf })
    kafka:resume()
    for _, nginx in pairs(nginxes) do
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.equal(2, nginx:stats().succ_msg_cnt)
    end
    assert.matches("%[warn%][^\n]*broker " .. kafka.bootstrap .. ": no answer within "
                   .. "request_timeout_ms, connection closed", nginxes.short:error_log())
end)


it("message_timeout_ms", function()
    local short = start { metadata_broker_list = DEAD, message_timeout_ms = 300 }
    local long = start { metadata_broker_list = DEAD, message_timeout_ms = 60000 }
    log(short, "keys-message-timeout", 1, 10)
    log(long, "keys-message-timeout", 1, 10)
    await_failed(short, 10)
    ngx.sleep(1)
    assert.same({ 0, 10 }, { long:stats().fail_msg_cnt, long:stats().queue_messages })
end)


it("kfk_status", function()
    local topic = kafka:topic("keys-status", 1)
    local read = [[
        local dict = ngx.shared.kfk
        local values = {}
        for _, key in ipairs(dict:get_keys(0)) do values[key] = dict:get(key) end
        return values
    ]]
    for _, status in ipairs { true, false } do
        local nginx = start { kfk_status = status }
        log(nginx, topic, 1, 3)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        if status then
            harness.eventually(5, function()
                assert.equal(3, nginx:run(read).succ_msg_cnt)
            end)
        else
            ngx.sleep(1.2)
            assert.same({}, nginx:run(read))
        end
        nginx:stop()
        local line = nginx:error_log():find("[kafka] [statistics] ", 1, true)
        assert.equal(status, line ~= nil)
    end
end)
