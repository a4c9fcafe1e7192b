-- Backup files are sent again: what, when, how fast, and what becomes of lines that cannot be.

local lfs = require "lfs"
local harness = require "spec.harness"
local process = require "spec.harness.process"

local kafka = harness.kafka
local BROKER_DOWN = { "127.0.0.1:1" }


local function start(conf, options)
    options = options or {}
    options.producer = conf
    conf.queue_buffering_max_ms = conf.queue_buffering_max_ms or 5
    conf.message_timeout_ms = conf.message_timeout_ms or 1000
    return harness.nginx(options)
end


local function log(nginx, topic, first, last)
    nginx:run([[
        local topic, first, last = ...
        for i = first, last do assert(kfk.log(topic, "k", i)) end
    ]], topic, first, last)
end


local function await(nginx, name, count, seconds)
    harness.eventually(seconds or 15, function()
        assert.equal(count, nginx:stats()[name])
    end)
end


-- An nginx that never reached a broker, with messages 1 to count in its backup. It has ended.
local function backup_of(topic, count)
    local nginx = start {
        metadata_broker_list = BROKER_DOWN, message_timeout_ms = 300,
        queue_buffering_max_messages = 1000000,
    }
    for first = 1, count, 10000 do
        log(nginx, topic, first, math.min(first + 9999, count))
    end
    await(nginx, "fail_msg_cnt", count)
    nginx:stop()
    return nginx.backpath
end


