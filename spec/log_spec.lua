-- log(): what it takes arrives as it was given, from every phase; what it refuses goes nowhere.

local harness = require "spec.harness"

local kafka = harness.kafka
local BYTES = "a\0b\nc\r\t\\ \127\128\255 %s"
local LARGEST = 200000


-- The records that have arrived in a topic when all that was logged is delivered.
local function arrived(nginx, topic)
    assert.is_true(nginx:run("return kfk.flush(10)"))
    return kafka:records(topic)
end


describe("log()", function()
    local nginx

    setup(function()
        nginx = harness.nginx {
            producer = { queue_buffering_max_ms = 5, message_max_bytes = LARGEST },
        }
    end)

    it("brings a message to its topic with key, payload and the time of the call", function()
        local topic = kafka:topic("log-record", 1)
        local before = ngx.now() * 1000
        assert.is_true(nginx:run("return kfk.log(...)", topic, "key", "payload"))
        local records = arrived(nginx, topic)
        assert.equal(1, #records)
        assert.equal("key", records[1].key)
        assert.equal("payload", records[1].payload)
        assert.is_true(math.abs(records[1].timestamp - before) < 5000)
    end)

    it("brings any bytes in key and payload", function()
        local topic = kafka:topic("log-bytes", 1)
        assert.is_true(nginx:run("return kfk.log(...)", topic, BYTES, BYTES:reverse()))
        local records = arrived(nginx, topic)
        assert.same({ 1, BYTES, BYTES:reverse() },
                    { #records, records[1].key, records[1].payload })
    end)

    it("tells a null key from an empty one, and takes an empty payload", function()
        local topic = kafka:topic("log-empty", 1)
        nginx:run([[
            local topic = ...
            assert(kfk.log(topic, nil, "null key"))
            assert(kfk.log(topic, "", "empty key"))
            assert(kfk.log(topic, "empty payload", ""))
        ]], topic)
        local seen = {}
        for i, record in ipairs(arrived(nginx, topic)) do
            seen[i] = { record.key or "NULL", record.payload }
        end
        assert.same({ { "NULL", "null key" }, { "", "empty key" }, { "empty payload", "" } }, seen)
    end)

    it("takes numbers as their text", function()
        local topic = kafka:topic("log-number", 1)
        nginx:run([[
            local topic = ...
            assert(kfk.log(topic, 7, 12.5))
            assert(kfk.log(topic, -1, 0))
        ]], topic)
        local records = arrived(nginx, topic)
        assert.equal(2, #records)
        assert.same({ "7", "12.5" }, { records[1].key, records[1].payload })
        assert.same({ "-1", "0" }, { records[2].key, records[2].payload })
    end)

    it("takes message_max_bytes of key and payload, and not a byte more", function()
        local topic = kafka:topic("log-largest", 1)
        local answers = nginx:run([[
            local topic, largest = ...
            local answers = {}
            for _, record in ipairs {
                { nil, ("p"):rep(largest) },
                { "key", ("q"):rep(largest - 3) },
                { nil, ("x"):rep(largest + 1) },
                { "key", ("x"):rep(largest - 2) },
            } do
                answers[#answers + 1] = { kfk.log(topic, record[1], record[2]) }
            end
            return answers
        ]], topic, LARGEST)
        assert.same({ { true }, { true } }, { answers[1], answers[2] })
        for i = 3, 4 do
            assert.is_nil(answers[i][1])
            assert.matches("message too large: .*message_max_bytes", answers[i][2])
        end
        local records = arrived(nginx, topic)
        assert.equal(2, #records)
        assert.is_true(records[1].key == nil and records[1].payload == ("p"):rep(LARGEST))
        assert.is_true(records[2].key == "key" and records[2].payload == ("q"):rep(LARGEST - 3))
    end)

    it("sends a key to partition crc32(key) % count", function()
        local topic = kafka:topic("log-partition", 4)
        nginx:run([[
            local topic = ...
            for i = 1, 100 do assert(kfk.log(topic, "key " .. i, "payload")) end
        ]], topic)
        local records, used = arrived(nginx, topic), {}
        assert.equal(100, #records)
        for _, record in ipairs(records) do
            assert.equal(ngx.crc32_long(record.key) % 4, record.partition)
            used[record.partition] = true
        end
        assert.same({ [0] = true, true, true, true }, used)
    end)

    it("spreads messages without a key over the partitions, batch by batch", function()
        local topic = kafka:topic("log-spread", 4)
        nginx:run([[
            local topic = ...
            for i = 1, 20 do
                assert(kfk.log(topic, nil, i))
                assert(kfk.flush(10))
            end
        ]], topic)
        local records, used = arrived(nginx, topic), {}
        for _, record in ipairs(records) do
            used[record.partition] = true
        end
        assert.equal(20, #records)
        assert.is_truthy(next(used, next(used)), "all went to one partition")
    end)

    it("keeps the order of a partition", function()
        local topic = kafka:topic("log-order", 1)
        nginx:run([[
            local topic = ...
            for i = 1, 5000 do assert(kfk.log(topic, i % 7 == 0 and "key" or nil, i)) end
        ]], topic)
        local records = arrived(nginx, topic)
        assert.equal(5000, #records)
        for i, record in ipairs(records) do
            if record.payload ~= tostring(i) then
                assert.equal(i, record.payload)
            end
        end
    end)

    it("serves many topics at once", function()
        nginx:run([[
            for i = 1, 500 do assert(kfk.log("log-many-" .. i % 10, "key", i)) end
        ]])
        assert.is_true(nginx:run("return kfk.flush(20)"))
        for i = 0, 9 do
            local records, seen = kafka:records("log-many-" .. i), {}
            for at, record in ipairs(records) do
                seen[at] = tonumber(record.payload)
            end
            local expected = {}
            for payload = i == 0 and 10 or i, 500, 10 do
                expected[#expected + 1] = payload
            end
            assert.same(expected, seen)
        end
    end)
end)


it("log() with send_key = false keeps the partitions and sends no keys", function()
    local topic = kafka:topic("log-keyless", 4)
    local nginx = harness.nginx {
        producer = { queue_buffering_max_ms = 5, send_key = false },
    }
    nginx:run([[
        local topic = ...
        for i = 1, 50 do assert(kfk.log(topic, "key " .. i, "key " .. i)) end
    ]], topic)
    local records = arrived(nginx, topic)
    assert.equal(50, #records)
    for _, record in ipairs(records) do
        assert.is_nil(record.key)
        assert.equal(ngx.crc32_long(record.payload) % 4, record.partition)
    end
end)


it("log() works in every phase", function()
    local topic = kafka:topic("log-phases", 1)
    local log = ('assert(require("lkfk.kfk").log(%q, nil, ngx.get_phase()))'):format(topic)
    local nginx = harness.nginx {
        producer = { queue_buffering_max_ms = 5 },
        init_worker = log .. (" assert(ngx.timer.at(0, function() %s end))"):format(log),
        http = [[
            upstream origin {
                server 0.0.0.1;
                balancer_by_lua_block {
                    local ok, err = require("ngx.balancer").set_current_peer(
                        "127.0.0.1", ngx.var.server_port)
                    assert(ok, err)
                    ]] .. log .. [[
                }
            }
        ]],
        locations = {
            ["/phases"] = {
                conf = "proxy_pass http://origin/origin; set_by_lua_block $set { " .. log
                       .. " return '' }",
                rewrite = log,
                access = log,
                header_filter = log,
                body_filter = "if ngx.arg[2] then " .. log .. " end",
                log = log,
            },
            ["/origin"] = log .. " ngx.print('here')",
        },
    }
    assert.same({ 200, "here" }, { nginx:get("/phases") })
    local phases = {}
    harness.eventually(5, function()
        phases = {}
        for _, record in ipairs(kafka:records(topic)) do
            phases[#phases + 1] = record.payload
        end
        return #phases >= 10
    end)
    table.sort(phases)
    assert.same({
        "access", "balancer", "body_filter", "content", "header_filter", "init_worker", "log",
        "rewrite", "set", "timer",
    }, phases)
    assert.is_nil(nginx:error_log():match("%[error%][^\n]*"))
end)


describe("log() answers nil and an error, never throws, for", function()
    local topic, nginx

    setup(function()
        topic = kafka:topic("log-misuse", 1)
        nginx = harness.nginx { producer = { queue_buffering_max_ms = 5 } }
    end)

    local calls = {
        { "no arguments", "", "topic must be a string, got nil" },
        { "a topic that is nil", "nil, 'k', 'p'", "topic must be a string, got nil" },
        { "a topic that is a number", "5, 'k', 'p'", "topic must be a string, got number" },
        { "a topic that is a table", "{}, 'k', 'p'", "topic must be a string, got table" },
        { "a topic that is NaN", "0/0, 'k', 'p'", "topic must be a string, got number" },
        { "an empty topic", "'', 'k', 'p'", "not a valid topic name" },
        { "a topic that is ..", "'..', 'k', 'p'", "not a valid topic name" },
        { "a topic with a slash", "'a/b', 'k', 'p'", "not a valid topic name" },
        { "a topic with a NUL", "'a\\0b', 'k', 'p'", "not a valid topic name" },
        { "a topic that is not UTF-8", "'\\255', 'k', 'p'", "not a valid topic name" },
        { "a topic of 250 characters", "('x'):rep(250), 'k', 'p'", "not a valid topic name" },
        { "no payload", "topic, 'k'", "payload must be a string, got nil" },
        { "a payload that is a table", "topic, 'k', {}", "payload must be a string, got table" },
        { "a payload that is a boolean", "topic, 'k', true",
          "payload must be a string, got boolean" },
        { "a payload that is ngx.null", "topic, 'k', ngx.null",
          "payload must be a string, got userdata" },
        { "a payload that is cdata", "topic, 'k', 1LL", "payload must be a string, got cdata" },
        { "a key that is a table", "topic, {}, 'p'", "key must be a string or nil, got table" },
        { "a key that is a boolean", "topic, false, 'p'",
          "key must be a string or nil, got boolean" },
        { "a key that is ngx.null", "topic, ngx.null, 'p'",
          "key must be a string or nil, got userdata" },
        { "a payload of 100 MB", "topic, 'k', ('x'):rep(100 * 1024 * 1024)",
          "message too large" },
        { "a key of 100 MB", "topic, ('x'):rep(100 * 1024 * 1024), 'p'", "message too large" },
    }
    local function attempt(arguments)
        local code = "local topic = ... return pcall(function() return kfk.log(%s) end)"
        return nginx:run(code:format(arguments), topic)
    end

    for _, call in ipairs(calls) do
        local name, arguments, expected = unpack(call)
        it(name, function()
            local returned, ok, err = attempt(arguments)
            assert.is_true(returned)
            assert.is_nil(ok)
            assert.matches(expected, err, 1, true)
        end)
    end

    it("any of that in between, which leaves no trace in Kafka", function()
        for i, call in ipairs(calls) do
            attempt(call[2])
            assert.is_true(nginx:run("return kfk.log(...)", topic, nil, i))
        end
        local records = arrived(nginx, topic)
        assert.equal(#calls, #records)
        for i, record in ipairs(records) do
            assert.is_nil(record.key)
            assert.equal(tostring(i), record.payload)
        end
    end)
end)


it("log() before init() says what is missing", function()
    local nginx = harness.nginx()
    local ok, err = nginx:run("return kfk.log('log-early', 'k', 'p')")
    assert.is_nil(ok)
    assert.matches("not running: call init() in init_worker_by_lua", err, 1, true)
end)


it("log() refuses a topic that is not in topics, and asks no broker for it", function()
    local topic = kafka:topic("log-allowed", 1)
    local nginx = harness.nginx {
        producer = { queue_buffering_max_ms = 5, topics = { topic } },
    }
    for _ = 1, 2 do
        local ok, err = nginx:run("return kfk.log('log-other', 'k', 'refused')")
        assert.is_nil(ok)
        assert.matches("topic unknown", err, 1, true)
    end
    assert.is_true(nginx:run("return kfk.log(...)", topic, nil, "allowed"))
    local records = arrived(nginx, topic)
    assert.same({ 1, "allowed" }, { #records, records[1].payload })
    local _, listing = harness.run { "kcat", "-L", "-b", kafka.bootstrap }
    assert.matches('topic "log-allowed"', listing, 1, true)
    assert.not_matches('topic "log-other"', listing, 1, true)
end)
