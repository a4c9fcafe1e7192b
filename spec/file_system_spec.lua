-- Where no queue file is safe: on file systems that copy on write, and on those that nobody has
-- looked at. They are mounted in a namespace of nginx's own, which takes root.

local ffi = require "ffi"
local harness = require "spec.harness"
local process = require "spec.harness.process"

local kafka = harness.kafka

local DIR = os.getenv("LKFK_STAGE") .. "/file-system"
local IN_MEMORY = os.getenv("LKFK_SHM") .. "/file-system"
local LONG = 100000

-- Each mounts something at $1, with files of its own below $2, which lies in memory.
local OVERLAY = [[
    mkdir -p "$2/lower" "$2/upper" "$2/work" &&
    mount -t overlay overlay -o "lowerdir=$2/lower,upperdir=$2/upper,workdir=$2/work" "$1"
]]
local BTRFS = [[
    PATH=$PATH:/usr/sbin:/sbin
    if [ ! -e "$2/image" ]; then
        truncate -s 128M "$2/image" && mkfs.btrfs -q --mixed "$2/image" || exit
    fi
    mount -t btrfs -o loop "$2/image" "$1"
]]

pcall(ffi.cdef, "unsigned int getuid(void);")


local function make_directories(name)
    local mount, files = DIR .. "/" .. name, IN_MEMORY .. "/" .. name
    process.must { "mkdir", "-p", mount, files }
    return mount, files
end


-- on(kind, mount) -> it, or what takes its place and says why where such a file system cannot be
-- mounted.
local function on(kind, mount)
    local why
    if ffi.C.getuid() ~= 0 then
        why = "mounting takes root"
    else
        local code, out, err = harness.run {
            "unshare", "--mount", "sh", "-c", mount, "sh", make_directories("trial-" .. kind),
        }
        why = code ~= 0 and out .. err
    end
    return not why and it or function(name)
        io.stdout:write("  left out: ", name, ": ", why, "\n")
    end
end


-- nginx_on(name, mount, conf) -> a stopped nginx with queue and backup below a mount point, the
-- function that starts it with something mounted there, and that directory, where it is seen.
local function nginx_on(name, mount, conf)
    local point, files = make_directories(name)
    conf.queue_path, conf.backpath = point .. "/queue", point .. "/backup"
    conf.request_required_acks, conf.queue_buffering_max_ms = -1, 5
    conf.message_timeout_ms = LONG
    process.must { "mkdir", conf.queue_path, conf.backpath }
    local nginx = harness.nginx { producer = conf }
    local words = {
        "unshare", "--mount", "sh", "-c",
        "(" .. mount .. [[) && mkdir -p "$1/queue" "$1/backup" && shift 2 && exec "$@"]],
        "sh", point, files,
    }
    for _, word in ipairs(nginx:command()) do
        words[#words + 1] = word
    end
    return nginx, function()
        harness.start(words)
        nginx:await_master()
        return "/proc/" .. nginx.master .. "/root" .. point
    end
end


local function numbers_of(topic)
    local list = {}
    for i, payload in ipairs(kafka:payloads(topic)) do
        list[i] = tonumber(payload)
    end
    table.sort(list)
    return list
end


do
    local it = on("overlayfs", OVERLAY)

    it("FLT-04: on overlayfs the queue has no file, and its rest is carried over", function()
        local topic = kafka:topic("file-system-overlay", 2)
        local nginx, start = nginx_on("overlay", OVERLAY, {
            batch_num_messages = 100,
        })
        local seen = start()
        harness.eventually(5, function()
            local log = nginx:error_log()
            assert.matches("lies on overlayfs, where a queue file is not safe", log, 1, true)
            assert.matches("Set queue_path to a directory on tmpfs, ext4 or xfs", log, 1, true)
        end)
        nginx:log_numbers(topic, 1, 100)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.same({}, nginx:queue_files(seen .. "/queue"))
        kafka:pause()
        nginx:log_numbers(topic, 101, 1100)
        nginx:run("ngx.sleep(0.2)")
        nginx:quit()
        local path = nginx:error_log():match("and instance repeats them from ([^\n]+)")
        assert.matches("/backup/lkfk-", path, 1, true)
        kafka:resume()
        seen = start()
        harness.eventually(20, function()
            assert.matches("adopted the queue of worker %d+, which is gone", nginx:error_log())
            assert.same(harness.count_to(1100), numbers_of(topic))
        end)
        harness.eventually(5, function()
            assert.same({}, nginx:queue_files(seen .. "/backup"))
        end)
        nginx:quit()
    end)
end


do
    local it = on("btrfs", BTRFS)

    it("FLT-04: a btrfs that is full neither ends a worker nor loses what it took", function()
        local topic = kafka:topic("file-system-btrfs", 2)
        local nginx, start = nginx_on("btrfs", BTRFS, {})
        local seen = start()
        local worker = nginx:pids()[1]
        harness.eventually(5, function()
            assert.matches("lies on btrfs", nginx:error_log(), 1, true)
        end)
        kafka:pause()
        local fill = "of=" .. seen .. "/fill"
        local code, _, err = harness.run { "dd", "if=/dev/zero", fill, "bs=64k" }
        assert.equal(1, code)
        assert.matches("No space left", err)
        nginx:run([[
            local payload = ("x"):rep(1000)
            for i = 1, 20000 do
                assert(kfk.log(..., nil, i .. " " .. payload))
            end
        ]], topic)
        kafka:resume()
        harness.eventually(30, function()
            assert.equal(20000, nginx:run("return kfk.stats().succ_msg_cnt"))
        end)
        assert.same({ worker }, nginx:pids())
        assert.equal(20000, #kafka:payloads(topic))
        nginx:quit()
    end)
end
