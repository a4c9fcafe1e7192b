-- The keys of ngx_lua_lkfk's README that say whom lkfk talks to, what it says, and how often. Each
-- is tried with two values, which must not do the same.

local harness = require "spec.harness"

local kafka = harness.kafka
local DEAD = "127.0.0.1:1"
local STAGE = os.getenv("LKFK_STAGE")


-- start_tap([env_file]) -> address, a function that gives the lines it has printed. See tap.pl.
local function start_tap(env_file)
    local output = harness.start {
        "perl", os.getenv("LKFK_ROOT") .. "/spec/tap.pl", env_file,
    }
    local port
    harness.eventually(5, function()
        port = output():match("^port (%d+)\n")
        return port
    end)
    return "127.0.0.1:" .. port, output
end


local function count(text, pattern)
    return select(2, text:gsub(pattern, ""))
end


local function log(nginx, topic, key, first, last)
    nginx:run([[
        local topic, key, first, last = ...
        for i = first, last do assert(kfk.log(topic, key, i)) end
    ]], topic, key, first, last)
end


local function clock()
    ngx.update_time()
    return ngx.now()
end


-- Between lkfk and the broker there is a tap.
describe("what reaches a broker is said by", function()
    local tap, broker, lines, requests = nil, nil, nil, 0

    setup(function()
        tap, lines = start_tap(STAGE .. "/kafka/tapped/env")
        broker = kafka:new("tapped", { "advertised.listeners=PLAINTEXT://" .. tap })
        broker:topic("keys-tapped", 1)
    end)

    -- What a producer with this configuration has sent, after one message.
    local function watch(conf)
        conf.metadata_broker_list = { tap }
        conf.queue_buffering_max_ms = 5
        requests = requests + 1
        local nginx = harness.nginx { producer = conf }
        local before = #lines()
        log(nginx, "keys-tapped", nil, requests, requests)
        assert.is_true(nginx:run("return kfk.flush(10)"))
        local seen = lines():sub(before + 1)
        assert.equal(requests, #broker:records("keys-tapped"))
        nginx:stop()
        return seen
    end

    it("client_id", function()
        local seen = watch {}
        assert.is_true(count(seen, "request %d+ %d+ lkfk\n") >= 2, seen)
        assert.equal(count(seen, "request "), count(seen, "request %d+ %d+ lkfk\n"))
        seen = watch { client_id = "nginx of ours" }
        assert.is_true(count(seen, "request %d+ %d+ nginx of ours\n") >= 2, seen)
        assert.equal(count(seen, "request "), count(seen, "request %d+ %d+ nginx of ours\n"))
    end)

    it("request_required_acks", function()
        assert.matches("produce 1 5000\n", watch {}, 1, true)
        assert.matches("produce 0 5000\n", watch { request_required_acks = 0 }, 1, true)
        assert.matches("produce -1 5000\n", watch { request_required_acks = -1 }, 1, true)
    end)

    it("request_timeout_ms", function()
        assert.matches("produce 1 2345\n", watch { request_timeout_ms = 2345 }, 1, true)
    end)

    -- -> how often a batch was sent that the broker refuses each time, and how long that took.
    local function refuse(conf)
        conf.metadata_broker_list = { tap }
        conf.queue_buffering_max_ms, conf.message_timeout_ms = 5, 60000
        local nginx = harness.nginx { producer = conf }
        local before, began = #lines(), clock()
        assert.is_true(nginx:run("return kfk.log(...)", "keys-tapped", nil, "corrupt me"))
        harness.eventually(10, function()
            assert.equal(1, nginx:run("return kfk.stats().fail_msg_cnt"))
        end)
        local took = clock() - began
        assert.equal("corrupt me", nginx:backup("keys-tapped")[1].payload)
        nginx:stop()
        assert.matches("CORRUPT_MESSAGE", nginx:error_log(), 1, true)
        return count(lines():sub(before + 1), "produce "), took
    end

    it("message_send_max_retries", function()
        assert.equal(1, (refuse { message_send_max_retries = 0 }))
        assert.equal(3, (refuse {}))
        assert.equal(6, (refuse { message_send_max_retries = 5, retry_backoff_max_ms = 100 }))
    end)

    it("retry_backoff_ms", function()
        local _, short = refuse { retry_backoff_ms = 1 }
        local _, long = refuse { retry_backoff_ms = 1000 }
        assert.is_true(long > 1.5, long)
        assert.is_true(short < long / 2, short)
    end)
end)


it("metadata_broker_list", function()
    local topic = kafka:topic("keys-broker-list", 1)
    local list = { DEAD .. ",127.0.0.1:2", kafka.bootstrap }
    local nginx = harness.nginx { producer = { metadata_broker_list = list } }
    log(nginx, topic, nil, 1, 3)
    assert.is_true(nginx:run("return kfk.flush(10)"))
    assert.equal(3, #kafka:records(topic))

    list[2] = nil
    nginx = harness.nginx {
        producer = { metadata_broker_list = list, message_timeout_ms = 500 },
    }
    log(nginx, topic, nil, 4, 6)
    harness.eventually(5, function()
        assert.equal(3, #nginx:backup(topic))
    end)
    assert.equal(3, #kafka:records(topic))
end)


it("metadata_refresh_interval_ms", function()
    local topic = kafka:topic("keys-refresh", 1)
    local nginxes = {}
    for name, interval in pairs { often = 200, seldom = 600000 } do
        nginxes[name] = harness.nginx {
            producer = { queue_buffering_max_ms = 5, metadata_refresh_interval_ms = interval },
        }
        log(nginxes[name], topic, name, 0, 0)
        assert.is_true(nginxes[name]:run("return kfk.flush(10)"))
    end
    kafka:grow_topic(topic, 8)
    -- Where the records of a producer have gone to.
    local function partitions(name)
        for i = 1, 50 do
            log(nginxes[name], topic, name .. i, i, i)
        end
        assert.is_true(nginxes[name]:run("return kfk.flush(10)"))
        local seen = {}
        for _, record in ipairs(kafka:records(topic)) do
            if record.key:find(name, 1, true) then
                seen[record.partition] = true
            end
        end
        return table.maxn(seen)
    end
    harness.eventually(10, function()
        assert.equal(7, partitions("often"))
    end)
    assert.equal(0, partitions("seldom"))
end)


-- One broker that closes each connection, and one that has not failed yet: it never answers.
describe("a failing broker is tried as often as is said by", function()
    local CASES = {
        two_tries = { conn_retry_limit = 2 },
        many_tries = { conn_retry_limit = 1000 },
        short_rest = { conn_retry_limit = 1, conn_retry_timeout = 1 },
        long_rest = { conn_retry_limit = 1, conn_retry_timeout = 100 },
    }
    local connects, nginxes = {}, {}

    setup(function()
        local output = harness.start { "perl", os.getenv("LKFK_ROOT") .. "/spec/peer.pl" }
        local silent
        harness.eventually(5, function()
            silent = output():match("silent (%d+)\n")
            return silent
        end)
        local lines = {}
        for name, conf in pairs(CASES) do
            local failing
            failing, lines[name] = start_tap()
            conf.metadata_broker_list = { failing, "127.0.0.1:" .. silent }
            conf.reconnect_backoff_max_ms = 200
            conf.socket_connection_setup_timeout_ms = 60000
            nginxes[name] = harness.nginx { producer = conf }
            log(nginxes[name], "keys-rest", nil, 1, 1)
        end
        ngx.sleep(4)
        for name in pairs(CASES) do
            connects[name] = count(lines[name](), "connect\n")
        end
    end)

    it("conn_retry_limit", function()
        assert.equal(2, connects.two_tries)
        assert.is_true(connects.many_tries > 3, connects.many_tries)
        assert.matches("2 attempts to connect failed in a row, and none is made for 60 s",
                       nginxes.two_tries:error_log(), 1, true)
    end)

    it("conn_retry_timeout", function()
        assert.equal(1, connects.long_rest)
        assert.is_true(connects.short_rest >= 3, connects.short_rest)
    end)
end)
