-- lkfk in the place of ngx_lua_lkfk: the three steps of its README, with the snippets as they stand
-- there, and a Kafka of its time.

local lfs = require "lfs"
local harness = require "spec.harness"
local process = require "spec.harness.process"

local kafka = harness.kafka

local DIR = os.getenv("LKFK_STAGE") .. "/dropin"
local TOPIC = "wanliu_order_basic"
local WORKERS = 4
local MESSAGES = 200000
local PER_REQUEST = 100
local PER_LOAD = 20000

-- Step 1.4.
local INIT = [[
local lkfk = require "lkfk.kfk"

local ok, err = lkfk.init()
if not ok then
    error(err)
end
]]

-- Step 2: lkfk/conf.lua, edited. The time limit is shorter than most would have it.
local CONF = [[
local localtime = ngx.localtime

local function kfk_failed_handle(kfk, msg)
    kfk.fp[msg.topic]:write(localtime(), "\t", msg.topic, "\t", msg.key, "\t", msg.str, "\n")
end

return {
    default_conf = {
        failed_cb = kfk_failed_handle,
        backpath = ngx.config.prefix() .. "/backup/",
        client_id = "lkfk",
        metadata_broker_list = {"127.0.0.1:1,BROKER"},
        topics = {"wanliu_order_basic", "wanliu_driver"},
        request_required_acks = 1,
        request_timeout_ms = 5000,
        message_timeout_ms = 4000,
        message_send_max_retries = 2,
        retry_backoff_ms = 100,
        metadata_refresh_interval_ms = 60000,
        queue_buffering_max_ms = 200,
        queue_buffering_max_messages = 50000,
        batch_num_messages = 500,
        conn_retry_limit = 3,
        conn_retry_timeout = 60,
        kfk_status = true,
    },
}
]]

-- Step 3, with something around it to log.
local HANDLER = [[
local first = tonumber(ngx.var.arg_first)
for i = first, first + tonumber(ngx.var.arg_count) - 1 do
local topic, key, playlod = "wanliu_order_basic", "order " .. i % 1000, i .. " " .. ("x"):rep(100)

local kfk = require "lfkf.kfk"

kfk.log(topic, key, playlod)

end
]]


-- Messages first to last, by requests of some clients at a time.
local function load(nginx, first, last)
    local clients, next_first = {}, first
    for i = 1, 8 do
        clients[i] = ngx.thread.spawn(function()
            while next_first <= last do
                local count = math.min(PER_REQUEST, last - next_first + 1)
                local path = ("/?first=%d&count=%d"):format(next_first, count)
                next_first = next_first + count
                assert.equal(200, (nginx:get(path)))
            end
        end)
    end
    for _, client in ipairs(clients) do
        assert(ngx.thread.wait(client))
    end
end


local function statistics(nginx)
    return nginx:run([[
        local dict, values = ngx.shared.kfk, {}
        for _, key in ipairs { "msg_cnt", "succ_msg_cnt", "fail_msg_cnt", "waitbuf" } do
            values[key] = dict:get(key)
        end
        return values
    ]])
end


it("takes ngx_lua_lkfk's place, nothing changed, on Kafka 0.8.2.2", function()
    local broker = kafka:new("dropin", { "0.8.2.2" })
    broker:topic(TOPIC, 3)
    for _, dir in ipairs { DIR, DIR .. "/lkfk" } do
        assert(lfs.mkdir(dir))
    end
    process.write(DIR .. "/init.lua", INIT)
    process.write(DIR .. "/lkfk/conf.lua", (CONF:gsub("BROKER", broker.bootstrap)))
    local nginx = harness.nginx {
        workers = WORKERS,
        lua_path = DIR .. "/?.lua",
        http = ([[
            init_worker_by_lua_file "%s/init.lua";
            lua_socket_log_errors off;
            lua_shared_dict kfk 50m;
        ]]):format(DIR),
        locations = { ["/"] = HANDLER },
    }

    -- As fast as Kafka takes them. The statistics are some tenths of a second old, and one worker
    -- may have got all of two loads, which are fewer than queue_buffering_max_messages.
    for first = 1, MESSAGES, PER_LOAD do
        load(nginx, first, first + PER_LOAD - 1)
        harness.eventually(20, function()
            return statistics(nginx).succ_msg_cnt >= first - 1
        end)
    end
    harness.eventually(20, function()
        assert.same({ msg_cnt = 0, succ_msg_cnt = MESSAGES, fail_msg_cnt = 0, waitbuf = 0 },
                    statistics(nginx))
    end)

    local seen, count = {}, 0
    for _, record in ipairs(broker:records(TOPIC)) do
        local number = tonumber(record.payload:match("^(%d+) x+$"))
        assert(not seen[number] and number, record.payload)
        seen[number], count = true, count + 1
        assert(record.key == "order " .. number % 1000, record.key)
        assert(record.partition == ngx.crc32_long(record.key) % 3, record.partition)
    end
    assert.equal(MESSAGES, count)
    assert.same({}, nginx:backup(TOPIC))

    broker:kill()
    local before = os.time()
    load(nginx, MESSAGES + 1, MESSAGES + 1000)
    harness.eventually(20, function()
        assert.same({ msg_cnt = 0, succ_msg_cnt = MESSAGES, fail_msg_cnt = 1000, waitbuf = 0 },
                    statistics(nginx))
    end)
    seen = {}
    harness.eventually(5, function()
        assert.equal(1000, #nginx:backup(TOPIC))
    end)
    for _, line in ipairs(nginx:backup(TOPIC)) do
        local number = tonumber(line.payload:match("^(%d+) x+$"))
        assert(not seen[number] and number > MESSAGES, line.payload)
        seen[number] = true
        assert.same({ TOPIC, "order " .. number % 1000 }, { line.topic, line.key })
        assert.is_true(line.time >= os.date("%Y-%m-%d %H:%M:%S", before))
    end

    nginx:stop()
    local lines = select(2, nginx:error_log():gsub("%[kafka%] %[statistics%] ", ""))
    assert.equal(WORKERS, lines)
end)