-- Names in a directory, hidden ones left out.
local function names(path)
    local list = {}
    if lfs.attributes(path, "mode") == "directory" then
        for name in lfs.dir(path) do
            if name:sub(1, 1) ~= "." then
                list[#list + 1] = name
            end
        end
    end
    table.sort(list)
    return list
end


local function numbers(topic)
    local list = {}
    for i, record in ipairs(kafka:records(topic)) do
        list[i] = tonumber(record.payload)
    end
    return list
end


describe("replay", function()
    it("sends what failed once the broker is back, and removes the file", function()
        local topic = kafka:topic("replay-back", 1)
        local nginx = start { message_timeout_ms = 500 }
        log(nginx, topic, 1, 10)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        kafka:kill()
        local before = os.time() * 1000
        local bytes = "\0\t\n\\N\r\255"
        nginx:run([[
            local topic, bytes = ...
            assert(kfk.log(topic, nil, "null key"))
            assert(kfk.log(topic, "", "empty key"))
            assert(kfk.log(topic, "\\N", "key that looks null"))
            assert(kfk.log(topic, bytes, bytes))
            assert(kfk.log(topic, "k", ""))
        ]], topic, bytes)
        await(nginx, "fail_msg_cnt", 5)
        local after = (os.time() + 1) * 1000
        assert.equal(5, #nginx:backup(topic))
        kafka:start()
        await(nginx, "replayed_cnt", 5, 30)
        local records = kafka:records(topic)
        assert.equal(15, #records)
        local seen = {}
        for i = 11, 15 do
            local record = records[i]
            assert.is_true(record.timestamp >= before and record.timestamp <= after)
            -- Not cut to the second that the line has.
            seen[#seen + 1] = { record.key or false, record.payload or "" }
        end
        assert.same({
            { false, "null key" }, { "", "empty key" }, { "\\N", "key that looks null" },
            { bytes, bytes }, { "k", "" },
        }, seen)
        harness.eventually(5, function()
            assert.same({ "~journal", "~lock" }, names(nginx.backpath))
            assert.same({}, names(nginx.backpath .. "/~journal"))
        end)
        await(nginx, "replay_waiting_bytes", 0)
        local now = nginx:stats()
        assert.same({ 0, 10, 5 }, { now.replay_poison_cnt, now.succ_msg_cnt, now.fail_msg_cnt })
    end)

    it("sends what an nginx left that is gone, in order, over rotated files", function()
        local topic = kafka:topic("replay-order", 1)
        local first = start {
            metadata_broker_list = BROKER_DOWN, message_timeout_ms = 100,
            backup_max_bytes = 65536,
        }
        for chunk = 0, 19 do
            log(first, topic, chunk * 500 + 1, chunk * 500 + 500)
            await(first, "fail_msg_cnt", chunk * 500 + 500)
        end
        first:stop()
        local files = names(first.backpath)
        assert.is_true(#files > 4, #files)
        local second = start { backpath = first.backpath, replay_rate = 0 }
        await(second, "replayed_cnt", 10000, 30)
        assert.same(harness.count_to(10000), numbers(topic))
        -- They are removed once it is noted what was acknowledged.
        harness.eventually(10, function()
            assert.same({ "~journal", "~lock" }, names(first.backpath))
        end)
    end)

    it("is done by one of many workers, once", function()
        local topic = kafka:topic("replay-workers", 3)
        local path = backup_of(topic, 5000)
        local nginx = start({ backpath = path, replay_rate = 0 }, { workers = 4 })
        harness.eventually(30, function()
            assert.same({ "~journal", "~lock" }, names(path))
        end)
        local list = numbers(topic)
        table.sort(list)
        assert.same(harness.count_to(5000), list)
        nginx:stop()
    end)

    it("goes on in a new worker while an old one is held open by a request", function()
        local topic = kafka:topic("replay-reload", 1)
        local path = backup_of(topic, 500)
        local nginx = start({ backpath = path, replay_rate = 50 })
        await(nginx, "driver_restarts", 0)
        harness.eventually(15, function()
            assert.is_true(nginx:stats().replayed_cnt > 0)
        end)
        local held = ngx.thread.spawn(nginx.run, nginx, "ngx.sleep(8)")
        ngx.sleep(0.1)
        nginx:reload()
        harness.eventually(5, function()
            assert.is_true(nginx:stats().replayed_cnt > 0)
            local _, leaving = nginx:pids()
            assert.equal(1, #leaving)
        end)
        assert.is_true(ngx.thread.wait(held))
        harness.eventually(15, function()
            assert.equal(500, #numbers(topic))
        end)
    end)

    it("false leaves the files as they are", function()
        local topic = kafka:topic("replay-false", 1)
        local path = backup_of(topic, 10)
        local nginx = start { backpath = path, replay = false }
        log(nginx, topic, 11, 12)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        -- Long enough for two looks at the directory.
        ngx.sleep(2.5)
        assert.same({ 11, 12 }, numbers(topic))
        assert.equal(10, #nginx.backup({ backpath = path }, topic))
        assert.equal(0, nginx:stats().replayed_cnt)
    end)

    it("DSK-05: keeps to replay_rate, and new messages do not wait for it", function()
        local topic = kafka:topic("replay-rate", 1)
        local path = backup_of(topic, 1000)
        local nginx = start { backpath = path, replay_rate = 50 }
        harness.eventually(15, function()
            assert.is_true(nginx:stats().replayed_cnt > 0)
        end)
        local began, had = ngx.now(), nginx:stats().replayed_cnt
        nginx:run([[
            for i = 1, 2000 do assert(kfk.log(..., "k", "new")) end
        ]], topic)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.is_true(nginx:stats().replayed_cnt < 1000)
        ngx.sleep(2)
        ngx.update_time()
        local sent, passed = nginx:stats().replayed_cnt - had, ngx.now() - began
        assert.is_true(sent <= 50 * (passed + 1), sent .. " in " .. passed)
        assert.is_true(sent >= 50, sent)
    end)

    it("that a graceful exit interrupts goes on where it was", function()
        local topic = kafka:topic("replay-exit", 2)
        local path = backup_of(topic, 10000)
        for _ = 1, 3 do
            local nginx = start { backpath = path, replay_rate = 3000 }
            harness.eventually(15, function()
                assert.is_true(nginx:stats().replayed_cnt > 300)
            end)
            nginx:stop()
        end
        start { backpath = path, replay_rate = 0 }
        harness.eventually(30, function()
            assert.same({ "~journal", "~lock" }, names(path))
        end)
        local list = numbers(topic)
        table.sort(list)
        assert.same(harness.count_to(10000), list)
    end)

    it("DSK-03: a worker that is killed in it loses nothing and repeats a chunk at most", function()
        local topic = kafka:topic("replay-killed", 2)
        local path = backup_of(topic, 20000)
        local nginx = start { backpath = path, replay_rate = 8000 }
        for _ = 1, 3 do
            harness.eventually(15, function()
                assert.is_true(nginx:stats().replayed_cnt > 500)
            end)
            nginx:kill_worker()
        end
        harness.eventually(30, function()
            assert.same({ "~journal", "~lock" }, names(path))
        end)
        local times, doubles = {}, 0
        for _, number in ipairs(numbers(topic)) do
            doubles = doubles + (times[number] and 1 or 0)
            times[number] = true
        end
        assert.equal(20000, #times)
        assert.is_true(doubles <= 3 * 4096, doubles)
    end)
end)


describe("lines of others", function()
    it("that failed_cb wrote stay where they are, and are sent with \"all\"", function()
        local topic = kafka:topic("replay-fp", 1)
        local first = harness.nginx {
            init_worker = [[
                assert(require("lkfk.kfk").init {
                    metadata_broker_list = { "127.0.0.1:1" }, message_timeout_ms = 300,
                    queue_path = queue_path, backpath = backpath,
                    queue_buffering_max_ms = 5,
                    failed_cb = function(kfk, msg)
                        if msg.str == "mine" then error("lkfk may have it") end
                        kfk.fp[msg.topic]:write(ngx.localtime(), "\t", msg.topic, "\t",
                                                msg.key, "\t", msg.str, "\n")
                    end,
                })
            ]],
        }
        first:run([[
            local topic = ...
            for i = 1, 3 do
                assert(kfk.log(topic, "k", "theirs\\t" .. i))
                assert(kfk.log(topic, "k", "mine"))
            end
        ]], topic)
        harness.eventually(10, function()
            assert.equal(6, first:stats().fail_msg_cnt)
        end)
        first:stop()
        local own = start { backpath = first.backpath }
        await(own, "replayed_cnt", 3)
        ngx.sleep(1.5)
        assert.equal(0, own:stats().replay_waiting_bytes)
        for _, record in ipairs(kafka:records(topic)) do
            assert.equal("mine", record.payload)
        end
        own:stop()
        local all = start { backpath = first.backpath, replay = "all" }
        await(all, "replayed_cnt", 3)
        assert.same({ "mine", "mine", "mine", "theirs\\t1", "theirs\\t2", "theirs\\t3" },
                    kafka:payloads(topic))
        harness.eventually(10, function()
            assert.is_nil(lfs.attributes(first.backpath .. "/" .. topic))
        end)
    end)

    it("DSK-13: that ngx_lua_lkfk wrote are sent with \"all\", with their time", function()
        local topic = kafka:topic("replay-original", 1)
        local nginx = start { replay = "all" }
        process.write(nginx.backpath .. "/" .. topic, table.concat {
            "2020-03-01 10:20:30\t", topic, "\torder 1\t{\"path\": \"C:\\\\new\"}\n",
            "2020-03-01 10:20:31\t", topic, "\torder 2\tone\ttwo\n",
        })
        await(nginx, "replayed_cnt", 2)
        local records = kafka:records(topic)
        assert.same({ "order 1", '{"path": "C:\\\\new"}' }, { records[1].key, records[1].payload })
        assert.same({ "order 2", "one\ttwo" }, { records[2].key, records[2].payload })
        local time = os.time { year = 2020, month = 3, day = 1, hour = 10, min = 20, sec = 30 }
        assert.equal(time * 1000, records[1].timestamp)
        assert.is_nil(lfs.attributes(nginx.backpath .. "/" .. topic))
    end)

    it("FLT-17: in files whose names are no topics stay where they are", function()
        local known = kafka:topic("replay-known", 1)
        local path = backup_of("replay-stray-other", 1)
        for _, name in ipairs { "README.txt", "replay-stray-unknown", known } do
            local file = assert(io.open(path .. "/" .. name, "w"))
            file:write("2024-01-01 00:00:00\t", name, "\tk\t1\n")
            file:close()
        end
        local nginx = start({ backpath = path, replay = "all" })
        await(nginx, "replayed_cnt", 2)
        ngx.sleep(2)
        assert.same({ "README.txt", "replay-stray-unknown", "~journal", "~lock" }, names(path))
        assert.same({ 1 }, numbers(known))
        assert.is_nil(nginx:error_log():find("README.txt", 1, true))
    end)

    it("that look like lkfk's and that no journal knows are told of, once for all", function()
        local path = backup_of("replay-unclaimed", 5)
        -- As on a file system whose inode numbers change at each mount.
        for name in lfs.dir(path .. "/~journal") do
            os.remove(path .. "/~journal/" .. name)
        end
        local nginx = start({ backpath = path }, { workers = 2 })
        local said = "backup file replay-unclaimed begins with lines that no journal of lkfk's "
                     .. "knows"
        harness.eventually(10, function()
            assert.matches(said, nginx:error_log(), 1, true)
        end)
        ngx.sleep(2.5)
        assert.equal(1, select(2, nginx:error_log():gsub("that no journal of lkfk's knows", "")))
        assert.same({ "replay-unclaimed", "~journal", "~lock" }, names(path))
        os.rename(path .. "/replay-unclaimed", path .. "/replay-unclaimed~redo")
        harness.eventually(20, function()
            assert.same(harness.count_to(5), numbers("replay-unclaimed"))
        end)
    end)

    it("stay when their topic is not in topics", function()
        local topic = kafka:topic("replay-not-allowed", 1)
        local nginx = start { replay = "all", topics = { "replay-allowed" } }
        local line = "2020-03-01 10:20:30\t" .. topic .. "\tk\tp\n"
        process.write(nginx.backpath .. "/" .. topic, line)
        ngx.sleep(2.5)
        assert.equal(line, process.read(nginx.backpath .. "/" .. topic))
        assert.same({}, kafka:records(topic))
    end)
end)


describe("DSK-06: a poison line", function()
    it("that the broker will never take is moved aside, and the rest goes on", function()
        local topic = kafka:topic("replay-large", 1, { ["max.message.bytes"] = 20000 })
        local nginx = start { metadata_broker_list = BROKER_DOWN, message_timeout_ms = 300 }
        nginx:run([[
            local topic = ...
            for i = 1, 20 do
                assert(kfk.log(topic, "k", i % 10 == 5 and ("x"):rep(30000) or tostring(i)))
            end
        ]], topic)
        await(nginx, "fail_msg_cnt", 20)
        nginx:stop()
        local second = start { backpath = nginx.backpath }
        await(second, "replay_poison_cnt", 2)
        await(second, "replayed_cnt", 18)
        assert.equal(18, #kafka:records(topic))
        local bad = second.backup({ backpath = nginx.backpath }, topic .. "~bad")
        assert.same({ 2, 30000 }, { #bad, #bad[1].payload })
        assert.is_nil(lfs.attributes(nginx.backpath .. "/" .. topic))
        harness.eventually(5, function()
            assert.matches(topic .. "~bad in backpath: MESSAGE_TOO_LARGE", second:error_log(), 1,
                           true)
        end)
    end)

    it("TIM-02: whose time the broker does not take is moved aside", function()
        -- All of them are older than a millisecond when they come.
        local topic = kafka:topic("replay-time", 1, { ["message.timestamp.before.max.ms"] = 1 })
        local nginx = start {}
        log(nginx, topic, 1, 5)
        await(nginx, "replay_poison_cnt", 5)
        assert.equal(0, #kafka:records(topic))
        assert.equal(5, #nginx:backup(topic .. "~bad"))
        harness.eventually(5, function()
            assert.matches("INVALID_TIMESTAMP", nginx:error_log(), 1, true)
        end)
    end)

    it("that is none is moved aside with \"all\"", function()
        local topic = kafka:topic("replay-none", 1)
        local nginx = start { replay = "all" }
        local good = "2020-03-01 10:20:30\t" .. topic .. "\tk\t"
        process.write(nginx.backpath .. "/" .. topic .. "~1",
                      good .. "1\nnonsense\n\n" .. good .. "2\nhalf")
        await(nginx, "replayed_cnt", 2)
        await(nginx, "replay_poison_cnt", 3)
        assert.same({ 1, 2 }, numbers(topic))
        assert.equal("nonsense\n\nhalf\n", process.read(nginx.backpath .. "/" .. topic .. "~bad"))
    end)

    it("of a topic that does not exist waits until it does", function()
        local path = backup_of("replay-later", 5)
        local nginx = start { backpath = path, allow_auto_create_topics = false }
        ngx.sleep(2.5)
        local seen = nginx:stats()
        assert.same({ 0, 0 }, { seen.replayed_cnt, seen.replay_poison_cnt })
        assert.is_true(seen.replay_waiting_bytes > 0)
        kafka:topic("replay-later", 1)
        await(nginx, "replayed_cnt", 5, 30)
        assert.same(harness.count_to(5), numbers("replay-later"))
    end)
end)


it("DSK-09: a large backlog slows no start and takes no memory", function()
    local topic = kafka:topic("replay-backlog", 1)
    local nginx = harness.nginx { locations = { ["/ping"] = "ngx.print('pong')" } }
    nginx:stop()
    local line = ("2020-03-01 10:20:30\t%s\tk\t%s\n"):format(topic, ("x"):rep(1000))
    local block = line:rep(1000)
    local file = assert(io.open(nginx.backpath .. "/" .. topic, "wb"))
    for _ = 1, 300 do
        assert(file:write(block))
    end
    file:close()
    local loaded = start {
        backpath = nginx.backpath, replay = "all", queue_buffering_max_kbytes = 4096,
    }
    log(loaded, topic, 1, 1)
    assert.is_true(loaded:run("return kfk.flush(10)"))
    harness.eventually(10, function()
        assert.is_true(loaded:stats().replayed_cnt > 1000)
    end)
    assert.is_true(loaded:stats().replay_waiting_bytes > 250000000)
    local status = assert(process.read("/proc/" .. loaded:pids()[1] .. "/status"))
    local kbytes = tonumber(status:match("VmHWM:%s+(%d+) kB"))
    assert.is_true(kbytes < 100000, kbytes)
end)
