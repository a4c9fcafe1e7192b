-- What cannot be delivered goes to the backup file: nothing lost, nothing doubled, any bytes.

local lfs = require "lfs"
local harness = require "spec.harness"

local kafka = harness.kafka
local DEAD = { "127.0.0.1:1" }


-- A producer that nobody answers.
local function start_alone(conf)
    conf = conf or {}
    conf.metadata_broker_list = DEAD
    conf.queue_buffering_max_ms = 5
    conf.message_timeout_ms = 300
    return harness.nginx {
        producer = conf,
        locations = { ["/ping"] = "ngx.print('pong')" },
    }
end


local function await_failed(nginx, count)
    harness.eventually(10, function()
        assert.equal(count, nginx:run("return kfk.stats().fail_msg_cnt"))
    end)
end


local function seconds_of(time)
    local year, month, day, hour, min, sec =
        time:match("^(%d+)%-(%d+)%-(%d+) (%d+):(%d+):(%d+)$")
    return os.time { year = year, month = month, day = day, hour = hour, min = min, sec = sec }
end


describe("a backup file", function()
    it("has a line for each message, with local time, topic, key and payload", function()
        local nginx = start_alone()
        local before = os.time()
        nginx:run([[
            assert(kfk.log("backup-lines", "key", '{"a": 1}'))
            assert(kfk.log("backup-lines", nil, "second"))
            assert(kfk.log("backup-lines", "", ""))
            assert(kfk.log("backup-other", "k", "elsewhere"))
        ]])
        await_failed(nginx, 4)
        local lines = nginx:backup("backup-lines")
        assert.equal(3, #lines)
        for _, line in ipairs(lines) do
            local time = seconds_of(line.time)
            assert.is_true(time >= before - 1 and time <= os.time(), line.time)
            assert.equal("backup-lines", line.topic)
        end
        assert.same({ "key", '{"a": 1}' }, { lines[1].key, lines[1].payload })
        assert.is_nil(lines[2].key)
        assert.equal("second", lines[2].payload)
        assert.same({ "", "" }, { lines[3].key, lines[3].payload })
        local other = nginx:backup("backup-other")
        assert.same({ 1, "k", "elsewhere" }, { #other, other[1].key, other[1].payload })
    end)

    it("keeps any bytes apart, and escapes no more than it must", function()
        local nginx = start_alone()
        local all = {}
        for byte = 0, 255 do
            all[#all + 1] = string.char(byte)
        end
        all = table.concat(all)
        local keys = { "\\N", "\\", "a\tb", "\\t", all }
        for _, key in ipairs(keys) do
            nginx:run("assert(kfk.log('backup-bytes', ...))", key, key .. "\n" .. key)
        end
        await_failed(nginx, #keys)
        local lines = nginx:backup("backup-bytes")
        assert.equal(#keys, #lines)
        for i, key in ipairs(keys) do
            assert.equal(key, lines[i].key)
            assert.equal(key .. "\n" .. key, lines[i].payload)
        end
        local file = assert(io.open(nginx.backpath .. "/backup-bytes", "rb"))
        local text = file:read("*a")
        file:close()
        assert.matches("\t\\\\N\t\\\\N\\n\\\\N\n", text, 1, true)
        assert.matches("\0\1\2\3\4\5\6\7\\b\\t\\n\\v\\f\\r\14\15", text, 1, true)
        assert.matches("YZ[\\\\]^_`", text, 1, true)
        assert.matches("\127\128\129", text, 1, true)
    end)

    it("is its owner's alone, as are the queue and the directories made for them", function()
        local nginx = harness.nginx {
            init_worker = [[assert(require("lkfk.kfk").init {
                metadata_broker_list = { "127.0.0.1:1" }, message_timeout_ms = 100,
                queue_path = queue_path, backpath = backpath .. "made/here/",
            })]],
        }
        nginx:log_numbers("backup-modes", 1, 1)
        await_failed(nginx, 1)
        local path = nginx.backpath .. "made/here"
        assert.equal("rwx------", lfs.attributes(path, "permissions"))
        assert.equal("rw-------", lfs.attributes(path .. "/backup-modes", "permissions"))
        local queues = nginx.queue_path .. "/lkfk-" .. lfs.attributes(path, "uid")
        assert.equal("rwx------", lfs.attributes(queues, "permissions"))
        local queue = queues .. "/" .. nginx:queue_files()[1]
        assert.equal("rw-------", lfs.attributes(queue, "permissions"))
    end)

    it("is said in nginx's log to be written, with the reason, once for many messages", function()
        local nginx = start_alone()
        for i = 1, 5 do
            nginx:log_numbers("backup-said", i, i)
            await_failed(nginx, i)
        end
        harness.eventually(5, function()
            assert.matches("topic backup-said: message_timeout_ms passed; messages go to "
                           .. nginx.backpath, nginx:error_log(), 1, true)
        end)
        -- Why is in the same line: at the level "error" it is the only one.
        local line = nginx:error_log():match("message_timeout_ms passed; [^\n]*")
        assert.matches("; the last warning: broker 127.0.0.1:1: cannot connect", line, 1, true)
        local _, count = nginx:error_log():gsub("topic backup%-said: ", "")
        assert.equal(1, count)
    end)

    it("that was moved away is made anew", function()
        local nginx = start_alone()
        nginx:log_numbers("backup-moved", 1, 1)
        await_failed(nginx, 1)
        assert(os.rename(nginx.backpath .. "/backup-moved", nginx.backpath .. "/backup-moved.1"))
        nginx:log_numbers("backup-moved", 2, 2)
        await_failed(nginx, 2)
        assert.equal("1", nginx:backup("backup-moved.1")[1].payload)
        local lines = nginx:backup("backup-moved")
        assert.same({ 1, "2" }, { #lines, lines[1].payload })
    end)
end)


it("between Kafka and the backup nothing is lost or doubled while the broker is down", function()
    local topic = kafka:topic("backup-down", 1)
    local nginx = harness.nginx {
        producer = { queue_buffering_max_ms = 5, message_timeout_ms = 1500, replay = false },
    }
    nginx:log_numbers(topic, 1, 500)
    assert.is_true(nginx:run("return kfk.flush(10)"))
    kafka:kill()
    nginx:log_numbers(topic, 501, 1500)
    await_failed(nginx, 1000)
    kafka:start()
    nginx:log_numbers(topic, 1501, 2000)
    assert.is_true(nginx:run("return kfk.flush(10)"))

    local times = {}
    local function count(payload)
        local i = tonumber(payload)
        times[i] = (times[i] or 0) + 1
    end
    for _, record in ipairs(kafka:records(topic)) do
        count(record.payload)
    end
    for i, line in ipairs(nginx:backup(topic)) do
        assert.equal(tostring(500 + i), line.payload)
        count(line.payload)
    end
    for i = 1, 2000 do
        assert.equal(1, times[i], "message " .. i)
    end
    assert.equal(2000, #times)
end)


describe("while a backup file cannot be written", function()
    local nginx

    -- Directories have the file's name, and the one that it would have instead.
    local function block(topic)
        assert(lfs.mkdir(nginx.backpath .. "/" .. topic))
        assert(lfs.mkdir(nginx.backpath .. "/" .. topic .. "~file"))
    end

    before_each(function()
        nginx = start_alone()
    end)

    it("its messages wait in the queue, the log says so once, and are written later", function()
        block("backup-blocked")
        nginx:log_numbers("backup-blocked", 1, 10)
        harness.eventually(10, function()
            assert.equal(10, nginx:run("return kfk.stats().spill_waiting"))
        end)
        -- It is tried again and again.
        ngx.sleep(2.5)
        local stats = nginx:stats()
        assert.same({ 10, 10, 0 }, {
            stats.queue_messages, stats.spill_waiting, stats.fail_msg_cnt,
        })
        local first, count = nil, 0
        for line in nginx:error_log():gmatch("[^\n]*backup%-blocked[^\n]*") do
            first, count = first or line, count + 1
        end
        assert.equal(1, count)
        assert.matches("[error]", first, 1, true)
        -- As many as there were when the first write failed.
        assert.matches("%d+ messages that could not be delivered wait in the queue for it", first)
        assert.same({ 200, "pong" }, { nginx:get("/ping") })

        assert(lfs.rmdir(nginx.backpath .. "/backup-blocked"))
        assert(lfs.rmdir(nginx.backpath .. "/backup-blocked~file"))
        await_failed(nginx, 10)
        local lines = nginx:backup("backup-blocked")
        assert.equal(10, #lines)
        for i, line in ipairs(lines) do
            assert.equal(tostring(i), line.payload)
        end
    end)

    it("other topics' messages do not wait with them", function()
        block("backup-blocked")
        nginx:log_numbers("backup-blocked", 1, 1)
        harness.eventually(5, function()
            assert.equal(1, nginx:run("return kfk.stats().spill_waiting"))
        end)
        nginx:log_numbers("backup-free", 1, 1)
        harness.eventually(5, function()
            assert.equal(1, #nginx:backup("backup-free"))
        end)
    end)
end)


-- The first writes to a file of the backup end with an error.
local function fail_writes(nginx, topic, fault)
    local said = harness.start {
        "strace", "-f", "-p", nginx:pids()[1], "-P", nginx.backpath .. "/" .. topic,
        "-e", "trace=write", "-e", "inject=write:error=" .. fault,
    }
    harness.eventually(10, function()
        assert.matches("attached", said(), 1, true)
    end)
    return said
end


describe("DSK-01: where a write ends with", function()
    local nginx

    before_each(function()
        nginx = start_alone()
        nginx:log_numbers("backup-fault", 1, 10)
        await_failed(nginx, 10)
    end)

    local function all_are_there(said, fault, times)
        await_failed(nginx, 20)
        local _, injected = said():gsub(fault .. "[^\n]*INJECTED", "")
        assert.equal(times, injected)
        local lines = nginx:backup("backup-fault")
        assert.equal(20, #lines)
        for i, line in ipairs(lines) do
            assert.equal(tostring(i), line.payload)
        end
    end

    it("EIO, it is said and tried again", function()
        local said = fail_writes(nginx, "backup-fault", "EIO:when=1..2")
        nginx:log_numbers("backup-fault", 11, 20)
        all_are_there(said, "EIO", 2)
        harness.eventually(2, function()
            assert.matches("backup%-fault: Input/output error", nginx:error_log())
        end)
    end)

    it("EINTR, it is tried again at once", function()
        local said = fail_writes(nginx, "backup-fault", "EINTR:when=1..2")
        nginx:log_numbers("backup-fault", 11, 20)
        all_are_there(said, "EINTR", 2)
        assert.is_nil(nginx:error_log():match("[^\n]*cannot append[^\n]*"))
    end)
end)
