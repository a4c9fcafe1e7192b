-- Topics that the broker does not have: made on first use where that is allowed, else their
-- messages go to the backup until somebody makes them.

local harness = require "spec.harness"

local kafka = harness.kafka


local function log(nginx, topic, payload)
    assert.is_true(nginx:run("return kfk.log(...)", topic, nil, payload))
end


it("a topic that the broker may make works from its first message on", function()
    local nginx = harness.nginx { producer = { queue_buffering_max_ms = 5 } }
    for _, payload in ipairs { "first", "second" } do
        log(nginx, "topic-made-by-use", payload)
    end
    assert.is_true(nginx:run("return kfk.flush(10)"))
    assert.same({ "first", "second" }, kafka:payloads("topic-made-by-use"))
    assert.same({}, nginx:backup("topic-made-by-use"))
end)


-- Messages go to the backup with the reason, others are not held up, and the topic works once it is
-- there: new messages, and, in their own time, those in the backup.
local function check_unknown(broker, conf, topic)
    conf.metadata_broker_list = { broker.bootstrap }
    conf.queue_buffering_max_ms = 5
    conf.message_timeout_ms = 1500
    conf.retry_backoff_max_ms = 200
    local known = broker:topic(topic .. "-known", 1)
    local nginx = harness.nginx { producer = conf }
    log(nginx, topic, "too early")
    log(nginx, known, "at once")
    harness.eventually(5, function()
        assert.same({ "at once" }, broker:payloads(known))
    end)
    harness.eventually(5, function()
        assert.equal(1, #nginx:backup(topic))
    end)
    assert.equal("too early", nginx:backup(topic)[1].payload)
    harness.eventually(5, function()
        assert.matches("topic " .. topic .. ": topic unknown; messages go to ",
                       nginx:error_log(), 1, true)
    end)
    local line = nginx:error_log():match("[^\n]*%[warn%][^\n]*topic " .. topic:gsub("%-", "%%-")
                                         .. ": [^\n]*")
    assert.matches("UNKNOWN_TOPIC_OR_PARTITION", line, 1, true)
    assert.matches("; create it, or let the broker do so (auto.create.topics.enable", line, 1, true)

    broker:topic(topic, 1)
    log(nginx, topic, "in time")
    assert.is_true(nginx:run("return kfk.flush(10)"))
    harness.eventually(20, function()
        local arrived = broker:payloads(topic)
        table.sort(arrived)
        assert.same({ "in time", "too early" }, arrived)
        assert.same({}, nginx:backup(topic))
    end)
end


it("a topic that the broker may not make goes to the backup, until it is made", function()
    local strict = kafka:new("strict", { "auto.create.topics.enable=false" })
    check_unknown(strict, {}, "topic-strict")
end)


it("FLT-27: many topics that nobody makes take a few lines, and each is found once it is made",
   function()
    local MANY = 300
    local strict = kafka:new("strict-many", { "auto.create.topics.enable=false" })
    local nginx = harness.nginx {
        producer = {
            metadata_broker_list = { strict.bootstrap },
            queue_buffering_max_ms = 5, message_timeout_ms = 1500,
        },
    }
    nginx:run("for i = 1, ... do assert(kfk.log('many-' .. i, nil, i)) end", MANY)
    harness.eventually(20, function()
        assert.equal(MANY, nginx:stats().fail_msg_cnt)
    end)
    strict:topic("many-150", 1)
    harness.eventually(30, function()
        assert.same({ "150" }, strict:payloads("many-150"))
    end)
    -- Three kinds at most (unknown, gone to the backup, sent again), with eight names and one.
    local _, lines = nginx:error_log():gsub("topic many%-", "")
    assert.is_true(lines <= 27, lines)
end)


it("with allow_auto_create_topics = false the broker is not asked to make one", function()
    check_unknown(kafka, { allow_auto_create_topics = false }, "topic-not-asked-for")
end)


it("a topic that is deleted and made again works again", function()
    local topic = kafka:topic("topic-again", 1)
    local nginx = harness.nginx { producer = { queue_buffering_max_ms = 5 } }
    log(nginx, topic, "before")
    assert.is_true(nginx:run("return kfk.flush(10)"))
    kafka:delete_topic(topic)
    harness.eventually(5, function()
        kafka:topic(topic, 2)
    end)
    log(nginx, topic, "after")
    assert.is_true(nginx:run("return kfk.flush(10)"))
    assert.same({ "after" }, kafka:payloads(topic))
end)
