-- init(): the forms of a configuration, what is refused and with which words, where it may be
-- called.

local lfs = require "lfs"
local harness = require "spec.harness"

local kafka = harness.kafka
local DEAD = "127.0.0.1:1"


local function write(path, text)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
end


-- A directory for lua_package_path with a user's own lkfk/conf.lua in it.
local function with_conf(name, text)
    local dir = os.getenv("LKFK_STAGE") .. "/conf-" .. name
    assert(lfs.mkdir(dir) and lfs.mkdir(dir .. "/lkfk"))
    write(dir .. "/lkfk/conf.lua", text)
    return dir .. "/?.lua"
end


local function delivers(nginx, topic)
    local before = #kafka:records(topic)
    assert.is_true(nginx:run("return kfk.log(...)", topic, "key", "payload"))
    assert.is_true(nginx:run("return kfk.flush(10)"))
    local records = kafka:records(topic)
    assert.equal(before + 1, #records)
    return records[#records]
end


-- No thread and no queue file, anywhere it could be.
local function nothing_runs(nginx)
    for _, pid in ipairs(nginx:pids()) do
        assert.equal(0, nginx:threads(pid))
    end
    assert.same({}, nginx:queue_files())
    assert.same({}, nginx:queue_files(nginx.backpath))
end


describe("init() takes the brokers as", function()
    local topic

    setup(function()
        topic = kafka:topic("init-brokers", 1)
    end)

    -- The first entry leads nowhere, so the second must have been read.
    local forms = {
        { '{ "h1:p1,h2:p2" }', function() return { DEAD .. "," .. kafka.bootstrap } end },
        { '{ "h1:p1", "h2:p2" }', function() return { DEAD, kafka.bootstrap } end },
        { '"h1:p1, h2:p2"', function() return DEAD .. ", " .. kafka.bootstrap end },
        { "{ { host = h1, port = p1 }, { host = h2, port = p2 } }", function()
            local host, port = kafka.bootstrap:match("^(.*):(%d+)$")
            return { { host = "127.0.0.1", port = 1 }, { host = host, port = tonumber(port) } }
        end },
        { "IPv6 addresses, with brackets or without", function()
            return { "[::1]:1", "fe80::1%lo", { host = "::1", port = 1 }, kafka.bootstrap }
        end },
    }
    for _, form in ipairs(forms) do
        it(form[1], function()
            local nginx = harness.nginx { producer = { metadata_broker_list = form[2]() } }
            delivers(nginx, topic)
        end)
    end

    it("an IPv6 address, and speaks of it in brackets", function()
        local nginx = harness.nginx { producer = { metadata_broker_list = { "::1" } } }
        nginx:run("kfk.log('init-nowhere', nil, 'payload')")
        harness.eventually(5, function()
            assert.matches("broker [::1]:9092: ", nginx:error_log(), 1, true)
        end)
    end)
end)


describe("init() without a configuration", function()
    it("takes it from the user's lkfk/conf.lua", function()
        local topic = kafka:topic("init-conf", 1)
        local nginx = harness.nginx {
            lua_path = with_conf("own", ([[return { default_conf = {
                metadata_broker_list = { %q },
                send_key = false,
            } }]]):format(kafka.bootstrap)),
            init_worker = 'assert(require("lkfk.kfk").init())',
        }
        assert.is_nil(delivers(nginx, topic).key)
    end)

    it("says that the one that comes with lkfk names no brokers", function()
        local ok, err = harness.nginx():run("return kfk.init()")
        assert.is_nil(ok)
        assert.matches("metadata_broker_list is empty", err, 1, true)
    end)

    local files = {
        { "does not compile", "return {", "lkfk.conf: " },
        { "raises", "error('no luck')", "no luck" },
        { "returns no table", "return 5", "lkfk.conf must return { default_conf = { ... } }" },
        { "has no default_conf", "return {}", "lkfk.conf must return { default_conf = { ... } }" },
        { "has an unknown key", "return { default_conf = { linger = 5 } }",
          "not valid kafka conf: linger" },
    }
    for i, case in ipairs(files) do
        it("says that a conf.lua " .. case[1], function()
            local nginx = harness.nginx { lua_path = with_conf("bad" .. i, case[2]) }
            local ok, err = nginx:run("return kfk.init()")
            assert.is_nil(ok)
            assert.matches(case[3], err, 1, true)
            nothing_runs(nginx)
        end)
    end
end)


it("init(conf) lays conf over the user's lkfk/conf.lua", function()
    local topic = kafka:topic("init-over", 1)
    local nginx = harness.nginx {
        lua_path = with_conf("over", ([[return { default_conf = {
            metadata_broker_list = { %q },
            send_key = false,
        } }]]):format(DEAD)),
        producer = { metadata_broker_list = { kafka.bootstrap } },
    }
    assert.is_nil(delivers(nginx, topic).key)
end)


describe("init() refuses", function()
    local nginx

    setup(function()
        nginx = harness.nginx()
    end)

    local function refused(conf)
        if type(conf) == "table" then
            conf.metadata_broker_list = conf.metadata_broker_list or { DEAD }
        end
        local returned, ok, err = nginx:run("return pcall(kfk.init, ...)", conf)
        assert.is_true(returned)
        assert.is_nil(ok)
        nothing_runs(nginx)
        return err
    end

    local cases = {
        { "an unknown key, and names the nearest", { batch_num_mesages = 5 },
          "not valid kafka conf: batch_num_mesages (did you mean batch_num_messages?)" },
        { "an unknown key that resembles none", { zebra = 5 }, "not valid kafka conf: zebra" },
        { "a list of values", { "127.0.0.1:9092" }, "not valid kafka conf: 1" },
        { "text for a number", { batch_num_messages = "many" },
          'batch_num_messages: expected an integer from 1 to 1000000, got "many"' },
        { "a number below its range", { batch_num_messages = 0 },
          "batch_num_messages: expected an integer from 1 to 1000000, got 0" },
        { "a number above its range", { conn_retry_timeout = 86401 },
          "conn_retry_timeout: expected an integer from 1 to 86400, got 86401" },
        { "a fraction", { queue_buffering_max_ms = 0.5 },
          "queue_buffering_max_ms: expected an integer from 0 to 900000, got 0.5" },
        { "a number for true or false", { send_key = 1 },
          "send_key: expected true or false, got 1" },
        { "a table for text", { client_id = {} },
          "client_id: expected a string of 0 to 255 bytes, got a table" },
        { "acks that nobody knows", { request_required_acks = 2 },
          'request_required_acks: expected 1, 0, -1 or "all", got 2' },
        { "a topic that Kafka would refuse", { topics = { "fine", "a/b" } },
          "topics: expected a list of topic names" },
        { "no brokers", { metadata_broker_list = {} }, "metadata_broker_list is empty" },
        { "a broker with a bad port", { metadata_broker_list = { "h1:9092", "h2:0" } },
          'metadata_broker_list: expected a list like' },
        { "a message larger than a quarter of the queue",
          { queue_buffering_max_kbytes = 1024, message_max_bytes = 262145 },
          "raise queue_buffering_max_kbytes to at least 1025" },
        { "a first pause longer than the longest", { retry_backoff_ms = 2000 },
          "retry_backoff_ms (2000) is more than retry_backoff_max_ms (1000)" },
        { "an empty path", { backpath = "" }, "backpath: expected a path" },
    }
    for _, case in ipairs(cases) do
        it(case[1], function()
            assert.matches(case[3], refused(case[2]), 1, true)
        end)
    end

    it("a value that is a function", function()
        local ok, err = nginx:run("return kfk.init { client_id = print }")
        assert.is_nil(ok)
        assert.matches("client_id: expected .*, got a function", err)
    end)

    it("what is not a table", function()
        assert.matches("init() takes a table, got a string", refused("conf"), 1, true)
        assert.matches("init() takes a table, got a boolean", refused(true), 1, true)
    end)

    it("a backpath that cannot be made", function()
        local path = nginx.prefix .. "/nginx.conf/backup"
        local err = refused { backpath = path, queue_path = nginx.queue_path }
        assert.matches("^backpath: %S+ cannot make the parent of ", err)
        assert.matches(path, err, 1, true)
    end)

    it("a queue_path that cannot be made, when backpath cannot take its place", function()
        write(nginx.backpath .. "/lkfk-" .. lfs.attributes(nginx.prefix, "uid"), "in the way")
        local path = nginx.prefix .. "/nginx.conf"
        local err = refused { backpath = nginx.backpath, queue_path = path }
        assert.matches(path, err, 1, true)
    end)

    it("nothing after that: what is right still starts", function()
        local ok, err = nginx:run("return kfk.init(...)", {
            metadata_broker_list = { kafka.bootstrap },
            queue_path = nginx.queue_path,
            backpath = nginx.backpath,
        })
        assert.equal(true, ok, err)
        delivers(nginx, kafka:topic("init-after-refusals", 1))
    end)
end)


it("init() puts the queue below backpath when queue_path cannot be made, and warns", function()
    local topic = kafka:topic("init-fallback", 1)
    local nginx = harness.nginx { producer = { queue_path = "/proc/nowhere" } }
    assert.equal(1, #nginx:queue_files(nginx.backpath))
    delivers(nginx, topic)
    harness.eventually(5, function()
        local line = nginx:error_log():match("[^\n]*the queue lies in backpath[^\n]*")
        assert.matches("[warn]", line, 1, true)
        assert.matches("/proc/nowhere", line, 1, true)
    end)
end)


it("a refused init() in README's form stops the worker's handler with the reason", function()
    local nginx = harness.nginx {
        init_worker = [[
            local kfk = require "lkfk.kfk"
            local ok, err = kfk.init { metadata_broker_lst = { "127.0.0.1:9092" } }
            if not ok then error(err) end
        ]],
    }
    assert.matches("[error]", nginx:error_log(), 1, true)
    assert.matches("not valid kafka conf: metadata_broker_lst (did you mean metadata_broker_list?)",
                   nginx:error_log(), 1, true)
end)


describe("init() once more", function()
    local conf, nginx, topic

    setup(function()
        topic = kafka:topic("init-again", 1)
        nginx = harness.nginx()
        conf = {
            metadata_broker_list = { kafka.bootstrap },
            queue_path = nginx.queue_path,
            backpath = nginx.backpath,
        }
        assert.is_true(nginx:run("return kfk.init(...)", conf))
    end)

    it("with the same configuration finds it running", function()
        assert.is_true(nginx:run("return kfk.init(...)", conf))
        assert.equal(1, nginx:threads(nginx:pids()[1]))
        assert.equal(1, #nginx:queue_files())
        delivers(nginx, topic)
    end)

    it("with another configuration is refused, and the first goes on", function()
        conf.send_key = false
        local ok, err = nginx:run("return kfk.init(...)", conf)
        conf.send_key = nil
        assert.is_nil(ok)
        assert.matches("already running with another configuration", err, 1, true)
        assert.equal("key", delivers(nginx, topic).key)
    end)
end)


it("require 'lkfk' and require 'lkfk.kfk' give the same module", function()
    local nginx = harness.nginx()
    assert.is_true(nginx:run("return rawequal(require 'lkfk', kfk)"))
    local names = nginx:run([[
        local names = {}
        for name, value in pairs(kfk) do names[name] = type(value) end
        return names
    ]])
    assert.same({
        _VERSION = "string", init = "function", log = "function", flush = "function",
        stats = "function",
    }, names)
end)


describe("outside of a worker", function()
    local IN_MASTER = [[
        local ok, err = require("lkfk.kfk").init {
            metadata_broker_list = { "127.0.0.1:1" }, queue_path = queue_path, backpath = backpath,
        }
        ngx.log(ngx.ERR, "master: ", tostring(ok), " ", tostring(err))
    ]]
    local REFUSED = "master: nil init() must be called in init_worker_by_lua"

    it("init() is refused with the reason, and starts nothing", function()
        local nginx = harness.nginx { init = IN_MASTER }
        assert.matches(REFUSED, nginx:error_log(), 1, true)
        assert.equal(0, nginx:threads(nginx.master))
        nothing_runs(nginx)
    end)

    it("NGX-08: a reload with a bad configuration changes nothing", function()
        local topic = harness.kafka:topic("init-bad-reload", 1)
        local nginx = harness.nginx { producer = { queue_buffering_max_ms = 5 } }
        local pids, queues = nginx:pids(), nginx:queue_files()
        local file = assert(io.open(nginx.prefix .. "/main.conf", "a"))
        file:write("no_such_directive on;\n")
        file:close()
        nginx:signal("HUP")
        harness.eventually(5, function()
            assert.matches("no_such_directive", nginx:error_log(), 1, true)
        end)
        assert.same(pids, nginx:pids())
        assert.same(queues, nginx:queue_files())
        nginx:run("assert(kfk.log(..., nil, 'payload'))", topic)
        harness.eventually(5, function()
            assert.equal(1, #harness.kafka:records(topic))
        end)
    end)

    it("nginx -t starts nothing", function()
        local nginx = harness.nginx {
            init = IN_MASTER,
            producer = { metadata_broker_list = { DEAD } },
        }
        assert.equal(1, #nginx:queue_files())
        local program = lfs.symlinkattributes("/proc/" .. nginx.master .. "/exe", "target")
        nginx:stop()
        assert.same({}, nginx:queue_files())
        local code, _, err = harness.run {
            program, "-t", "-p", nginx.prefix, "-c", nginx.prefix .. "/nginx.conf",
        }
        assert.equal(0, code, err)
        assert.matches("test is successful", err, 1, true)
        assert.same({}, nginx:queue_files())
    end)
end)
