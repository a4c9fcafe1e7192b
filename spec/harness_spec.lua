-- The harness proves itself, without lkfk: what it starts works, what it reports is true, and what
-- goes wrong shows.

local harness = require "spec.harness"

local kafka = harness.kafka
local BYTES = "a\0b\nc\r\t \255\254 %s 12 0 1 2:"


-- kcat takes the whole of its input as one message when it is a file.
local function produce(broker, topic, partition, key, payload)
    local path = os.getenv("LKFK_STAGE") .. "/payload"
    local file = assert(io.open(path, "wb"))
    file:write(payload)
    file:close()
    local code, _, err = harness.run {
        "kcat", "-P", "-b", broker.bootstrap, "-t", topic, "-p", partition, "-k", key,
        "-X", "message.timeout.ms=2000", path,
    }
    return code == 0, err
end


describe("harness.run", function()
    it("gives exit code, stdout and stderr apart", function()
        local script = "cat; echo \"it's\" >&2; exit 3"
        local code, out, err = harness.run({ "sh", "-c", script }, { stdin = BYTES })
        assert.same({ 3, BYTES, "it's\n" }, { code, out, err })
    end)

    it("passes each argument as it is", function()
        local _, out = harness.run { "printf", "%s|", "a b", "'", "$HOME", "" }
        assert.equal("a b|'|$HOME||", out)
    end)

    it("ends a program that takes too long", function()
        assert.equal(124, (harness.run({ "sleep", "30" }, { seconds = 0.2 })))
    end)

    it("lets light threads go on meanwhile", function()
        local ticks = 0
        local ticker = ngx.thread.spawn(function()
            for _ = 1, 10 do
                ngx.sleep(0.01)
                ticks = ticks + 1
            end
        end)
        harness.run { "sleep", "0.5" }
        ngx.thread.wait(ticker)
        assert.equal(10, ticks)
    end)
end)


describe("harness.start", function()
    local output, pid

    it("shows what a program that runs beside the test writes", function()
        output = harness.start { "sh", "-c", "echo \"$$ it's\"; exec sleep 60" }
        pid = harness.eventually(2, function()
            return output():match("^(%d+) it's\n$")
        end)
        assert.is_true(harness.alive(pid))
    end)

    it("ends it after that test", function()
        harness.eventually(1, function()
            return not harness.alive(pid)
        end)
    end)
end)


describe("harness.eventually", function()
    it("returns what the function returns at last", function()
        local calls = 0
        local first, second = harness.eventually(5, function()
            calls = calls + 1
            return calls == 3 and "third", "call"
        end)
        assert.same({ "third", "call", 3 }, { first, second, calls })
    end)

    it("is content with a function that returns nothing and does not raise", function()
        local calls = 0
        harness.eventually(5, function()
            calls = calls + 1
            assert.equal(2, calls)
        end)
        assert.equal(2, calls)
    end)

    it("does not take nil for an answer", function()
        assert.has_error(function()
            harness.eventually(0.1, function() return nil end)
        end)
    end)

    it("raises the last failure when the time is over", function()
        local ok, err = pcall(harness.eventually, 0.1, function() error("still not", 0) end)
        assert.is_false(ok)
        assert.matches("still not", err, 1, true)
    end)
end)


