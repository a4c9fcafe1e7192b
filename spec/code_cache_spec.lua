-- lua_code_cache off: each request is a new Lua VM, and the producer outlives them all. It outlives
-- the module, too, where that is loaded anew in a living VM.

local harness = require "spec.harness"

local kafka = harness.kafka
local REQUESTS = 200


-- Makes the requests and checks what they leave: one producer, and all their messages.
local function check(nginx, topic)
    for i = 1, REQUESTS do
        assert.same({ 200, "true" }, { nginx:get("/?i=" .. i) })
    end
    local workers = nginx:pids()
    assert.equal(1, #workers)
    assert.equal(1, nginx:threads(workers[1]))
    assert.equal(1, #nginx:queue_files())

    assert.is_true(nginx:run("return kfk.flush(10)"))
    local payloads, expected = {}, {}
    for i, record in ipairs(kafka:records(topic)) do
        payloads[i] = tonumber(record.payload)
        expected[i] = i
    end
    assert.equal(REQUESTS, #payloads)
    assert.same(expected, payloads)

    nginx:stop()
    assert.same({}, nginx:queue_files())
    assert.is_nil(nginx:error_log():match("[^\n]*exited on signal[^\n]*"))
    assert.is_nil(nginx:error_log():match("[^\n]*%[error%][^\n]*"))
end


describe("with lua_code_cache off", function()
    it("every request logs to the producer that init_worker started", function()
        local topic = kafka:topic("cache-off", 1)
        local nginx = harness.nginx {
            http = "lua_code_cache off;",
            producer = { queue_buffering_max_ms = 5 },
            locations = {
                ["/"] = ([[
                    ngx.print(require("lkfk.kfk").log(%q, nil, ngx.var.arg_i))
                ]]):format(topic),
            },
        }
        check(nginx, topic)
    end)

    it("requests may call init() themselves, and leave nothing behind for it", function()
        local topic = kafka:topic("cache-off-init", 1)
        local nginx = harness.nginx {
            http = "lua_code_cache off; lua_max_pending_timers 50; lua_max_running_timers 50;",
            locations = {
                ["/"] = ([[
                    local kfk = require "lkfk.kfk"
                    local ok, err = kfk.init {
                        metadata_broker_list = { %q }, queue_path = queue_path, backpath = backpath,
                        queue_buffering_max_ms = 5,
                    }
                    if ok then ok, err = kfk.log(%q, nil, ngx.var.arg_i) end
                    ngx.print(ok or err)
                ]]):format(kafka.bootstrap, topic),
            },
        }
        check(nginx, topic)
    end)
end)


-- As some frameworks do after a change of the code.
local LOAD_ANEW = [[
    for name in pairs(package.loaded) do
        if name:find("^lkfk") then package.loaded[name] = nil end
    end
    kfk = require "lkfk.kfk"
    for _ = 1, 3 do collectgarbage() end
    %s
    return kfk.log(..., nil, 2)
]]


local INIT = "assert(kfk.init(require('spec_conf')))"


for init, name in pairs { [""] = "", [INIT] = ", and init() called again" } do
    it("FLT-10: the producer goes on when the module is loaded anew" .. name, function()
        local topic = kafka:topic("cache-anew" .. #name, 1)
        local nginx = harness.nginx {
            init = ([[
                package.loaded.spec_conf = {
                    metadata_broker_list = { %q }, queue_path = queue_path, backpath = backpath,
                    queue_buffering_max_ms = 5, message_timeout_ms = 60000,
                    exit_timeout_ms = 20000, -- longer than a request to nginx may take
                }
            ]]):format(kafka.bootstrap),
            init_worker = "assert(require('lkfk.kfk').init(require('spec_conf')))",
        }
        -- There is something to wait for.
        kafka:pause()
        assert.is_true(nginx:run("return kfk.log(..., nil, 1)", topic))
        assert.is_true(nginx:run(LOAD_ANEW:format(init), topic))
        kafka:resume()
        assert.is_true(nginx:run("return kfk.flush(9)"))
        assert.same({ "1", "2" }, kafka:payloads(topic))
        nginx:stop()
        assert.same({}, nginx:queue_files())
        assert.is_nil(nginx:error_log():match("[^\n]*%[error%][^\n]*"))
    end)
end
