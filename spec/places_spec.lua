-- Where lkfk finds itself: in phases and processes that nginx may have, with an error log of any
-- level, as a user without rights, in a directory that does not stay.

local ffi = require "ffi"
local harness = require "spec.harness"
local process = require "spec.harness.process"

local kafka = harness.kafka

pcall(ffi.cdef, "unsigned int getuid(void);")

local UID = tonumber(ffi.C.getuid())
local DEAD = { "127.0.0.1:1" }
local LONG = 100000


-- change(path, from, to): replaces text that stands there once.
local function change(path, from, to)
    local text, count = process.read(path):gsub(from, to)
    assert.equal(1, count, from)
    process.write(path, text)
end


describe("flush()", function()
    local topic, nginx

    setup(function()
        topic = kafka:topic("places-flush", 1)
        nginx = harness.nginx { producer = { queue_buffering_max_ms = LONG } }
    end)

    it("FLT-19: waits in any phase that may yield, also in one of a later nginx", function()
        local answer = nginx:run([[
            local get_phase = ngx.get_phase
            ngx.get_phase = function() return "precontent" end
            package.loaded["lkfk.producer"] = nil
            local later = require("lkfk.producer").new("")
            assert(later.log(..., nil, "payload"))
            local answer = { later.flush(10) }
            ngx.get_phase = get_phase
            return answer
        ]], topic)
        assert.same({ true }, answer)
        assert.equal(1, #kafka:records(topic))
    end)

    it("FLT-19: says that it cannot wait below a C function, and leaves nothing behind", function()
        local answer = nginx:run([[
            assert(kfk.log(..., nil, "payload"))
            local answer
            table.sort({ 1, 2 }, function(a, b)
                answer = answer or { pcall(kfk.flush, 10) }
                return a < b
            end)
            -- What would be left behind is a timer.
            ngx.sleep(0.1)
            return answer
        ]], topic)
        assert.same({ true, nil, "flush() cannot wait in the phase content" }, answer)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.equal("pong", nginx:run("return 'pong'"))
    end)
end)


for level, shown in pairs { error = { false, false }, warn = { true, false },
                            notice = { true, true } } do
    it("FLT-19: lines at exit go by the level of the error log: " .. level, function()
        local nginx = harness.nginx {
            producer = {
                metadata_broker_list = DEAD, exit_timeout_ms = 50, message_timeout_ms = LONG,
            },
        }
        local command = nginx:command()
        change(nginx.prefix .. "/nginx.conf", "(error_log [^;]* )info;", "%1" .. level .. ";")
        harness.start(command)
        nginx:await_master()
        nginx:run("for i = 1, 10 do assert(kfk.log('places-exit', nil, i)) end")
        local before = #nginx:error_log()
        nginx:quit()
        local log = nginx:error_log():sub(before + 1)
        local has_warn, has_notice = log:find("[warn]", 1, true), log:find("[notice]", 1, true)
        assert.same(shown, { has_warn ~= nil, has_notice ~= nil })
        assert.equal(shown[1], log:find("[kafka] [statistics]", 1, true) ~= nil)
        assert.equal(10, #nginx:backup("places-exit"))
    end)
end


it("FLT-19: require in ngx.run_worker_thread() says why there is no lkfk", function()
    local dir = os.getenv("LKFK_STAGE") .. "/places-thread"
    process.must { "mkdir", "-p", dir }
    process.write(dir .. "/places_thread.lua", [[
        return { attempt = function()
            local ok, err = pcall(require, "lkfk.kfk")
            return ok, tostring(err)
        end }
    ]])
    local nginx = harness.nginx {
        main = "thread_pool places threads=1;",
        lua_path = dir .. "/?.lua",
    }
    local ran, ok, err = nginx:run([[
        return ngx.run_worker_thread("places", "places_thread", "attempt")
    ]])
    assert.is_true(ran, tostring(ok))
    assert.is_false(ok)
    assert.matches("lkfk runs on the event loop of nginx's workers, and neither in "
                   .. "ngx.run_worker_thread()", err, 1, true)
end)


describe("without init()", function()
    it("FLT-18: log() and flush() repeat why init() failed, also in another VM", function()
        local nginx = harness.nginx {
            http = "lua_code_cache off;",
            init_worker = "require('lkfk.kfk').init { metadata_broker_list = {} }",
        }
        local failed = "not running: init() failed: metadata_broker_list is empty"
        for _, call in ipairs { "log('places', nil, 'payload')", "flush()" } do
            local ok, err = nginx:run("return kfk." .. call)
            assert.is_nil(ok)
            assert.matches(failed, err, 1, true)
        end
    end)

    it("FLT-18: log() says so when init() was called in init_by_lua alone", function()
        local nginx = harness.nginx {
            init = "require('lkfk.kfk').init { metadata_broker_list = { '127.0.0.1:1' } }",
        }
        local _, err = nginx:run("return kfk.log('places', nil, 'payload')")
        assert.matches("not running: init() failed: init() must be called in init_worker_by_lua",
                       err, 1, true)
    end)

    it("FLT-18: what failed once is forgotten when init() succeeds", function()
        local nginx = harness.nginx()
        local answer = nginx:run([[
            assert(not kfk.init { metadata_broker_list = {} })
            local conf = ...
            assert(kfk.init(conf))
            return { kfk.log("places", nil, "payload") }
        ]], {
            metadata_broker_list = DEAD, queue_path = nginx.queue_path, backpath = nginx.backpath,
            exit_timeout_ms = 50,
        })
        assert.same({ true }, answer)
    end)
end)


it("FLT-18: where backpath cannot be made init() prints the command that helps", function()
    local nginx = harness.nginx {
        init_worker = [[
            local ok, err = require("lkfk.kfk").init {
                metadata_broker_list = { "127.0.0.1:1" }, queue_path = queue_path,
                backpath = ngx.config.prefix() .. "places dir/backup", exit_timeout_ms = 50,
            }
            ngx.log(ngx.NOTICE, "init: ", tostring(ok), " ", tostring(err), "\n")
        ]],
    }
    local command = nginx:command()
    local parent = nginx.prefix .. "/places dir"
    process.must { "rm", "-rf", parent }
    process.must { "mkdir", parent }
    local user = process.must({ "id", "-un", UID == 0 and "nobody" or tostring(UID) }):match("%S+")
    if UID == 0 then
        local group = process.must({ "id", "-gn", "nobody" }):match("%S+")
        change(nginx.prefix .. "/nginx.conf", "user [^;]*;", "user nobody " .. group .. ";")
        process.must { "chown", "nobody", nginx.queue_path }
    else
        process.must { "chmod", "500", parent }
    end
    harness.start(command)
    nginx:await_master()
    local install
    harness.eventually(5, function()
        install = nginx:error_log():match("backpath: " .. user .. " cannot make [^\n]*: Permission "
                                          .. "denied[^;\n]*; as root, run: ([^\n,]*)")
        assert.is_truthy(install)
    end)
    assert.equal(("install -d -m 700 -o %s '%s/backup'"):format(user, parent), install)
    if UID ~= 0 then
        process.must { "chmod", "700", parent }
    end
    process.must { "sh", "-c", install }
    nginx:reload()
    harness.eventually(5, function()
        assert.matches("init: true nil", nginx:error_log(), 1, true)
    end)
    nginx:quit()
end)


describe("in a directory that does not stay", function()
    local INIT = [[
        local prefix, conf = ...
        local before = ngx.config.prefix
        ngx.config.prefix = function() return prefix end
        local ok, err = kfk.init(conf)
        if ok then ok, err = kfk.init(conf) end
        ngx.config.prefix = before
        return ok, err
    ]]

    local function warnings(prefix, conf)
        local nginx = harness.nginx()
        conf.metadata_broker_list = DEAD
        conf.queue_path = nginx.queue_path
        conf.exit_timeout_ms = 50
        conf.backpath = conf.backpath and nginx.backpath
        local ok, err = nginx:run(INIT, prefix, conf)
        assert.equal(true, ok, err)
        local lines = {}
        for line in nginx:error_log():gmatch("%[warn%] ([^\n]*is temporary[^\n]*)") do
            lines[#lines + 1] = line
        end
        return lines
    end

    for _, prefix in ipairs { "/tmp/resty_AbC_0123xY/", "/var/tmp/lkfk-places/" } do
        it("FLT-08: one line names backpath and instance: " .. prefix, function()
            local lines = warnings(prefix, {})
            process.run { "rm", "-rf", prefix }
            assert.equal(1, #lines)
            for _, part in ipairs { prefix, "set backpath", "set instance" } do
                assert.matches(part, lines[1], 1, true)
            end
        end)
    end

    it("FLT-08: what is set already is not asked for", function()
        local lines = warnings("/srv/x/resty_AbC_0123xY/", { backpath = true })
        assert.equal(1, #lines)
        assert.not_matches("set backpath", lines[1], 1, true)
        assert.matches("set instance", lines[1], 1, true)
        assert.same({}, warnings("/tmp/x/", { backpath = true, instance = "jobs" }))
    end)

    it("FLT-08: nothing is said of one that stays", function()
        assert.same({}, warnings("/srv/places/", { backpath = true }))
    end)
end)
