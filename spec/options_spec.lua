-- The options of log(): headers, a time of its own, a null payload; by every way that a message may
-- take to Kafka.

local harness = require "spec.harness"

local kafka = harness.kafka
local TIME = 1767225600123


-- The messages of a topic, as kcat shows them: key, payload (-1: null), time, headers.
local function read(topic)
    local lines = {}
    for line in kafka:consume(topic, "%k|%S:%s|%T|%h\n"):gmatch "[^\n]+" do
        lines[#lines + 1] = line
    end
    return lines
end


-- What log_all() logs, but for the time of the message that has none of its own.
local EXPECTED = {
    "list|3:one|" .. TIME .. "|b=2,a=1,b=,c=NULL",
    "named|3:two|" .. TIME .. "|trace=4711",
    "gone|-1:|" .. TIME .. "|why=old",
    "plain|5:three|NOW|",
}


local LOG_ALL = [[
    local topic, time = ...
    assert(kfk.log(topic, "list", "one", {
        headers = { { "b", 2 }, { "a", "1" }, { "b", "" }, { "c", ngx.null } }, timestamp = time,
    }))
    assert(kfk.log(topic, "named", "two", { headers = { trace = 4711 }, timestamp = time }))
    assert(kfk.log(topic, "gone", nil, {
        tombstone = true, headers = { { "why", "old" } }, timestamp = time,
    }))
    assert(kfk.log(topic, "plain", "three", {}))
]]


local function log_all(nginx, topic)
    nginx:run(LOG_ALL, topic, TIME)
end


local function assert_all(topic)
    harness.eventually(20, function()
        local lines = read(topic)
        if #lines == 4 then
            local time = tonumber(lines[4]:match "|(%d+)|$")
            assert.is_true(math.abs(time / 1000 - ngx.time()) < 120)
            lines[4] = lines[4]:gsub("|%d+|$", "|NOW|")
        end
        assert.same(EXPECTED, lines)
    end)
end


local function start(options)
    local producer = { queue_buffering_max_ms = 20, message_timeout_ms = 60000 }
    for key, value in pairs(options or {}) do
        producer[key] = value
    end
    return harness.nginx { producer = producer }
end


describe("headers, times and null payloads are read back exactly", function()
    it("from the queue", function()
        local topic = kafka:topic("options-queue", 1)
        log_all(start(), topic)
        assert_all(topic)
    end)

    it("compressed, with sequence numbers", function()
        local topic = kafka:topic("options-zstd", 1)
        log_all(start { compression_codec = "zstd", request_required_acks = -1 }, topic)
        assert_all(topic)
    end)

    it("from a killed worker's queue file", function()
        local topic = kafka:topic("options-kill", 1)
        local nginx = start { queue_buffering_max_ms = 100000, message_timeout_ms = 200000 }
        log_all(nginx, topic)
        nginx:kill_worker()
        assert_all(topic)
    end)

    it("from the backup file", function()
        local topic = kafka:topic("options-backup", 1)
        local nginx = start { message_timeout_ms = 500, request_timeout_ms = 300 }
        kafka:pause()
        log_all(nginx, topic)
        harness.eventually(20, function()
            assert.equal(4, nginx:stats().fail_msg_cnt)
        end)
        kafka:resume()
        assert_all(topic)
    end)
end)


describe("failed_cb", function()
    -- Gives failures of this configuration to a failed_cb of this body.
    local function start_failing(producer, body)
        producer.queue_buffering_max_ms = 5
        return harness.nginx {
            producer = producer,
            init = ([[
                package.loaded.seen = {}
                package.loaded["lkfk.conf"] = { default_conf = {
                    failed_cb = function(_, msg) %s end,
                } }
            ]]):format(body),
        }
    end

    local KEEP = [[
        local headers = {}
        for i, pair in ipairs(msg.headers or {}) do
            headers[i] = pair[1] .. "=" .. tostring(pair[2])
        end
        table.insert(require("seen"), {
            msg.key, tostring(msg.str), table.concat(headers, ","), msg.timestamp,
        })
    ]]

    local function assert_seen(nginx, expected)
        harness.eventually(10, function()
            assert.same(expected, nginx:run("return require('seen')"))
        end)
    end

    it("is given headers, time and a null payload of what could not be delivered", function()
        local nginx = start_failing({
            metadata_broker_list = { "127.0.0.1:1" }, message_timeout_ms = 300,
        }, KEEP)
        nginx:run([[
            assert(kfk.log("options-cb", "k", nil, {
                headers = { { "a", "1" }, { "a", ngx.null } }, timestamp = ..., tombstone = true,
            }))
        ]], TIME)
        assert_seen(nginx, { { "k", "nil", "a=1,a=userdata: NULL", TIME } })
    end)

    it("is given them of what log() refused", function()
        local nginx = start_failing({ topics = { "options-allowed" } }, KEEP)
        local ok, err = nginx:run([[
            return kfk.log("options-refused", "k", "v", { headers = { a = 1 }, timestamp = ... })
        ]], TIME)
        assert.is_nil(ok)
        assert.matches("topic unknown", err)
        assert_seen(nginx, { { "k", "v", "a=1", TIME } })
    end)

    it("throws, and the backup has all of it", function()
        local nginx = start_failing({ topics = { "options-allowed" } }, "error('thrown')")
        nginx:run([[
            kfk.log("options-refused", "k", nil, {
                headers = { { "a", 1 } }, timestamp = ..., tombstone = true,
            })
        ]], TIME)
        harness.eventually(10, function()
            local line = nginx:backup("options-refused")[1]
            line.time = nil
            assert.same({
                topic = "options-refused", key = "k",
                extra = '{"timestamp":1767225600123,"headers":[["a","1"]]}',
            }, line)
        end)
    end)
end)


describe("options that are none are refused with a text", function()
    local nginx

    setup(function()
        nginx = start()
    end)

    local WRONG = {
        { "'x'", "options must be a table, got string" },
        { "{ header = {} }", "log() has no option header" },
        { "{ headers = 'x' }", "headers must be a table of values by names" },
        { "{ headers = { 'x' } }", "headers must be a table of values by names" },
        { "{ headers = { { 1, 'x' } } }", "the name of a header must be a string, got number" },
        { "{ headers = { a = {} } }", "header a must be a string, a number or ngx.null, got" },
        { "{ headers = { a = 0/0 } }", "header a: must not be NaN or infinite" },
        { "{ headers = { ['\\255'] = 'x' } }", "the name of a header is not UTF-8" },
        { "{ timestamp = -1 }", "timestamp must be a whole number of milliseconds" },
        { "{ timestamp = 1.5 }", "timestamp must be a whole number of milliseconds" },
        { "{ timestamp = '1' }", "timestamp must be a whole number of milliseconds" },
        { "{ tombstone = true }", "a tombstone has no payload: pass nil for it" },
    }
    for _, case in ipairs(WRONG) do
        it(case[1], function()
            local ok, err = nginx:run(("return kfk.log('options', 'k', 'v', %s)"):format(case[1]))
            assert.is_nil(ok)
            assert.matches(case[2], err, 1, true)
        end)
    end

    it("a null payload without saying so", function()
        for _, options in ipairs { "nil", "{}", "{ tombstone = false }" } do
            local ok, err = nginx:run(("return kfk.log('options', 'k', nil, %s)"):format(options))
            assert.is_nil(ok)
            assert.equal("payload must be a string, got nil", err)
        end
    end)
end)


it("headers of any size and number arrive, and the next message has none of them", function()
    local topic = kafka:topic("options-many", 1)
    start():run([[
        local topic, headers = ..., {}
        for i = 1, 300 do
            headers[i] = { ("name-%d"):format(i), ("v"):rep(i * 10) }
        end
        assert(kfk.log(topic, "many", "m", { headers = headers }))
        assert(kfk.log(topic, "none", "n", { headers = {} }))
        assert(kfk.flush(10))
    ]], topic)
    local lines = read(topic)
    local parts = {}
    for i = 1, 300 do
        parts[i] = ("name-%d=%s"):format(i, ("v"):rep(i * 10))
    end
    assert.equal(table.concat(parts, ","), lines[1]:match "^many|1:m|%d+|(.*)$")
    assert.equal("", lines[2]:match "^none|1:n|%d+|(.*)$")
end)


it("brokers before Kafka 0.11 get messages without headers, which is said and counted", function()
    local topic = kafka:topic("options-old", 1)
    local nginx = start { api_version_request = false, broker_version_fallback = "0.10.2" }
    nginx:run("assert(kfk.log(..., 'k', 'v', { headers = { a = 'b' } }))", topic)
    harness.eventually(10, function()
        assert.equal(1, nginx:stats().headers_left_out_cnt)
    end)
    harness.eventually(5, function()
        assert.matches("older than Kafka 0.11, which knows no headers", nginx:error_log(), 1, true)
    end)
end)
