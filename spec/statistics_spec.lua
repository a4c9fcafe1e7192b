-- Statistics in ngx.shared.kfk: ngx_lua_lkfk's keys, summed over the workers.

local harness = require "spec.harness"

local kafka = harness.kafka
local DEAD = { "127.0.0.1:1" }
-- Long enough never to be over within a test.
local LONG = 100000
local WORKERS = 4

-- What is in the dict, but for lkfk's own keys, and but for partitions where nothing waits: those
-- where something did have a 0, others nothing.
local READ = [[
    local dict = ngx.shared.kfk
    local values = {}
    for _, key in ipairs(dict:get_keys(0)) do
        local value = dict:get(key)
        if not key:find("^lkfk%.") and not (key:find("%d$") and value == 0) then
            values[key] = value
        end
    end
    return values
]]


-- start(conf, init_worker): each of four workers runs init_worker, once for each worker number,
-- successors do not. It calls flush() when it is told so by `flush` below.
local function start(conf, init_worker)
    conf.message_timeout_ms = conf.message_timeout_ms or LONG
    return harness.nginx {
        workers = WORKERS,
        http = "lua_shared_dict control 1m;",
        producer = conf,
        init_worker = ([[
            local control, kfk = ngx.shared.control, require "lkfk.kfk"
            if control:add("began " .. ngx.worker.id(), true) then
                %s
            end
            ngx.timer.every(0.05, function()
                if control:get("flush") then kfk.flush(0) end
            end)
        ]]):format(init_worker),
    }
end


local function flush(nginx)
    nginx:run("ngx.shared.control:set('flush', true)")
end


local function await(nginx, expected)
    harness.eventually(10, function()
        assert.same(expected, nginx:run(READ))
    end)
end


-- What 40 messages, 10 from each worker, with the keys "key 1" to "key 10", are by partition.
local function by_partition(topic)
    local values = {}
    for i = 1, 10 do
        local name = topic .. ngx.crc32_long("key " .. i) % 2
        values[name] = (values[name] or 0) + WORKERS
    end
    return values
end


local function with(values, more)
    local all = {}
    for _, list in ipairs { values, more } do
        for key, value in pairs(list) do
            all[key] = value
        end
    end
    return all
end


local NOTHING_DONE = { msg_cnt = 40, succ_msg_cnt = 0, fail_msg_cnt = 0, waitbuf = 0 }
local ALL_DONE = { msg_cnt = 0, succ_msg_cnt = 40, fail_msg_cnt = 0, waitbuf = 0 }
local TEN_EACH = [[for i = 1, 10 do assert(kfk.log(%q, "key " .. i, i)) end]]


