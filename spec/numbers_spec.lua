-- Numbers as keys and payloads: each arrives with all of its digits, or is refused.

local harness = require "spec.harness"

local kafka = harness.kafka


describe("numbers", function()
    local nginx

    setup(function()
        kafka:topic("numbers-log", 1)
        kafka:topic("numbers-refused", 1)
        nginx = harness.nginx {
            init = [[
                package.loaded["lkfk.conf"] = { default_conf = {
                    failed_cb = function(kfk, msg)
                        local number = tonumber(msg.str)
                        local ok, err = kfk.fp[msg.topic]:write(number, "\n")
                        ngx.shared.kfk:set("written", tostring(ok ~= nil) .. " " .. tostring(err))
                        -- What a callback does to its message is nobody else's affair.
                        msg.key, msg.str = 2251799842149407, {}
                        if number ~= number then error("on purpose") end
                    end,
                } }
            ]],
            producer = {
                queue_buffering_max_ms = 5, topics = { "numbers-log", "numbers-refused" },
                replay = false,
            },
        }
    end)

    it("FLT-24: log() keeps all digits, in the shortest form that reads back", function()
        -- A number's own text is its key: a literal would be read by another Lua.
        local expected = {
            { "2251799842149407", "2251799842149408" },
            { "9007199254740992", "-9007199254740992" },
            { "100000000000000", "1000000000000000" },
            { "0.1", "12.5" },
            { "0.30000000000000004", "0.3333333333333333" },
            { "2.2250738585072014e-308", "-1.5e-07" },
            { "0", "-1" },
        }
        nginx:run([[
            for _, pair in ipairs(...) do
                assert(kfk.log("numbers-log", tonumber(pair[1]), tonumber(pair[2])))
            end
            assert(kfk.log("numbers-log", -0.0, 2 ^ 31))
            assert(kfk.flush(10))
        ]], expected)
        expected[#expected + 1] = { "0", "2147483648" }
        local seen = {}
        for i, record in ipairs(kafka:records("numbers-log")) do
            seen[i] = { record.key, record.payload }
        end
        assert.same(expected, seen)
    end)

    it("FLT-24: log() refuses what has no digits or too many", function()
        local answers = nginx:run([[
            local answers = {}
            for i, number in ipairs { 0 / 0, 1 / 0, -1 / 0, 2 ^ 53 + 2, -2 ^ 60, 1e300 } do
                local ok, err = kfk.log("numbers-refused", nil, number)
                answers[i] = tostring(ok) .. " " .. tostring(err)
                ok, err = kfk.log("numbers-refused", number, "payload")
                answers[i] = answers[i] .. "|" .. tostring(ok) .. " " .. tostring(err)
            end
            assert(kfk.flush(10))
            return answers
        ]])
        local none = "must not be NaN or infinite"
        local large = "integers beyond 2^53 have lost digits already: pass them as strings"
        for i, answer in ipairs(answers) do
            local why = i <= 3 and none or large
            local of_payload, of_key = answer:match("^nil payload: (.*)|nil key: (.*)$")
            assert.matches(why, of_payload or answer, 1, true)
            assert.matches(why, of_key, 1, true)
        end
        assert.equal(6, #answers)
        assert.equal(0, #kafka:records("numbers-refused"))
    end)

    it("FLT-24: kfk.fp[topic]:write() does the same", function()
        assert.is_nil(nginx:run("return kfk.log('numbers-write', nil, '2251799842149407')"))
        local path = nginx.backpath .. "/numbers-write"
        harness.eventually(5, function()
            local file = assert(io.open(path))
            assert.equal("2251799842149407\n", file:read("*a"))
            file:close()
        end)
        assert.is_nil(nginx:run("return kfk.log('numbers-nan', 'key', 'nan')"))
        harness.eventually(5, function()
            assert.matches("^false .*NaN", nginx:run("return ngx.shared.kfk:get('written')"))
        end)
    end)

    it("FLT-24: a message that failed_cb changed and did not handle is backed up as logged",
       function()
        assert.is_nil(nginx:run("return kfk.log('numbers-changed', 'key', 'nan')"))
        harness.eventually(5, function()
            local lines = nginx:backup("numbers-changed")
            assert.same({ 1, "key", "nan" }, { #lines, lines[1].key, lines[1].payload })
        end)
    end)
end)


it("FLT-24: a partitioner's number is shown with all of its digits", function()
    local topic = kafka:topic("numbers-partition", 2)
    local nginx = harness.nginx {
        init = [[package.loaded["lkfk.conf"] = { default_conf = {
            partitioner = function() return 1 + 2 ^ -52 end,
        } }]],
        producer = { queue_buffering_max_ms = 5 },
    }
    nginx:run("assert(kfk.log(..., nil, 'payload')) assert(kfk.flush(10))", topic)
    harness.eventually(5, function()
        assert.matches("partitioner: returned 1.0000000000000002 for 2 partitions",
                       nginx:error_log(), 1, true)
    end)
end)
