-- What the machine does to nginx: names that move, clocks, limits, children, too little time.

local ffi = require "ffi"
local lfs = require "lfs"
local harness = require "spec.harness"
local process = require "spec.harness.process"

local kafka, load = harness.kafka, harness.load

pcall(ffi.cdef, "unsigned int getuid(void);")

-- Who is not root may do as root in a namespace of its own.
local UNSHARE = ffi.C.getuid() == 0 and "unshare" or "unshare --map-current-user --keep-caps"


-- start(nginx, command, shell): a stopped nginx again; the shell's code runs it as "$@".
local function start(nginx, command, shell, ...)
    local words = { "sh", "-c", shell, ... }
    for _, word in ipairs(command) do
        words[#words + 1] = word
    end
    harness.start(words)
    nginx:await_master()
end


local function await_delivered(nginx, count)
    harness.eventually(10, function()
        assert.equal(count, nginx:run("return kfk.stats().succ_msg_cnt"))
    end)
end


it("TIM-04: a broker's name is looked up at each connect, also when nobody knew it at first",
   function()
    local topic = kafka:topic("machine-names", 1)
    local name = "kafka.moves.test"
    local nginx = harness.nginx {
        producer = {
            metadata_broker_list = { name .. kafka.bootstrap:match(":%d+$") },
            queue_buffering_max_ms = 5, message_timeout_ms = 100000,
            reconnect_backoff_max_ms = 200,
        },
    }
    local command = nginx:command()
    local hosts, servers = nginx.prefix .. "/hosts", nginx.prefix .. "/resolv.conf"
    process.write(hosts, "127.0.0.1 localhost\n")
    process.write(servers, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    start(nginx, command, UNSHARE .. [[ --mount sh -c '
        mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf &&
        shift 2 && exec "$@"' sh "$@"]], "sh", hosts, servers)
    local first = #nginx:error_log()
    nginx:run("assert(kfk.log(..., nil, 'kept'))", topic)
    harness.eventually(10, function()
        assert.matches("cannot resolve " .. name, nginx:error_log():sub(first), 1, true)
    end)
    -- Written in place: what is mounted is the file, not its name. Nobody listens there.
    process.write(hosts, "127.0.0.9 " .. name .. "\n")
    local broken = nginx:run("return kfk.stats().connections_broken")
    harness.eventually(10, function()
        assert.is_true(nginx:run("return kfk.stats().connections_broken") > broken + 2)
    end)
    assert.equal(0, nginx:run("return kfk.stats().succ_msg_cnt"))
    process.write(hosts, "127.0.0.1 " .. name .. "\n")
    await_delivered(nginx, 1)
    assert.same({ "kept" }, kafka:payloads(topic))
    nginx:quit()
end)


it("TIM-03: a monotonic clock that began a hundred years ago", function()
    local topic = kafka:topic("machine-clock", 1)
    local nginx = harness.nginx {
        producer = { queue_buffering_max_ms = 5, message_timeout_ms = 500, replay = false },
    }
    start(nginx, nginx:command(),
          "exec " .. UNSHARE .. [[ --time --fork --kill-child --monotonic 3000000000 "$@"]], "sh")
    assert.is_true(nginx:run([[
        local ffi = require "ffi"
        ffi.cdef "int clock_gettime(int id, long *time);"
        local time = ffi.new "long[2]"
        ffi.C.clock_gettime(1, time)
        return tonumber(time[0]) >= 3000000000
    ]]))
    nginx:run("assert(kfk.log(..., nil, 'delivered'))", topic)
    await_delivered(nginx, 1)
    -- Time limits hold.
    kafka:pause()
    nginx:run("assert(kfk.log(..., nil, 'late'))", topic)
    ngx.sleep(1)
    kafka:resume()
    nginx:quit()
    local payloads = kafka:payloads(topic)
    assert.equal("delivered", payloads[1])
    assert.same({ "late" }, { payloads[2] or nginx:backup(topic)[1].payload })
end)


it("RNG-07: with a limit for files that the queue exceeds init() says so, and nginx serves",
   function()
    local nginx = harness.nginx { producer = { queue_buffering_max_kbytes = 4096 } }
    start(nginx, nginx:command(), [[exec prlimit --fsize=2000000 "$@"]], "sh")
    harness.eventually(5, function()
        assert.matches("lkfk init: the file size limit of this process (ulimit -f, 2000000 bytes)",
                       nginx:error_log(), 1, true)
    end)
    assert.is_nil(nginx:run("return kfk.log('t', nil, 1)"))
    assert.same({}, nginx:queue_files())
    nginx:quit()
end)


it("NGX-09: children of a killed worker do not keep its queue from being adopted", function()
    local topic = kafka:topic("machine-child", 1)
    local nginx = harness.nginx { producer = { queue_buffering_max_ms = 60000 } }
    local child = nginx:run([[
        local topic = ...
        os.execute("true")
        child = io.popen("echo $$; exec sleep 60")
        for i = 1, 100 do assert(kfk.log(topic, nil, i)) end
        return tonumber(child:read())
    ]], topic)
    process.finally(function()
        if harness.alive(child) then
            process.signal("TERM", child)
        end
    end)
    nginx:kill_worker()
    harness.eventually(5, function()
        assert.equal(100, #kafka:records(topic))
    end)
    assert.is_true(harness.alive(child))
    harness.eventually(5, function()
        assert.equal(1, #nginx:queue_files())
    end)
end)


it("RES-04: a worker that runs a tenth of the time loses and doubles nothing", function()
    local topic = kafka:topic("machine-slow", 2)
    local nginx = load.start(topic, {
        burst = 5,
        producer = { queue_buffering_max_ms = 20, request_required_acks = -1 },
    })
    local pid = nginx:pids()[1]
    for _ = 1, 40 do
        nginx:signal("STOP", pid)
        ngx.sleep(0.09)
        nginx:signal("CONT", pid)
        ngx.sleep(0.01)
    end
    local accepted = load.stop(nginx)
    nginx:stop()
    local seen = load.check(topic, accepted)
    assert.is_true(seen.messages > 100, seen.messages)
    assert.equal(0, seen.doubled)
    assert.is_nil(load.disordered(seen.records))
end)


-- The processors of a process's thread of that name, as the kernel lists them.
local function processors_of(pid, name)
    local found
    for task in lfs.dir("/proc/" .. pid .. "/task") do
        local dir = "/proc/" .. pid .. "/task/" .. task
        if process.read(dir .. "/comm") == name .. "\n" then
            found = process.read(dir .. "/status"):match("Cpus_allowed_list:%s*(%S+)")
        end
    end
    return found
end


describe("FLT-16: lkfk's threads run where nginx was allowed to when it was started", function()
    local mine = process.read("/proc/self/status"):match("Cpus_allowed_list:%s*(%S+)")
    local first = mine:match("^%d+")

    local function check(nginx, expected)
        local pid = nginx:pids()[1]
        for _, name in ipairs { "lkfk", "lkfk-disk" } do
            harness.eventually(5, function()
                assert.equal(expected, processors_of(pid, name))
            end)
        end
    end

    it("with fewer processors than the machine has", function()
        local nginx = harness.nginx { producer = {} }
        start(nginx, nginx:command(), [[exec taskset -c "$@"]], "sh", first)
        check(nginx, first)
        nginx:quit()
    end)

    it("with workers that are pinned to one processor", function()
        local nginx = harness.nginx { producer = {}, main = "worker_cpu_affinity 1;" }
        local worker = processors_of(nginx:pids()[1], "nginx")
        assert.equal("0", worker)
        check(nginx, mine)
    end)

    it("in a single process", function()
        local nginx = harness.nginx {
            producer = {}, workers = 0, main = "master_process off;",
        }
        start(nginx, nginx:command(), [[exec taskset -c "$@"]], "sh", first)
        harness.eventually(5, function()
            assert.equal(first, processors_of(nginx.master, "lkfk"))
        end)
        nginx:quit()
    end)
end)
