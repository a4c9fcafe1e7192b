-- stats(): the values of src/stats.rs and src/report_kind.rs, and what they add up to.

local harness = require "spec.harness"

local kafka = harness.kafka


local function text_of(source)
    local file = assert(io.open(os.getenv("LKFK_ROOT") .. "/src/" .. source))
    local text = file:read("*a")
    file:close()
    return text
end


-- The name of every row of the table in src/stats.rs, and of the counter of every kind of report in
-- src/report_kind.rs.
local function rows()
    local names = {}
    local values = text_of("stats.rs"):match("\nstats! {\n(.-)\n}\n")
    for name in values:gmatch("([%w_]+): %u%l+, \"") do
        names[#names + 1] = name
    end
    local kinds = text_of("report_kind.rs"):match("\nkinds! {(\n.-)\n}\n")
    for name in kinds:gmatch("\n    %w+ = \"([%w_]+)\", %u%l+, \"") do
        names[#names + 1] = "reported_" .. name
    end
    return names
end


describe("stats()", function()
    it("is empty before init()", function()
        assert.same({}, harness.nginx():stats())
    end)

    it("has a number for each row of both tables, and nothing else", function()
        local seen = harness.nginx({ producer = {} }):stats()
        local names, expected = {}, rows()
        for name, value in pairs(seen) do
            assert.equal("number", type(value))
            assert.is_true(value >= 0)
            names[#names + 1] = name
        end
        table.sort(names)
        table.sort(expected)
        assert.is_true(#expected > 60)
        assert.same(expected, names)
    end)

    it("counts what was taken as delivered, failed or waiting", function()
        local topic = kafka:topic("stats-known", 2)
        local nginx = harness.nginx {
            producer = {
                allow_auto_create_topics = false,
                -- All of a run goes in one batch, however slow the machine: the next one waits.
                queue_buffering_max_ms = 200,
                message_timeout_ms = 500,
            },
        }
        local function balance(taken, delivered, failed, waiting)
            harness.eventually(10, function()
                local seen = nginx:stats()
                assert.same({ taken, delivered, failed, waiting }, {
                    seen.accepted_cnt, seen.succ_msg_cnt, seen.fail_msg_cnt, seen.queue_messages,
                })
            end)
        end
        local log = [[
            local topic, count = ...
            for i = 1, count do assert(kfk.log(topic, i, "payload")) end
        ]]
        balance(0, 0, 0, 0)
        assert.equal(0, nginx:stats().queue_bytes)

        nginx:run(log, topic, 70)
        balance(70, 70, 0, 0)
        assert.equal(70, #kafka:records(topic))

        nginx:run(log, "stats-unknown", 30)
        balance(100, 70, 30, 0)
        assert.equal(30, #nginx:backup("stats-unknown"))

        kafka:pause()
        nginx:run(log, topic, 11)
        balance(111, 70, 30, 11)
        local seen
        harness.eventually(5, function()
            seen = nginx:stats()
            assert.equal(11, seen.waitbuf)
        end)
        -- Space is counted by segment.
        assert.is_true(seen.queue_bytes >= 11 * 64 and seen.queue_bytes <= 512 * 1024)
        kafka:resume()
        balance(111, 81, 30, 0)
        seen = nginx:stats()
        assert.same({ 0, 0, 0, 0, 0 }, {
            seen.queue_bytes, seen.waitbuf, seen.spill_waiting, seen.rejected_cnt,
            seen.driver_restarts,
        })
    end)

    it("counts what log() refuses, apart", function()
        local nginx = harness.nginx {
            producer = { message_max_bytes = 1000, queue_buffering_max_messages = 10 },
        }
        local refused = nginx:run([[
            local refused = 0
            for _, call in ipairs {
                { "..", nil, "payload" },
                { "stats-refused", nil, ("x"):rep(1001) },
                { "stats-refused", ("k"):rep(500), ("x"):rep(501) },
            } do
                if not kfk.log(unpack(call, 1, 3)) then refused = refused + 1 end
            end
            return refused
        ]])
        assert.equal(3, refused)
        assert.same({ 3, 0 }, { nginx:stats().rejected_cnt, nginx:stats().accepted_cnt })
        kafka:pause()
        refused = nginx:run([[
            local refused = 0
            for i = 1, 25 do
                if not kfk.log("stats-refused", nil, i) then refused = refused + 1 end
            end
            return refused
        ]])
        assert.equal(15, refused)
        assert.same({ 18, 10 }, { nginx:stats().rejected_cnt, nginx:stats().accepted_cnt })
    end)

    it("counts requests and connections", function()
        local topic = kafka:topic("stats-requests", 1)
        local nginx = harness.nginx {
            producer = { metadata_broker_list = { "127.0.0.1:1", kafka.bootstrap } },
        }
        for i = 1, 3 do
            assert.is_true(nginx:run("return kfk.log(...)", topic, nil, ("x"):rep(100 * i)))
            assert.is_true(nginx:run("return kfk.flush(10)"))
        end
        local seen = nginx:stats()
        assert.same({ 3, 3, 1, 0 }, {
            seen.requests_sent, seen.batches_sent, seen.batch_records_max, seen.batches_retried,
        })
        assert.is_true(seen.request_bytes_sent > 600 and seen.request_bytes_sent < 1200)
        assert.is_true(seen.connections_opened >= 1)
        assert.is_true(seen.metadata_requests_sent >= 1)
        assert.is_true(seen.wakeups >= 3)
    end)
end)
