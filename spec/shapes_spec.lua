-- The shapes that nginx comes in: single process, daemon, many workers, other users, neighbours.

local ffi = require "ffi"
local lfs = require "lfs"
local harness = require "spec.harness"
local process = require "spec.harness.process"

local kafka = harness.kafka

pcall(ffi.cdef, "unsigned int getuid(void);")

local UID = tonumber(ffi.C.getuid())
-- In init_worker: each worker logs its pid.
local LOG_PID = [[
    assert(require("lkfk.kfk").log(%q, nil, ngx.worker.pid()))
]]


-- What each worker has logged has arrived, once; nothing is left behind.
local function check(nginx, topic, pids)
    local expected = {}
    for i, pid in ipairs(pids) do
        expected[i] = tostring(pid)
    end
    table.sort(expected)
    harness.eventually(10, function()
        local payloads = kafka:payloads(topic)
        table.sort(payloads)
        assert.same(expected, payloads)
    end)
    assert.equal(#pids, #nginx:queue_files())
    for _, pid in ipairs(pids) do
        assert.equal(1, nginx:threads(pid))
    end
end


local function check_end(nginx)
    assert.same({}, nginx:queue_files())
    for _, level in ipairs { "error", "crit", "alert", "emerg" } do
        assert.is_nil(nginx:error_log():match("[^\n]*%[" .. level .. "%][^\n]*"))
    end
    assert.is_nil(nginx:error_log():match("[^\n]*exited on signal[^\n]*"))
end


-- change(path, from, to): replaces text that stands there once.
local function change(path, from, to)
    local text, count = process.read(path):gsub(from, to)
    assert.equal(1, count, from)
    process.write(path, text)
end


-- prepare(topic, options) -> an nginx that was stopped again, and the words of its command.
local function prepare(topic, options)
    options.init_worker = "if ngx.worker.id() then " .. LOG_PID:format(topic) .. " end"
    local nginx = harness.nginx(options)
    return nginx, nginx:command()
end


it("a single process, with master_process off", function()
    local topic = kafka:topic("shape-single", 1)
    local nginx = harness.nginx {
        -- The harness counts children.
        workers = 0,
        main = "master_process off;",
        producer = { queue_buffering_max_ms = 5 },
        init_worker = LOG_PID:format(topic),
    }
    check(nginx, topic, { nginx.master })
    nginx:stop()
    check_end(nginx)
end)


for _, count in ipairs { 1, 4 } do
    it(count .. " workers", function()
        local topic = kafka:topic("shape-workers-" .. count, 2)
        local nginx = harness.nginx {
            workers = count,
            producer = { queue_buffering_max_ms = 5 },
            init_worker = LOG_PID:format(topic),
        }
        assert.equal(count, #nginx:pids())
        check(nginx, topic, nginx:pids())
        nginx:stop()
        check_end(nginx)
    end)
end


it("as many workers as processors, with worker_processes auto", function()
    local topic = kafka:topic("shape-auto", 2)
    local nginx = harness.nginx {
        producer = { queue_buffering_max_ms = 5 },
        init_worker = LOG_PID:format(topic),
    }
    local first = nginx:pids()
    nginx:stop()
    change(nginx.prefix .. "/main.conf", "worker_processes 1;", "worker_processes auto;")
    nginx.workers = tonumber(process.must { "nproc" })
    nginx:start()
    local pids = nginx:pids()
    harness.eventually(10, function()
        assert.equal(1 + #pids, #kafka:records(topic))
    end)
    assert.equal(#pids, #nginx:queue_files())
    assert.is_nil(process.parent_of(first[1]))
    nginx:stop()
    check_end(nginx)
end)


it("a daemon", function()
    local topic = kafka:topic("shape-daemon", 1)
    local nginx, command = prepare(topic, { producer = { queue_buffering_max_ms = 5 } })
    change(nginx.prefix .. "/nginx.conf", "daemon off;", "daemon on;")
    local before = #kafka:records(topic)
    assert.equal(0, (harness.run(command)))
    nginx:await_master()
    harness.eventually(10, function()
        assert.equal(before + 1, #kafka:records(topic))
    end)
    assert.equal(1, nginx:threads(nginx:pids()[1]))
    nginx:quit()
    check_end(nginx)
end)


it("nginx -t starts nothing", function()
    local topic = kafka:topic("shape-test", 1)
    local nginx, command = prepare(topic, {
        producer = { queue_buffering_max_ms = 5 },
        init = 'require "lkfk.kfk"',
    })
    local before, log = #kafka:records(topic), #nginx:error_log()
    command[#command + 1] = "-t"
    local code, _, err = harness.run(command)
    assert.equal(0, code, err)
    assert.matches("test is successful", err, 1, true)
    assert.is_nil(nginx:error_log():sub(log + 1):find("[lkfk]", 1, true))
    assert.same({}, nginx:queue_files())
    assert.equal(before, #kafka:records(topic))
end)


-- Where nginx cannot have one (it takes a patch of OpenResty's), a worker says that it is one.
it("FLT-19: a privileged agent's producer starts with its first use, and has files of its own",
   function()
    local topic = kafka:topic("shape-agent", 1)
    local of_agent = kafka:topic("shape-agent-own", 1)
    local nginx = harness.nginx {
        workers = 2,
        http = "lua_shared_dict agent 1m;",
        init = [[
            local process = require "ngx.process"
            if not process.enable_privileged_agent() then
                process.type = function()
                    return ngx.worker.id() == 1 and "privileged agent" or "worker"
                end
            end
        ]],
        producer = { queue_buffering_max_ms = 5, topics = { topic, of_agent } },
        init_worker = ([[
            local agent, kfk = ngx.shared.agent, require "lkfk.kfk"
            if require("ngx.process").type() ~= "privileged agent" then
                assert(kfk.log(%q, nil, ngx.worker.pid()))
                return
            end
            agent:set("refused", select(2, kfk.init { metadata_broker_list = {} }))
            agent:set("init", kfk.init {
                metadata_broker_list = { %q }, queue_path = queue_path, backpath = backpath,
                queue_buffering_max_ms = 5, topics = { %q },
            })
            agent:set("stats", next(kfk.stats()) == nil)
            agent:set("pid", ngx.worker.pid())
            local function log_when_told()
                if agent:get("go") then
                    agent:set("log", kfk.log(%q, nil, ngx.worker.pid()))
                    agent:set("refusal", select(2, kfk.log("shape-agent-refused", nil, "kept")))
                else
                    ngx.timer.at(0.05, log_when_told)
                end
            end
            log_when_told()
        ]]):format(topic, kafka.bootstrap, of_agent, of_agent),
    }
    local function get(name)
        return nginx:run("return ngx.shared.agent:get(...)", name)
    end
    local agent
    harness.eventually(5, function()
        agent = get("pid")
        return agent
    end)
    assert.same({ true, true }, { get("init"), get("stats") })
    assert.matches("metadata_broker_list is empty", get("refused"), 1, true)
    assert.equal(nginx.master, process.parent_of(agent))
    assert.equal(0, nginx:threads(agent))
    local workers = {}
    for _, pid in ipairs(nginx:pids()) do
        if pid ~= agent then
            workers[#workers + 1] = pid
        end
    end
    check(nginx, topic, workers)

    nginx:run("ngx.shared.agent:set('go', true)")
    harness.eventually(10, function()
        assert.same({ tostring(agent) }, kafka:payloads(of_agent))
    end)
    assert.is_true(get("log"))
    assert.equal(1, nginx:threads(agent))
    assert.equal(#workers + 1, #nginx:queue_files())
    -- What is not delivered is not in the workers' way.
    assert.matches("topic unknown", get("refusal"), 1, true)
    harness.eventually(5, function()
        local path = nginx.backpath:gsub("/$", "") .. "-agent/shape-agent-refused"
        assert.matches("\tkept\n", process.read(path) or "")
    end)
    assert.same({}, nginx:backup("shape-agent-refused"))
    nginx:stop()
    check_end(nginx)
end)


it("nginx's cache processes have no producer", function()
    local topic = kafka:topic("shape-cache", 1)
    local nginx = harness.nginx {
        -- Relative to the prefix.
        http = "proxy_cache_path cache keys_zone=cache:1m;",
        producer = { queue_buffering_max_ms = 5 },
        init_worker = LOG_PID:format(topic),
    }
    local others = 0
    for _, pid in ipairs(process.children(nginx.master)) do
        if pid ~= nginx:pids()[1] then
            others = others + 1
            assert.equal(0, nginx:threads(pid))
        end
    end
    assert.is_true(others >= 1)
    check(nginx, topic, nginx:pids())
    nginx:stop()
    check_end(nginx)
end)


it("two nginxes with one directory for their queues keep apart", function()
    local topic = kafka:topic("shape-two", 1)
    local first = harness.nginx { workers = 2, producer = { queue_buffering_max_ms = 5 } }
    local second = harness.nginx {
        workers = 2,
        producer = { queue_buffering_max_ms = 5, queue_path = first.queue_path },
    }
    assert.equal(4, #first:queue_files())
    -- Each looks round at least twice.
    for i = 1, 22 do
        for _, nginx in ipairs { first, second } do
            nginx:run("assert(kfk.log(...))", topic, nil, nginx.name .. " " .. i)
        end
        ngx.sleep(0.1)
    end
    assert.equal(4, #first:queue_files())
    second:stop()
    assert.equal(2, #first:queue_files())
    first:stop()
    for _, nginx in ipairs { first, second } do
        assert.is_nil(nginx:error_log():find("adopted", 1, true))
        check_end(nginx)
    end
    local seen = {}
    for _, record in ipairs(kafka:records(topic)) do
        assert.is_nil(seen[record.payload])
        seen[record.payload] = true
    end
    for i = 1, 22 do
        assert.is_true(seen[first.name .. " " .. i] and seen[second.name .. " " .. i])
    end
end)


-- without_root(nginx) -> who its workers run as when it is started again. The master of a root's
-- nginx keeps root's rights, its workers do not.
local function without_root(nginx)
    if UID ~= 0 then
        return UID
    end
    local group = process.must({ "id", "-gn", "nobody" }):match("%S+")
    change(nginx.prefix .. "/nginx.conf", "user [^;]*;", "user nobody " .. group .. ";")
    process.must { "chown", "-R", "nobody:" .. group, nginx.queue_path, nginx.backpath }
    process.must { "chmod", "700", nginx.queue_path, nginx.backpath }
    return tonumber(process.must { "id", "-u", "nobody" })
end


it("workers that are not root own their queues and backups alone", function()
    local topic = kafka:topic("shape-user", 1)
    local nginx, command = prepare(topic, {
        producer = { queue_buffering_max_ms = 5, topics = { topic } },
    })
    local owner = without_root(nginx)
    local before = #kafka:records(topic)
    harness.start(command)
    nginx:await_master()
    harness.eventually(10, function()
        assert.equal(before + 1, #kafka:records(topic))
    end)
    nginx:run("assert(not kfk.log('shape-user-backup', 'key', 'payload'))")
    harness.eventually(5, function()
        assert.equal(1, #nginx:backup("shape-user-backup"))
    end)

    local worker = nginx:pids()[1]
    assert.equal(owner, lfs.attributes("/proc/" .. worker, "uid"))
    local queues = nginx.queue_path .. "/lkfk-" .. owner
    for path, mode in pairs {
        [queues] = "rwx------",
        [queues .. "/" .. nginx:queue_files()[1]] = "rw-------",
        [nginx.backpath .. "/shape-user-backup"] = "rw-------",
    } do
        local attributes = lfs.attributes(path)
        assert.same({ owner, mode }, { attributes.uid, attributes.permissions }, path)
    end
    -- A dead worker's file is its successor's.
    nginx:run("assert(kfk.log(..., nil, 'left behind'))", topic)
    nginx:kill_worker()
    harness.eventually(10, function()
        -- Its successor has logged its pid, too.
        assert.is_true(#kafka:records(topic) >= before + 3)
        assert.equal(1, #nginx:queue_files())
    end)
    nginx:quit()
    assert.same({}, nginx:queue_files())
end)


it("DSK-02: messages wait while their directory is read-only, and are written later", function()
    local nginx, command = prepare("shape-pid", {
        producer = {
            metadata_broker_list = { "127.0.0.1:1" }, queue_buffering_max_ms = 5,
            message_timeout_ms = 300, replay = false,
        },
    })
    without_root(nginx)
    local log = "for i = 1, 100 do assert(kfk.log(..., nil, i)) end"
    harness.start(command)
    nginx:await_master()
    nginx:run(log, "shape-before")
    harness.eventually(5, function()
        assert.equal(100, #nginx:backup("shape-before"))
    end)

    process.must { "chmod", "500", nginx.backpath }
    nginx:run(log, "shape-meanwhile")
    harness.eventually(5, function()
        assert.equal(100, nginx:run("return kfk.stats().spill_waiting"))
        assert.matches("shape%-meanwhile: Permission denied", nginx:error_log())
    end)
    -- A file that is there can still be appended to.
    nginx:run(log, "shape-before")
    harness.eventually(5, function()
        assert.equal(200, #nginx:backup("shape-before"))
    end)
    assert.equal(100, nginx:run("return kfk.stats().spill_waiting"))

    process.must { "chmod", "700", nginx.backpath }
    harness.eventually(10, function()
        assert.equal(100, #nginx:backup("shape-meanwhile"))
    end)
    nginx:quit()
    assert.same({}, nginx:queue_files())
end)


it("RES-03: where no thread can be made init() says so, and nginx serves all the same", function()
    -- Root's threads are not counted: its workers become nobody's, others run as one process.
    local nginx, command = prepare(kafka:topic("shape-threads", 1), {
        workers = UID == 0 and 1 or 0,
        main = UID == 0 and "" or "master_process off;",
        producer = {},
    })
    without_root(nginx)
    harness.start { "prlimit", "--nproc=1", unpack(command) }
    nginx:await_master()
    harness.eventually(5, function()
        assert.matches("lkfk init: cannot start a thread: Resource temporarily unavailable",
                       nginx:error_log(), 1, true)
    end)
    local taken, err = nginx:run("return kfk.log('shape-threads', nil, 1)")
    assert.is_nil(taken)
    assert.matches("not running", err, 1, true)
    assert.same({}, nginx:queue_files())
    nginx:quit()
end)