describe("harness.nginx", function()
    local nginx

    setup(function()
        nginx = harness.nginx {
            workers = 2,
            http = "lua_shared_dict seen 1m;",
            init_worker = [[
                ngx.shared.seen:set("queue_path", queue_path)
                ngx.log(ngx.WARN, "worker speaks")
            ]],
            locations = {
                ["/hello"] = "ngx.print('hello ', ngx.var.arg_name or ngx.req.get_method())",
                ["/seen"] = "ngx.print(ngx.shared.seen:get(ngx.var.arg_key))",
                ["/pid"] = "ngx.print(ngx.worker.pid())",
                ["/phases"] = {
                    rewrite = "ngx.ctx.trail = 'rewrite'",
                    access = "ngx.ctx.trail = ngx.ctx.trail .. ' access'",
                    content = "ngx.print(ngx.ctx.trail, ' content')",
                    log = "ngx.shared.seen:set('trail', ngx.ctx.trail .. ' log')",
                },
                ["/echo"] = [[
                    ngx.req.read_body()
                    ngx.print(ngx.var.http_x_name, ngx.req.get_body_data())
                ]],
                ["/code"] = "ngx.exit(tonumber(ngx.var.arg_code))",
                ["/slow"] = "ngx.sleep(1) ngx.print('slow')",
            },
        }
    end)

    it("answers", function()
        assert.same({ 200, "hello you" }, { nginx:get("/hello?name=you") })
        assert.equal(503, (nginx:get("/code?code=503")))
    end)

    it("is sent method, headers and any bytes", function()
        local request = { method = "POST", body = BYTES, headers = { ["X-Name"] = "me" } }
        assert.same({ 200, "me" .. BYTES }, { nginx:get("/echo", request) })
        assert.same({ 200, "hello PUT" }, { nginx:get("/hello", { method = "PUT" }) })
    end)

    it("runs code in each phase", function()
        assert.same({ 200, "rewrite access content" }, { nginx:get("/phases") })
        harness.eventually(2, function()
            assert.same({ 200, "rewrite access log" }, { nginx:get("/seen?key=trail") })
        end)
    end)

    it("has a directory for queue files of its own", function()
        local _, path = nginx:get("/seen?key=queue_path")
        assert.equal(nginx.queue_path, path)
        assert.equal(0, (harness.run { "test", "-d", path, "-a", "-w", path }))
    end)

    it("shows its error log", function()
        local _, count = nginx:error_log():gsub("worker speaks", "")
        assert.is_true(count >= 2)
    end)

    it("knows its workers", function()
        local pids = nginx:pids()
        local _, answering = nginx:get("/pid")
        assert.equal(2, #pids)
        assert.is_true(tonumber(answering) == pids[1] or tonumber(answering) == pids[2])
    end)

    it("replaces its workers at a reload, and lets the old ones finish", function()
        local old = nginx:pids()
        local slow = ngx.thread.spawn(nginx.get, nginx, "/slow")
        ngx.sleep(0.2)
        local new = nginx:reload()
        local _, leaving = nginx:pids()
        assert.equal(1, #leaving)
        assert.is_true(leaving[1] == old[1] or leaving[1] == old[2])
        assert.are_not.same(old, new)
        local _, status, body = ngx.thread.wait(slow)
        assert.same({ 200, "slow" }, { status, body })
    end)

    it("gets a new worker for one that is killed", function()
        local victim = nginx:kill_worker()
        for _, pid in ipairs(nginx:pids()) do
            assert.are_not.equal(victim, pid)
        end
        assert.matches("process " .. victim .. " exited on signal 9", nginx:error_log(), 1, true)
        assert.same({ 200, "hello GET" }, { nginx:get("/hello") })
    end)

    it("stops gracefully, and starts again on the same port", function()
        local port, slow = nginx.port, ngx.thread.spawn(nginx.get, nginx, "/slow")
        ngx.sleep(0.2)
        nginx:stop()
        local _, status, body = ngx.thread.wait(slow)
        assert.same({ 200, "slow" }, { status, body })
        assert.is_nil((nginx:get("/hello")))
        nginx:start()
        assert.equal(port, nginx.port)
        assert.equal(200, (nginx:get("/hello")))
    end)

    it("leaves nobody behind when it is killed", function()
        local workers = nginx:pids()
        assert.is_true(harness.alive(workers[1]))
        nginx:kill()
        for _, pid in ipairs(workers) do
            assert.is_false(harness.alive(pid))
        end
        nginx:start()
    end)

    it("runs code in a worker, with arguments and results of every kind", function()
        local function pack(...)
            return { n = select("#", ...), ... }
        end
        local results = pack(nginx:run("return ngx.get_phase(), select('#', ...), ...",
                                       BYTES, nil, { 1, { [BYTES] = -0.5 } }, true, 1e15, nil))
        assert.same(pack("content", 6, BYTES, nil, { 1, { [BYTES] = -0.5 } }, true, 1e15, nil),
                    results)
    end)

    it("raises what such code raises, and what is wrong with it", function()
        for code, text in pairs { ["error('no luck')"] = "no luck", ["return ("] = "unexpected" } do
            local ok, err = pcall(nginx.run, nginx, code)
            assert.is_false(ok)
            assert.matches(text, err, 1, true)
        end
    end)

    it("reads backup files, and takes no other lines for theirs", function()
        local function write(text)
            local file = assert(io.open(nginx.backpath .. "/topic", "wb"))
            file:write(text)
            file:close()
        end
        assert.same({}, nginx:backup("topic"))
        local time = "2000-12-31 23:59:59"
        write(time .. "\ttopic\t\\N\ta\0b\n" .. time .. "\ttopic\t\\\\N\t\\b\\t\\n\\v\\f\\r\n")
        assert.same({
            { time = time, topic = "topic", payload = "a\0b" },
            { time = time, topic = "topic", key = "\\N", payload = "\b\t\n\v\f\r" },
        }, nginx:backup("topic"))
        for _, line in ipairs {
            time .. "\ttopic\tk\tcut", time .. "\ttopic\tk\n", "topic\tk\tp\n",
            time .. "\ttopic\tk\tp\tmore\n", time .. "\ttopic\tk\t\\x\n",
        } do
            write(line)
            assert.has_error(function() nginx:backup("topic") end)
        end
    end)

    it("finds queue files, and counts threads by their name", function()
        assert.same({}, nginx:queue_files())
        assert.equal(0, (harness.run { "mkdir", nginx.queue_path .. "/lkfk-7" }))
        assert.equal(0, (harness.run { "touch", nginx.queue_path .. "/lkfk-7/a.queue" }))
        assert.same({ "a.queue" }, nginx:queue_files())
        assert.equal(0, nginx:threads(nginx:pids()[1]))
        local output = harness.start {
            "sh", "-c", "printf lkfk >/proc/$$/comm; echo $$; while sleep 0.1; do :; done",
        }
        local pid = harness.eventually(2, function() return output():match("(%d+)\n") end)
        assert.equal(1, nginx:threads(pid))
    end)

    it("says why it does not start", function()
        local ok, err = pcall(harness.nginx, { http = "no_such_directive on;" })
        assert.is_false(ok)
        assert.matches("no_such_directive", err, 1, true)
    end)
end)


describe("what a scope starts", function()
    local mine

    it("answers within the scope", function()
        mine = harness.nginx { locations = { ["/"] = "ngx.print('up')" } }
        assert.same({ 200, "up" }, { mine:get("/") })
    end)

    it("is gone after it", function()
        assert.is_nil(mine.master)
        assert.is_nil((mine:get("/")))
    end)
end)


describe("harness.kafka", function()
    it("reads back any bytes, in order, with key, offset, partition and time", function()
        local topic = kafka:topic("harness-bytes", 3)
        local before = ngx.now() * 1000 - 1000
        assert(produce(kafka, topic, 2, "key\tone", BYTES))
        assert(produce(kafka, topic, 2, "key two", "second"))
        assert(produce(kafka, topic, 0, "k", ("x"):rep(100000)))
        local by_partition = { [0] = {}, [1] = {}, [2] = {} }
        for _, record in ipairs(kafka:records(topic)) do
            assert.is_true(record.timestamp > before)
            record.timestamp = nil
            table.insert(by_partition[record.partition], record)
        end
        assert.same({}, by_partition[1])
        assert.same({ { partition = 0, offset = 0, key = "k", payload = ("x"):rep(100000) } },
                    by_partition[0])
        assert.same({ partition = 2, offset = 0, key = "key\tone", payload = BYTES },
                    by_partition[2][1])
        assert.equal(2, #by_partition[2])
    end)

    it("tells null from empty", function()
        local topic = kafka:topic("harness-null", 1)
        local kcat = { "kcat", "-P", "-b", kafka.bootstrap, "-t", topic }
        assert.equal(0, (harness.run(kcat, { stdin = "null key\n" })))
        kcat[#kcat + 1] = "-K:"
        assert.equal(0, (harness.run(kcat, { stdin = ":empty key\nempty payload:\n" })))
        kcat[#kcat + 1] = "-Z"
        assert.equal(0, (harness.run(kcat, { stdin = "null payload:\n" })))
        local seen = {}
        for i, record in ipairs(kafka:records(topic)) do
            seen[i] = { record.key or "NULL", record.payload or "NULL" }
        end
        assert.same({
            { "NULL", "null key" },
            { "", "empty key" },
            { "empty payload", "" },
            { "null payload", "NULL" },
        }, seen)
    end)

    it("gives no records for an empty topic, and raises for one that is not there", function()
        assert.same({}, kafka:records(kafka:topic("harness-empty", 2)))
        assert.has_error(function() kafka:records("harness-absent") end)
    end)

    it("makes topics with their settings", function()
        local topic = kafka:topic("harness-small", 1, { ["max.message.bytes"] = 1000 })
        assert(produce(kafka, topic, 0, "k", "fits"))
        local ok, err = produce(kafka, topic, 0, "k", ("x"):rep(5000))
        assert.is_false(ok)
        assert.matches("size", err)
        assert.has_error(function() kafka:topic("harness-small", 1) end)
    end)

    it("answers nothing while paused, and all afterwards", function()
        local topic = kafka:topic("harness-pause", 1)
        kafka:pause()
        assert.is_false((produce(kafka, topic, 0, "k", "lost")))
        kafka:resume()
        assert(produce(kafka, topic, 0, "k", "arrived"))
        local records = kafka:records(topic)
        assert.equal("arrived", records[#records].payload)
    end)

    it("keeps its records and its address over a kill", function()
        local address, topic = kafka.bootstrap, kafka:topic("harness-kill", 1)
        assert(produce(kafka, topic, 0, "k", "before"))
        kafka:kill()
        assert.is_false((produce(kafka, topic, 0, "k", "lost")))
        kafka:start()
        assert.equal(address, kafka.bootstrap)
        assert.equal("before", kafka:records(topic)[1].payload)
    end)

    describe("left down by a test", function()
        it("(that test)", function()
            kafka:stop()
        end)

        it("is up again for the next", function()
            assert(produce(kafka, "harness-kill", 0, "k", "after"))
        end)
    end)

    it("has company when asked", function()
        local other = kafka:new("second", { "num.partitions=3" })
        assert.are_not.equal(kafka.bootstrap, other.bootstrap)
        other:topic("harness-second", 1)
        assert(produce(other, "harness-second", 0, "k", "there"))
        assert.equal("there", other:records("harness-second")[1].payload)
        assert.has_error(function() kafka:records("harness-second") end)
    end)
end)
