-- failed_cb and partitioner: what they are given, when they run, and what their faults do.

local harness = require "spec.harness"
local process = require "spec.harness.process"

local kafka = harness.kafka
local DEAD = { "127.0.0.1:1" }


-- start(conf, functions, options): `functions` is Lua text of keys of the configuration. They may
-- leave things in the table require("seen"). options.before is Lua text that runs before lkfk is
-- loaded.
local function start(conf, functions, options)
    options = options or {}
    conf.queue_buffering_max_ms = conf.queue_buffering_max_ms or 5
    options.producer = conf
    options.init = ([[
        package.loaded.seen = {}
        package.loaded["lkfk.conf"] = { default_conf = { %s } }
        %s
    ]]):format(functions, options.before or "")
    return harness.nginx(options)
end


-- With a failed_cb of this body, and nobody to deliver to.
local function start_failing(body, options)
    local conf = { metadata_broker_list = DEAD, message_timeout_ms = 300 }
    return start(conf, "failed_cb = function(kfk, msg) " .. body .. " end", options)
end


local function log(nginx, topic, first, last)
    nginx:run([[
        local topic, first, last = ...
        for i = first, last do assert(kfk.log(topic, "key " .. i, i)) end
    ]], topic, first, last)
end


local function seen(nginx)
    return nginx:run("return require('seen')")
end


local function await_failed(nginx, count, seconds)
    harness.eventually(seconds or 10, function()
        local now = nginx:stats()
        assert.same({ count, 0 }, { now.fail_msg_cnt, now.queue_messages })
    end)
end


local function count(text, pattern)
    return select(2, text:gsub(pattern, ""))
end


