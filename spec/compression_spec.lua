-- Compression: what consumers read, and what brokers store.

local harness = require "spec.harness"

local kafka = harness.kafka
local COUNT = 1000


-- A line as an access log has it.
local function line(number)
    return ('{"time":"2026-01-01T00:00:%02dZ","uri":"/items/%d","status":200,"bytes":%d}'):format(
        number % 60, number * 7919 % 1000, number * 31 % 5000)
end


local function start(conf)
    conf.queue_buffering_max_ms, conf.batch_num_messages = 100, COUNT
    return harness.nginx { producer = conf }
end


-- Logs COUNT lines, in one batch, and returns how many bytes that took on the wire.
local function log_lines(nginx, topic)
    local lines = {}
    for number = 1, COUNT do
        lines[number] = line(number)
    end
    local bytes = nginx:run([[
        local topic, lines = ...
        local before = kfk.stats().request_bytes_sent
        for number, line in ipairs(lines) do assert(kfk.log(topic, tostring(number), line)) end
        assert(kfk.flush(10))
        return kfk.stats().request_bytes_sent - before
    ]], topic, lines)
    local records = kafka:records(topic)
    assert.equal(COUNT, #records)
    for number, record in ipairs(records) do
        assert.same({ tostring(number), lines[number] }, { record.key, record.payload })
    end
    return bytes
end


describe("compression_codec", function()
    local plain

    setup(function()
        plain = log_lines(start {}, kafka:topic("codec-none", 1))
    end)

    for _, codec in ipairs { "gzip", "snappy", "lz4", "zstd" } do
        it("compresses batches with " .. codec, function()
            local topic = kafka:topic("codec-" .. codec, 1)
            local bytes = log_lines(start { compression_codec = codec }, topic)
            assert.equal(codec, kafka:codecs(topic))
            assert.is_true(bytes < plain / 2, ("%d of %d bytes"):format(bytes, plain))
        end)
    end

    it("takes the first codec of several that the broker takes", function()
        local topic = kafka:topic("codec-list", 1)
        log_lines(start { ["compression.type"] = "ZSTD,gzip" }, topic)
        assert.equal("zstd", kafka:codecs(topic))
    end)

    it("passes a codec over that a broker is too old for, and says so once", function()
        local topic = kafka:topic("codec-old", 1)
        local nginx = start {
            compression_codec = "zstd,gzip",
            api_version_request = false,
            broker_version_fallback = "1.1.1",
        }
        log_lines(nginx, topic)
        assert.equal("gzip", kafka:codecs(topic))
        harness.eventually(2, function()
            local log = nginx:error_log()
            local _, times = log:gsub("does not take zstd %(Produce v5; it needs Kafka 2%.1%)", "")
            assert.equal(1, times)
            assert.matches("compressed with gzip (compression_codec)", log, 1, true)
        end)
    end)

    it("sends a batch plain that would not become smaller", function()
        local topic = kafka:topic("codec-small", 1)
        local nginx = start { compression_codec = "lz4" }
        nginx:run("assert(kfk.log(...)); assert(kfk.flush(10))", topic, "k", "v")
        assert.equal("none", kafka:codecs(topic))
        assert.same({ "v" }, kafka:payloads(topic))
    end)

    it("makes batches larger, since batch_size counts what they are expected to take", function()
        local topic = kafka:topic("codec-large", 1)
        local nginx = harness.nginx {
            producer = {
                compression_codec = "zstd",
                batch_size = 16384,
                batch_num_messages = 100000,
                queue_buffering_max_ms = 20,
            },
        }
        local largest = nginx:run([[
            local topic, line = ...
            for round = 1, 200 do
                for number = 1, 200 do assert(kfk.log(topic, nil, number .. line)) end
                assert(kfk.flush(10))
            end
            return kfk.stats().batch_records_max
        ]], topic, line(1))
        -- 16,384 bytes hold some 160 of them as they are.
        assert.equal(200, largest)
    end)

    it("is refused when no codec has that name", function()
        local ok, err = harness.nginx():run([[
            return kfk.init { metadata_broker_list = "127.0.0.1:1", compression_codec = "brotli" }
        ]])
        assert.is_nil(ok)
        assert.matches('compression_codec: expected "none", or one or more of "gzip"', err, 1, true)
    end)
end)


it("what is compressed outlives a killed broker and a killed worker", function()
    local topic = kafka:topic("codec-kill", 1)
    local nginx = harness.nginx {
        producer = {
            compression_codec = "zstd",
            request_required_acks = -1,
            queue_buffering_max_ms = 10,
            message_timeout_ms = 60000,
        },
    }
    local function log(from, to)
        nginx:run([[
            local topic, from, to = ...
            for number = from, to do assert(kfk.log(topic, nil, ("%d "):format(number):rep(50))) end
        ]], topic, from, to)
    end
    log(1, 1000)
    kafka:kill()
    log(1001, 2000)
    nginx:kill_worker()
    kafka:start()
    harness.eventually(30, function()
        local payloads = kafka:payloads(topic)
        assert.equal(2000, #payloads)
        for number, payload in ipairs(payloads) do
            assert.equal(("%d "):format(number):rep(50), payload)
        end
    end)
    assert.equal("zstd", kafka:codecs(topic))
end)
