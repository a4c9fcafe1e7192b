-- The bell: how the driver thread wakes Lua, and what happens where it cannot.

local lfs = require "lfs"
local harness = require "spec.harness"
local process = require "spec.harness.process"

local kafka = harness.kafka
local DEAD = { "127.0.0.1:1" }
local ROUNDS = 21

-- A callback that leaves the time when it ran.
local TIMED = [[package.loaded["lkfk.conf"] = { default_conf = {
    failed_cb = function() ngx.update_time() require("seen").at = ngx.now() end,
} }
package.loaded.seen = {}
]]

-- Logs what the broker refuses -> milliseconds until failed_cb ran.
local FAIL = [[
    local seen = require "seen"
    seen.at = nil
    ngx.update_time()
    local began = ngx.now()
    assert(kfk.log(..., nil, ("x"):rep(1000)))
    repeat ngx.sleep(0.001) until seen.at
    return (seen.at - began) * 1000
]]

-- lua_socket_log_errors is on; sockets to the bell fail until ngx.shared.kfk has "bell".
local NO_SOCKET = [[
    local tcp = ngx.socket.tcp
    ngx.socket.tcp = function()
        local socket = tcp()
        if ngx.shared.kfk:get("bell") then
            return socket
        end
        return { settimeouts = function() end, connect = function() return nil, "no" end }
    end
]]


local function start(topic, options)
    options.init = (options.init or "") .. TIMED
    options.producer = { topics = { topic }, queue_buffering_max_ms = 0 }
    for key, value in pairs(options.conf or {}) do
        options.producer[key] = value
    end
    local nginx = harness.nginx(options)
    nginx:run(FAIL, topic)
    return nginx
end


local function topic_of_small_messages(name)
    return kafka:topic(name, 1, { ["max.message.bytes"] = 500 })
end


-- Times of some failures, in milliseconds, sorted. They are printed, for whoever wonders.
local function times(nginx, topic)
    local all = {}
    for i = 1, ROUNDS do
        all[i] = nginx:run(FAIL, topic)
    end
    table.sort(all)
    io.stdout:write(("        log() to failed_cb: median %d ms, longest %d ms\n"):format(
          all[math.ceil(ROUNDS / 2)], all[ROUNDS]))
    return all
end


local function bells(parent)
    local found = {}
    for dir in lfs.dir(parent) do
        if dir:find("^lkfk%-") then
            for name in lfs.dir(parent .. "/" .. dir) do
                if name:find("^%.bell") then
                    found[#found + 1] = name
                end
            end
        end
    end
    return found
end


-- How often nginx's thread of a worker has gone to sleep by itself so far.
local function sleeps(pid)
    local status = process.read("/proc/" .. pid .. "/status")
    return tonumber(status:match("\nvoluntary_ctxt_switches:%s*(%d+)"))
end


describe("the bell", function()
    it("calls failed_cb at once, and holds up neither a reload nor a stop", function()
        local topic = topic_of_small_messages("bell")
        local nginx = start(topic, {})
        times(nginx, topic)
        assert.equal(1, #bells(nginx.queue_path))
        nginx:reload()
        harness.eventually(5, function()
            local _, leaving = nginx:pids()
            assert.same({}, leaving)
        end)
        nginx:run(FAIL, topic)
        assert.equal(1, #bells(nginx.queue_path))
        nginx:stop(5)
        assert.same({}, bells(nginx.queue_path))
        local log = nginx:error_log()
        assert.is_nil(log:find("open socket", 1, true))
        assert.is_nil(log:match("[^\n]*%[error%][^\n]*"))
        assert.is_nil(log:match("[^\n]*%[alert%][^\n]*"))
    end)

    it("of a killed worker is taken away by its successor", function()
        local nginx = harness.nginx { producer = { metadata_broker_list = DEAD } }
        local function has_one()
            assert.equal(1, #bells(nginx.queue_path))
        end
        harness.eventually(5, has_one)
        local first = bells(nginx.queue_path)[1]
        nginx:kill_worker()
        harness.eventually(5, function()
            has_one()
            assert.not_equal(first, bells(nginx.queue_path)[1])
        end)
        nginx:signal("TERM")
        harness.eventually(5, function()
            assert.same({}, bells(nginx.queue_path))
        end)
    end)

    it("brings the log lines of a VM that goes with its request", function()
        local nginx = harness.nginx {
            http = "lua_code_cache off;",
            producer = { metadata_broker_list = DEAD, kfk_status = false },
        }
        nginx:run("assert(kfk.log('t', nil, 1))")
        harness.eventually(5, function()
            assert.matches("broker 127.0.0.1:1: cannot connect", nginx:error_log(), 1, true)
        end)
        nginx:stop(5)
        assert.equal(1, #nginx:backup("t"))
    end)

    it("lets nginx's thread sleep while there is nothing to say", function()
        local topic = topic_of_small_messages("bell-idle")
        local nginx = start(topic, { conf = { kfk_status = false } })
        -- OpenResty's workers wake once a second by themselves, and may be a second apart.
        local bare = harness.nginx()
        local function sleeps_in(seconds)
            local own, others = sleeps(nginx:pids()[1]), sleeps(bare:pids()[1])
            ngx.sleep(seconds)
            own, others = sleeps(nginx:pids()[1]) - own, sleeps(bare:pids()[1]) - others
            return own - others - (others > 0 and 1 or 0)
        end
        -- Connections close and the broker's answers come until then.
        harness.eventually(10, function()
            assert.is_true(sleeps_in(1) <= 0)
        end)
        assert.is_true(sleeps_in(3) <= 0)
        nginx:run(FAIL, topic)
    end)
end)


describe("without the bell", function()
    it("callbacks run all the same, and it is heard once it can be", function()
        local topic = topic_of_small_messages("bell-none")
        local nginx = start(topic, { init = NO_SOCKET })
        times(nginx, topic)
        nginx:run("ngx.shared.kfk:set('bell', true)")
        harness.eventually(10, function()
            local text = nginx:run([[
                local unix = assert(io.open("/proc/net/unix"))
                local all = unix:read("*a")
                unix:close()
                return all
            ]])
            -- The socket that listens, and the driver's end of a connection, have the same path.
            local name = bells(nginx.queue_path)[1]:gsub("%p", "%%%0")
            assert.equal(2, select(2, text:gsub(name, "")))
        end)
        times(nginx, topic)
        nginx:stop(5)
    end)

    it("for its path is too long, nothing else changes", function()
        local topic = topic_of_small_messages("bell-long")
        local long = os.getenv("LKFK_SHM") .. "/" .. ("x"):rep(100)
        assert(lfs.mkdir(long))
        local nginx = start(topic, { conf = { queue_path = long } })
        times(nginx, topic)
        assert.same({}, bells(long))
        nginx:stop(5)
        assert.is_nil(nginx:error_log():match("[^\n]*%[error%][^\n]*"))
    end)
end)