describe("ngx.shared.kfk", function()
    it("has what waits, is on its way, was delivered and has failed, of all workers", function()
        local topic = kafka:topic("status-sums", 2)
        local nginx = start({
            queue_buffering_max_ms = LONG, message_timeout_ms = 4000, request_timeout_ms = 10000,
            allow_auto_create_topics = false,
        }, TEN_EACH:format(topic) .. [[
            for i = 1, 5 do assert(kfk.log("status-unknown", nil, i)) end
        ]])
        local waiting = by_partition(topic)
        await(nginx, with(waiting, {
            msg_cnt = 60, succ_msg_cnt = 0, fail_msg_cnt = 0, waitbuf = 0,
            ["status-unknown-1"] = 20,
        }))
        kafka:pause()
        flush(nginx)
        await(nginx, {
            msg_cnt = 60, succ_msg_cnt = 0, fail_msg_cnt = 0, waitbuf = 40,
            ["status-unknown-1"] = 20,
        })
        kafka:resume()
        await(nginx, { msg_cnt = 0, succ_msg_cnt = 40, fail_msg_cnt = 20, waitbuf = 0 })
        assert.equal(40, #kafka:records(topic))
        assert.equal(20, #nginx:backup("status-unknown"))
    end)

    it("is right again after a worker was killed", function()
        local topic = kafka:topic("status-killed", 2)
        -- Long enough to see it all wait.
        local nginx = start({ queue_buffering_max_ms = 5000 }, TEN_EACH:format(topic))
        await(nginx, with(by_partition(topic), NOTHING_DONE))
        kafka:pause()
        nginx:kill_worker(2)
        harness.eventually(4, function()
            assert.matches("adopted the queue", nginx:error_log(), 1, true)
        end)
        -- Another worker has what it had: it waits, or is on its way.
        harness.eventually(4, function()
            local values = nginx:run(READ)
            local waiting = values.waitbuf
            for key, value in pairs(values) do
                waiting = waiting + (key:find(topic, 1, true) and value or 0)
            end
            assert.same({ 40, 40, 0, 0 }, {
                waiting, values.msg_cnt, values.succ_msg_cnt, values.fail_msg_cnt,
            })
        end)
        kafka:resume()
        await(nginx, ALL_DONE)
        assert.equal(40, #kafka:records(topic))
    end)

    it("is right again after a reload", function()
        local topic = kafka:topic("status-reload", 2)
        local nginx = start({ queue_buffering_max_ms = LONG, exit_timeout_ms = 3000 },
                            TEN_EACH:format(topic))
        local waiting = by_partition(topic)
        await(nginx, with(waiting, NOTHING_DONE))
        nginx:reload()
        await(nginx, ALL_DONE)
    end)

    it("keeps nothing of a worker that went while messages were on their way", function()
        local topic = kafka:topic("status-in-flight", 2)
        local log = TEN_EACH:format(topic)
        -- All of them go at once, and stay on their way, however slow the machine is.
        local nginx = start({
            queue_buffering_max_ms = LONG, exit_timeout_ms = 50, request_timeout_ms = 60000,
        }, log)
        flush(nginx)
        await(nginx, ALL_DONE)
        kafka:pause()
        nginx:run(log)
        await(nginx, { msg_cnt = 10, succ_msg_cnt = 40, fail_msg_cnt = 0, waitbuf = 10 })
        nginx:reload()
        await(nginx, { msg_cnt = 0, succ_msg_cnt = 40, fail_msg_cnt = 10, waitbuf = 0 })
    end)
end)


describe("FLT-14: topics with names like those of lkfk's own keys", function()
    local NAMES = { "lkfk.worker.99999", "lkfk.worker.1", "lkfk.taken.99999", "msg_cnt", "lkfk" }

    it("neither harm workers that start, nor are lost from the statistics", function()
        local log = ("for _, name in ipairs { '%s' } do assert(kfk.log(name, nil, 1)) end"):format(
            table.concat(NAMES, "', '"))
        local nginx = harness.nginx {
            producer = { metadata_broker_list = DEAD, message_timeout_ms = LONG },
        }
        nginx:run(log)
        local function has_all()
            local waiting = nginx:run([[
                local values, dict = {}, ngx.shared.kfk
                for _, name in ipairs(...) do
                    values[#values + 1] = dict:get(name .. "-1") or 0
                end
                return values
            ]], NAMES)
            assert.same({ 1, 1, 1, 1, 1 }, waiting)
        end
        harness.eventually(5, has_all)
        -- What a topic with a partition and a dead worker's number make together.
        nginx:run("ngx.shared.kfk:set('lkfk.worker.999990', 5)")
        nginx:run("ngx.shared.kfk:set('lkfk.worker/999990', 5)")
        nginx:kill_worker()
        assert.is_true(nginx:run("return kfk.log('lkfk', nil, 2)"))
        assert.equal(5, nginx:run("return ngx.shared.kfk:get('lkfk.worker.999990')"))
        assert.equal("number", nginx:run("return type(kfk.stats().accepted_cnt)"))
        local log_text = nginx:error_log()
        assert.is_nil(log_text:match("[^\n]*%[error%][^\n]*"))
        nginx:stop()
        assert.matches("lkfk.worker.99999-1:0", nginx:error_log(), 1, true)
    end)

    it("are counted together where two topics and partitions make one name", function()
        local topic = kafka:topic("statistics-twin", 12)
        local twin = kafka:topic("statistics-twin1", 2)
        local nginx = harness.nginx {
            init = [[package.loaded["lkfk.conf"] = { default_conf = {
                partitioner = function(key) return tonumber(key) end,
            } }]],
            producer = { queue_buffering_max_ms = LONG, message_timeout_ms = LONG },
        }
        nginx:run("for _ = 1, 2 do assert(kfk.log(..., '11', 1)) end", topic)
        nginx:run("for _ = 1, 3 do assert(kfk.log(..., '1', 1)) end", twin)
        await(nginx, {
            msg_cnt = 5, succ_msg_cnt = 0, fail_msg_cnt = 0, waitbuf = 0, [topic .. "11"] = 5,
        })
    end)
end)


describe("without the shared dict", function()
    -- The harness adds one where it finds none of that name.
    local NO_DICT = "# no lua_shared_dict kfk here\n"

    it("a warning says so, and all else works", function()
        local topic = kafka:topic("status-no-dict", 1)
        local nginx = harness.nginx { http = NO_DICT, producer = {} }
        assert.is_true(nginx:run("return ngx.shared.kfk == nil"))
        nginx:run("assert(kfk.log(..., nil, 1)) assert(kfk.flush(10))", topic)
        assert.equal(1, #kafka:records(topic))
        nginx:stop()
        local log = nginx:error_log()
        assert.matches("%[warn%][^\n]*no lua_shared_dict kfk: no statistics are kept", log)
        assert.is_nil(log:find("[statistics]", 1, true))
    end)

    it("kfk_status = false is content", function()
        local nginx = harness.nginx {
            http = NO_DICT,
            -- Named, since the stage may lie in a temporary directory.
            producer = { kfk_status = false, instance = "statistics" },
        }
        nginx:stop()
        assert.is_nil(nginx:error_log():find("[warn]", 1, true))
    end)
end)


describe("at exit each worker logs a line of statistics, the last one the end's, on", function()
    for _, name in ipairs { "QUIT", "TERM" } do
        it("SIG" .. name, function()
            local topic = kafka:topic("status-exit-" .. name, 2)
            local nginx = start({ queue_buffering_max_ms = 5 }, TEN_EACH:format(topic))
            await(nginx, ALL_DONE)
            nginx:signal(name)
            nginx:await_end(5)
            local lines = {}
            local pattern = "%[warn%] [^\n]*%[kafka%] %[statistics%] ([^\n]*)"
            for line in nginx:error_log():gmatch(pattern) do
                lines[#lines + 1] = line
            end
            assert.equal(WORKERS, #lines)
            local values = {}
            for key, value in (lines[WORKERS] .. ","):gmatch("([^:,]+):([^:,]+),") do
                if not (key:find("%d$") and value == "0") then
                    values[key] = tonumber(value)
                end
            end
            assert.same(ALL_DONE, values)
        end)
    end

    it("SIGQUIT, with what then went to the backup", function()
        local nginx = start({ metadata_broker_list = DEAD, exit_timeout_ms = 50 },
                            TEN_EACH:format("status-exit-rest"))
        await(nginx, {
            msg_cnt = 40, succ_msg_cnt = 0, fail_msg_cnt = 0, waitbuf = 0,
            ["status-exit-rest-1"] = 40,
        })
        nginx:stop()
        local last
        for line in nginx:error_log():gmatch("%[kafka%] %[statistics%] ([^\n]*)") do
            last = "," .. line .. ","
        end
        for _, value in ipairs { "msg_cnt:0", "fail_msg_cnt:40", "status-exit-rest-1:0" } do
            assert.matches("," .. value .. ",", last, 1, true)
        end
        assert.equal(40, #nginx:backup("status-exit-rest"))
    end)
end)
