-- How fast backup files are sent again when replay_rate is left alone: "auto".

local harness = require "spec.harness"

local kafka = harness.kafka
local BROKER_DOWN = { "127.0.0.1:1" }
local BACKLOG = 100000


local function start(conf)
    conf.queue_buffering_max_ms = conf.queue_buffering_max_ms or 5
    conf.message_timeout_ms = conf.message_timeout_ms or 5000
    return harness.nginx { producer = conf }
end


local function seconds()
    ngx.update_time()
    return ngx.now()
end


-- The backup of an nginx that never reached a broker, with so many messages.
local function backup_of(topic, count)
    local nginx = start {
        metadata_broker_list = BROKER_DOWN, message_timeout_ms = 300,
        queue_buffering_max_messages = 1000000,
    }
    for first = 1, count, 10000 do
        nginx:run([[
            local topic, first, last = ...
            for i = first, last do assert(kfk.log(topic, "k" .. i, "old")) end
        ]], topic, first, math.min(first + 9999, count))
    end
    harness.eventually(30, function()
        assert.equal(count, nginx:stats().fail_msg_cnt)
    end)
    nginx:stop()
    return nginx.backpath
end


describe("replay_rate = \"auto\"", function()
    it("FLT-21: an idle producer replays as fast as Kafka takes it", function()
        local topic = kafka:topic("replay-auto-idle", 4)
        local nginx = start { backpath = backup_of(topic, BACKLOG) }
        local began = seconds()
        -- At 1,000 a second, as it once was, this took 100 s.
        harness.eventually(50, function()
            assert.equal(BACKLOG, nginx:stats().replayed_cnt)
        end)
        io.stdout:write(("        %d lines in %.1f s\n"):format(BACKLOG, seconds() - began))
    end)

    it("FLT-21: beside new messages replay takes about half of what is acknowledged", function()
        local topic = kafka:topic("replay-auto-busy", 4)
        local path = backup_of(topic, BACKLOG)
        local nginx = start { backpath = path }
        -- 4,000 a second, for as long as nobody ends it.
        nginx:run([[
            local topic = ...
            local logged = 0
            local began = ngx.now()
            assert(ngx.timer.every(0.01, function()
                ngx.update_time()
                local due = math.min((ngx.now() - began) * 4000, logged + 1000)
                while logged < due do
                    kfk.log(topic, "k" .. logged, "new")
                    logged = logged + 1
                end
            end))
        ]], topic)
        harness.eventually(15, function()
            assert.is_true(nginx:stats().replayed_cnt > 0 and nginx:stats().succ_msg_cnt > 4000)
        end)
        local before, began = nginx:stats(), seconds()
        ngx.sleep(8)
        local now = nginx:stats()
        local new = now.succ_msg_cnt - before.succ_msg_cnt
        local replayed = now.replayed_cnt - before.replayed_cnt
        local text = "        %d new and %d replayed in %.1f s\n"
        io.stdout:write(text:format(new, replayed, seconds() - began))
        assert.is_true(replayed <= new * 1.2, replayed .. " beside " .. new)
        assert.is_true(replayed >= 1000, replayed .. " beside " .. new)
        assert.equal(0, now.fail_msg_cnt)
    end)
end)
