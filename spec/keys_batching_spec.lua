-- The keys of ngx_lua_lkfk's README that say how messages are gathered, and for which partition.
-- Each is tried with two values, which must not do the same.

local harness = require "spec.harness"

local kafka = harness.kafka
-- Long enough never to be over within a test.
local LONG = 100000


local function start(conf, functions)
    conf.message_timeout_ms = conf.message_timeout_ms or 2 * LONG
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
    nginx:run([[
        local topic, first, last = ...
        for i = first, last do assert(kfk.log(topic, "key " .. i, i)) end
    ]], topic, first, last)
end


-- Key -> partition, for all records of a topic.
local function partitions(topic)
    local found = {}
    for _, record in ipairs(kafka:records(topic)) do
        found[record.key] = record.partition
    end
    return found
end


it("partitioner", function()
    local theirs, ours = kafka:topic("keys-partitioner", 4), kafka:topic("keys-partitioner-own", 4)
    local nginx = start({})
    log(nginx, theirs, 1, 20)
    assert.is_true(nginx:run("return kfk.flush(10)"))
    local expected = {}
    for i = 1, 20 do
        local key = "key " .. i
        expected[key] = ngx.crc32_long(key) % 4
    end
    assert.same(expected, partitions(theirs))

    nginx = start({}, [[partitioner = function(key, count)
        return (tonumber(key:match("%d+")) + count) % 3
    end]])
    log(nginx, ours, 1, 20)
    assert.is_true(nginx:run("return kfk.flush(10)"))
    for i = 1, 20 do
        expected["key " .. i] = (i + 4) % 3
    end
    assert.same(expected, partitions(ours))
end)


it("queue_buffering_max_ms", function()
    local topic = kafka:topic("keys-linger", 1)
    local short = start { queue_buffering_max_ms = 50 }
    local long = start { queue_buffering_max_ms = LONG }
    log(short, topic, 1, 3)
    log(long, topic, 4, 6)
    harness.eventually(10, function()
        assert.equal(3, short:stats().succ_msg_cnt)
    end)
    ngx.sleep(1)
    local seen = long:stats()
    assert.same({ 0, 3 }, { seen.succ_msg_cnt, seen.queue_messages })
    assert.equal(3, #kafka:records(topic))
    assert.is_true(long:run("return kfk.flush(10)"))
    assert.equal(6, #kafka:records(topic))
end)


it("queue_buffering_max_messages", function()
    local callback = [[failed_cb = function(_, msg)
        table.insert(require("seen"), { msg.topic, msg.key, msg.str, msg.err })
    end]]
    -- Numbers of the messages that are refused of 25, and why.
    local fill = [[
        local refused, why = {}
        for i = 1, 25 do
            local ok, err = kfk.log("keys-full", "key", i)
            if not ok then refused[#refused + 1], why = i, err end
        end
        return refused, why
    ]]
    -- A broker that is there and does not answer: nothing moves to make room.
    local conf = { metadata_broker_list = { kafka.bootstrap }, queue_buffering_max_messages = 20 }
    kafka:pause()
    local nginx = start(conf, callback)
    local refused, why = nginx:run(fill)
    assert.same({ 21, 22, 23, 24, 25 }, refused)
    assert.matches("^queue full", why)
    harness.eventually(5, function()
        local seen = nginx:run("return require('seen')")
        assert.equal(5, #seen)
        assert.same({ "keys-full", "key", "21", "nobufs" }, seen[1])
    end)

    conf.queue_buffering_max_messages = 25
    assert.same({}, (start(conf):run(fill)))
end)


it("batch_num_messages", function()
    local topic = kafka:topic("keys-batch", 1)
    local few = start { queue_buffering_max_ms = LONG, batch_num_messages = 7 }
    local many = start { queue_buffering_max_ms = LONG }
    log(few, topic, 1, 16)
    log(many, topic, 17, 32)
    harness.eventually(10, function()
        local seen = few:stats()
        assert.same({ 14, 2, 7 }, { seen.succ_msg_cnt, seen.batches_sent, seen.batch_records_max })
    end)
    ngx.sleep(0.5)
    assert.equal(0, many:stats().batches_sent)
    assert.is_true(many:run("return kfk.flush(10)"))
    assert.same({ 1, 16 }, { many:stats().batches_sent, many:stats().batch_records_max })
end)
