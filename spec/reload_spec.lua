-- A producer belongs to its worker: no Lua module, table or VM that is collected ends it.

local harness = require "spec.harness"

local kafka = harness.kafka

-- What some frameworks do when a file has changed.
local RELOAD = [[
    for name in pairs(package.loaded) do
        if name:find("^lkfk") then package.loaded[name] = nil end
    end
    kfk = nil
    collectgarbage()
    collectgarbage()
    kfk = require "lkfk.kfk"
]]


describe("FLT-10: a Lua module that is loaded anew", function()
    it("finds the producer running", function()
        local topic = kafka:topic("hot-reload", 1)
        local nginx = harness.nginx { producer = { queue_buffering_max_ms = 5 } }
        local log = ("assert(kfk.log(%q, nil, ...)) assert(kfk.flush(10))"):format(topic)
        for i = 1, 3 do
            nginx:run(log, i)
            nginx:run(RELOAD .. log, 10 + i)
        end
        assert.same({ "1", "11", "2", "12", "3", "13" }, kafka:payloads(topic))
        local worker = nginx:pids()[1]
        assert.equal(1, nginx:threads(worker))
        assert.equal(1, #nginx:queue_files())
        nginx:stop()
        assert.same({}, nginx:queue_files())
        -- Statistics are said once, by what init_worker_by_lua started.
        local lines = select(2, nginx:error_log():gsub("%[statistics%]", ""))
        assert.equal(1, lines)
        assert.matches("succ_msg_cnt:6", nginx:error_log(), 1, true)
    end)

    it("brings new callbacks with its init()", function()
        local nginx = harness.nginx {
            init_worker = [[
                package.loaded.init = function(word)
                    return require("lkfk.kfk").init {
                        metadata_broker_list = { "127.0.0.1:1" }, message_timeout_ms = 100,
                        queue_path = queue_path, backpath = backpath,
                        failed_cb = function(_, msg)
                            ngx.shared.kfk:set("said " .. msg.str, word)
                        end,
                    }
                end
                assert(require("init")("first"))
            ]],
        }
        local function await(payload, word)
            harness.eventually(10, function()
                assert.equal(word, nginx:run("return ngx.shared.kfk:get('said ' .. ...)", payload))
            end)
        end
        nginx:run("assert(kfk.log('t', nil, '1'))")
        await("1", "first")
        nginx:run(RELOAD .. "assert(require('init')('second'))")
        nginx:run("assert(kfk.log('t', nil, '2'))")
        await("2", "second")
    end)
end)