describe("failed_cb", function()
    local KEEP = [[table.insert(require("seen"), {
        topic = msg.topic, key = msg.key, str = msg.str, err = msg.err, code = msg.code,
    })]]

    it("is given topic, key, payload, and why", function()
        local nginx = start_failing(KEEP)
        nginx:run([[
            assert(kfk.log("cb-given", "a\tkey", "any\n\0bytes"))
            assert(kfk.log("cb-given", nil, ""))
        ]])
        await_failed(nginx, 2)
        local why = "message_timeout_ms passed"
        assert.same({
            { topic = "cb-given", key = "a\tkey", str = "any\n\0bytes", err = why },
            { topic = "cb-given", str = "", err = why },
        }, seen(nginx))
        assert.same({}, nginx:backup("cb-given"))
    end)

    it("is given the broker's error and its code", function()
        local topic = kafka:topic("cb-code", 1, { ["max.message.bytes"] = 500 })
        local nginx = start({}, "failed_cb = function(_, msg) " .. KEEP .. " end")
        nginx:run("assert(kfk.log(..., 'key', ('x'):rep(1000)))", topic)
        await_failed(nginx, 1)
        local msg = seen(nginx)[1]
        assert.equal(10, msg.code)
        assert.matches("MESSAGE_TOO_LARGE", msg.err)
    end)

    it("is given the configuration as kfk.cf, defaults included", function()
        local nginx = start_failing([[
            local cf = kfk.cf
            table.insert(require("seen"), {
                cf.message_timeout_ms, cf.client_id, cf.batch_num_messages, cf.backpath,
                type(cf.failed_cb), cf.metadata_broker_list[1],
            })
        ]])
        log(nginx, "cb-cf", 1, 1)
        await_failed(nginx, 1)
        assert.same({ { 300, "lkfk", 500, nginx.backpath, "function", DEAD[1] } }, seen(nginx))
    end)

    it("is not given passwords and private keys", function()
        for _, key in ipairs { "sasl_password", "sasl.password" } do
            local body = [[
                local shown = { kfk.cf.sasl_username, "-" }
                for name in pairs(kfk.cf) do
                    if name:find("password") or name:find("key.pem") then
                        shown[2] = name
                    end
                end
                table.insert(require("seen"), shown)
            ]]
            local nginx = start({
                metadata_broker_list = DEAD, message_timeout_ms = 300,
                security_protocol = "sasl_ssl", sasl_mechanisms = "SCRAM-SHA-256",
                sasl_username = "nginx", [key] = "open-sesame",
                ssl_certificate_pem = "certificate", ["ssl.key.pem"] = "key",
                ssl_key_password = "sesame",
            }, "failed_cb = function(kfk, msg) " .. body .. " end")
            log(nginx, "cb-secret", 1, 1)
            await_failed(nginx, 1)
            assert.same({ { "nginx", "-" } }, seen(nginx))
        end
    end)

    -- Its own text, as it stood in ngx_lua_lkfk's conf.lua.
    it("writes lines to the backup file with kfk.fp[topic]:write()", function()
        local nginx = start_failing([[
            local localtime = ngx.localtime
            kfk.fp[msg.topic]:write(localtime(), "\t", msg.topic, "\t", msg.key, "\t", msg.str,
                                    "\n")
        ]])
        log(nginx, "cb-write", 1, 300)
        log(nginx, "cb-write-other", 1, 1)
        await_failed(nginx, 301)
        harness.eventually(5, function()
            assert.equal(1, #nginx:backup("cb-write-other"))
        end)
        local lines = nginx:backup("cb-write")
        assert.equal(300, #lines)
        for i, line in ipairs(lines) do
            assert.same({ "cb-write", "key " .. i, tostring(i) },
                        { line.topic, line.key, line.payload })
        end
    end)

    it("that throws leaves its messages in the backup and says so, once a second", function()
        local nginx = start_failing("error('a fault of mine at ' .. msg.str)")
        log(nginx, "cb-throws", 1, 1000)
        await_failed(nginx, 1000)
        local lines = nginx:backup("cb-throws")
        assert.equal(1000, #lines)
        local found = {}
        for _, line in ipairs(lines) do
            found[tonumber(line.payload)] = true
        end
        assert.equal(1000, #found)
        local said = count(nginx:error_log(), "%[error%][^\n]*failed_cb: [^\n]*a fault of mine")
        assert.is_true(said >= 1 and said <= 3, said)
    end)

    it("that throws at some messages keeps the others", function()
        local nginx = start_failing([[
            if tonumber(msg.str) % 2 == 0 then error("even") end
            table.insert(require("seen"), tonumber(msg.str))
        ]])
        log(nginx, "cb-throws-some", 1, 6)
        await_failed(nginx, 6)
        local payloads = {}
        for i, line in ipairs(nginx:backup("cb-throws-some")) do
            payloads[i] = line.payload
        end
        assert.same({ 1, 3, 5 }, seen(nginx))
        assert.same({ "2", "4", "6" }, payloads)
    end)

    it("that never returns leaves its message in the backup and does not hold up others", function()
        local nginx = start_failing(KEEP .. [[
            if msg.str == "2" then ngx.exit(ngx.OK) end
        ]], {
            -- A minute is over in half a second.
            before = "local now = ngx.now; ngx.now = function() return now() * 120 end",
        })
        log(nginx, "cb-never", 1, 3)
        await_failed(nginx, 3)
        harness.eventually(5, function()
            assert.equal(3, #seen(nginx))
        end)
        harness.eventually(5, function()
            local lines = nginx:backup("cb-never")
            assert.same({ 1, "2" }, { #lines, lines[1] and lines[1].payload })
        end)
        assert.matches("failed_cb: has not returned for 60 s", nginx:error_log(), 1, true)
    end)

    it("whose text cannot be taken has its message in the backup all the same", function()
        local nginx = start_failing([[
            local rest = msg.str == "2" and ("x"):rep(9 * 1024 * 1024) or ""
            kfk.fp[msg.topic]:write("2026-01-01 00:00:00\t", msg.topic, "\tk\t", msg.str, rest,
                                    "\n")
        ]])
        log(nginx, "cb-refused", 1, 3)
        await_failed(nginx, 3)
        harness.eventually(5, function()
            local texts = {}
            for i, line in ipairs(nginx:backup("cb-refused")) do
                texts[i] = line.payload
            end
            table.sort(texts)
            assert.same({ "1", "2", "3" }, texts)
        end)
    end)

    it("may sleep, use cosockets, and log", function()
        local topic = kafka:topic("cb-yields", 1)
        local nginx = start({ message_timeout_ms = 2000, allow_auto_create_topics = false }, [[
            failed_cb = function(_, msg)
                ngx.sleep(0.02)
                local socket = ngx.socket.tcp()
                local ok, err = socket:connect("127.0.0.1", require("seen").port)
                if ok then
                    ok, err = socket:send("GET /pong HTTP/1.0\r\n\r\n")
                end
                local answer
                if ok then
                    answer, err = socket:receive("*a")
                end
                socket:close()
                table.insert(require("seen"), (answer or err):match("pong$") or answer or err)
                assert(require("lkfk.kfk").log("cb-yields", msg.key, msg.str))
            end
        ]], { locations = { ["/pong"] = "ngx.print('pong')" } })
        nginx:run("require('seen').port = ...", nginx.port)
        log(nginx, "cb-yields-unknown", 1, 20)
        harness.eventually(10, function()
            assert.equal(20, nginx:stats().succ_msg_cnt)
        end)
        local found = seen(nginx)
        found.port = nil
        assert.equal(("pong "):rep(20), table.concat(found, " ") .. " ")
        local payloads, expected = {}, {}
        for i, record in ipairs(kafka:records(topic)) do
            payloads[i], expected[i] = record.payload, tostring(i)
        end
        assert.same(expected, payloads)
        assert.same({}, nginx:backup("cb-yields-unknown"))
    end)

    it("gets 100,000 messages while nginx goes on serving", function()
        local TOTAL = 100000
        local nginx = start({
            metadata_broker_list = DEAD, message_timeout_ms = 1000,
            queue_buffering_max_messages = TOTAL,
        }, [[
            failed_cb = function()
                local seen = require "seen"
                seen.count = (seen.count or 0) + 1
            end
        ]])
        -- A probe on the same worker: how late does a 1 ms sleep come back, at worst?
        nginx:run([[
            ngx.timer.at(0, function()
                local seen = require "seen"
                seen.gap = 0
                repeat
                    ngx.update_time()
                    local began = ngx.now()
                    ngx.sleep(0.001)
                    ngx.update_time()
                    if seen.count and seen.count < 100000 then
                        seen.gap = math.max(seen.gap, ngx.now() - began)
                    end
                until ngx.worker.exiting()
            end)
        ]])
        log(nginx, "cb-many", 1, TOTAL)
        await_failed(nginx, TOTAL, 60)
        local found = seen(nginx)
        assert.equal(TOTAL, found.count)
        io.stdout:write(("        longest gap %d ms\n"):format(found.gap * 1000))
        assert.is_true(found.gap > 0 and found.gap < 0.1, found.gap)
        assert.same({}, nginx:backup("cb-many"))
    end)

    it("FLT-05: handles a message or leaves it in the backup, also in a reload", function()
        local nginx = start({ metadata_broker_list = DEAD, message_timeout_ms = 300 }, [[
            failed_cb = function(_, msg)
                ngx.sleep(0.005)
                local file = assert(io.open(ngx.config.prefix() .. "/handled", "a"))
                file:write(msg.str, "\n")
                file:close()
            end
        ]])
        log(nginx, "cb-reload", 1, 200)
        local function handled()
            local list = {}
            for number in (process.read(nginx.prefix .. "/handled") or ""):gmatch("%d+") do
                list[#list + 1] = tonumber(number)
            end
            return list
        end
        harness.eventually(5, function()
            assert.is_true(#handled() > 10)
        end)
        nginx:reload()
        harness.eventually(10, function()
            assert.equal(1, #nginx:queue_files())
        end)
        nginx:stop()
        local kept, all = handled(), {}
        for _, line in ipairs(nginx:backup("cb-reload")) do
            kept[#kept + 1] = tonumber(line.payload)
        end
        table.sort(kept)
        for i = 1, 200 do
            all[i] = i
        end
        assert.same(all, kept)
    end)

    it("is given what log() could not take, after log() has returned", function()
        -- A broker that is there and does not answer: nothing moves to make room.
        kafka:pause()
        local nginx = start({
            metadata_broker_list = { kafka.bootstrap }, message_timeout_ms = 60000,
            queue_buffering_max_messages = 2, topics = { "cb-refused" },
        }, [[failed_cb = function(_, msg)
            table.insert(require("seen"), { msg.topic, msg.key, msg.str, msg.err })
        end]])
        local inside = nginx:run([[
            for i = 1, 3 do kfk.log("cb-refused", nil, i) end
            kfk.log("cb-refused-unknown", "key", "x")
            return #require("seen")
        ]])
        assert.equal(0, inside)
        harness.eventually(5, function()
            assert.same({
                { "cb-refused", nil, "3", "nobufs" },
                { "cb-refused-unknown", "key", "x", "topic unknown" },
            }, seen(nginx))
        end)
    end)

    it("is not run at exit: what is left goes to the backup", function()
        local nginx = start({
            metadata_broker_list = DEAD, message_timeout_ms = 60000, exit_timeout_ms = 100,
        }, "failed_cb = function() error('called') end")
        log(nginx, "cb-exit", 1, 50)
        nginx:stop()
        assert.equal(50, #nginx:backup("cb-exit"))
        assert.is_nil(nginx:error_log():find("called", 1, true))
        assert.same({}, nginx:queue_files())
    end)
end)


describe("partitioner", function()
    -- Key -> partition.
    local function partitions(topic)
        local found = {}
        for _, record in ipairs(kafka:records(topic)) do
            found[record.key] = record.partition
        end
        return found
    end

    local function expected(first, last, partition_of)
        local list = {}
        for i = first, last do
            local key = "key " .. i
            list[key] = partition_of(i, key)
        end
        return list
    end

    local function by_crc32(_, key)
        return ngx.crc32_long(key) % 3
    end

    it("is asked for messages that were logged before the first metadata, in order", function()
        local topic = kafka:topic("cb-early", 3)
        local nginx = start({}, [[
            partitioner = function(key, count)
                require("seen").counts = (require("seen").counts or "") .. count
                return (tonumber(key:match("%d+")) + 1) % count
            end
        ]], {
            init_worker = ([[
                for i = 1, 2000 do
                    assert(require("lkfk.kfk").log(%q, "key " .. i, i))
                end
            ]]):format(topic),
        })
        assert.is_true(nginx:run("return kfk.flush(10)"))
        log(nginx, topic, 2001, 2100)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.same(expected(1, 2100, function(i) return (i + 1) % 3 end), partitions(topic))
        assert.equal(("3"):rep(2100), seen(nginx).counts)
        local last = { [0] = 0, 0, 0 }
        for _, record in ipairs(kafka:records(topic)) do
            local number = tonumber(record.payload)
            assert.is_true(number > last[record.partition])
            last[record.partition] = number
        end
    end)

    it("with results that are no partition gives way to the default one, and it is said", function()
        local topic = kafka:topic("cb-range", 3)
        local nginx = start({}, [[
            partitioner = function(key)
                local i = tonumber(key:match("%d+"))
                return ({ -1, 3, 1.5, "1", 0 / 0, math.huge, false })[i]
            end
        ]])
        log(nginx, topic, 1, 8)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        log(nginx, topic, 9, 10)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.same(expected(1, 10, by_crc32), partitions(topic))
        assert.matches("%[error%][^\n]*partitioner: returned %S+ for 3 partitions; the default "
                       .. "partitioner is used", nginx:error_log())
    end)

    it("that throws gives way to the default one, and it is said once a second", function()
        local topic = kafka:topic("cb-partitioner-throws", 3)
        local nginx = start({}, "partitioner = function() error('a fault of mine') end")
        log(nginx, topic, 1, 500)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        log(nginx, topic, 501, 1000)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.same(expected(1, 1000, by_crc32), partitions(topic))
        local said = count(nginx:error_log(), "%[error%][^\n]*partitioner: [^\n]*a fault of mine")
        assert.is_true(said >= 1 and said <= 4, said)
    end)

    it("is given nil for a null key", function()
        local topic = kafka:topic("cb-null-key", 3)
        local nginx = start({}, [[
            partitioner = function(key)
                table.insert(require("seen"), tostring(key))
                return 2
            end
        ]])
        nginx:run("assert(kfk.log(..., nil, 'early'))", topic)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        nginx:run("assert(kfk.log(..., nil, 'late'))", topic)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        assert.same({ "nil", "nil" }, seen(nginx))
        for _, record in ipairs(kafka:records(topic)) do
            assert.is_nil(record.key)
            assert.equal(2, record.partition)
        end
    end)
end)


-- What is looked at: which functions of lkfk's Lua files run in log(). What a compiled log() costs
-- is jit_spec's.
it("without callbacks nothing of this runs", function()
    local WATCH = [[
        local topic = ...
        assert(kfk.log(topic, "key", "payload"))
        assert(kfk.flush(10))
        jit.off()
        jit.flush()
        local ran = {}
        debug.sethook(function()
            local place = debug.getinfo(2, "S").short_src
            if place:find("lkfk", 1, true) then ran[place] = (ran[place] or 0) + 1 end
        end, "c")
        for _ = 1, 10 do kfk.log(topic, "key", "payload") end
        debug.sethook()
        jit.on()
        return ran
    ]]
    local topic = kafka:topic("cb-without", 1)
    local function ran(functions)
        local nginx = start({}, functions)
        local found, sum = nginx:run(WATCH, topic), 0
        for place, times in pairs(found) do
            assert.is_true(functions ~= "" or not place:find("callbacks", 1, true), place)
            sum = sum + times
        end
        return sum
    end
    assert.equal(10, ran(""))
    assert.is_true(ran("partitioner = function() return 0 end") > 20)
end)
