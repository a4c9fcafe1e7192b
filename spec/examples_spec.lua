-- The configurations in examples/, as they stand there.

local ffi = require "ffi"
local cjson = require "cjson.safe"
local harness = require "spec.harness"
local printed = require "spec.harness.printed"
local process = require "spec.harness.process"

local kafka = harness.kafka
local EXAMPLES = os.getenv("LKFK_ROOT") .. "/examples/"

pcall(ffi.cdef, "unsigned int getuid(void);")


-- serve(example) -> an nginx that get() asks, and the directory with its files.
local function serve(example)
    local nginx = harness.nginx()
    local program = nginx:command()[1]
    local dir = os.getenv("LKFK_STAGE") .. "/example-" .. example
    process.must { "mkdir", "-p", "-m", "700", dir .. "/backup" }
    if ffi.C.getuid() == 0 then
        process.must { "chown", "nobody", dir .. "/backup" }
    end
    local conf = assert(process.read(EXAMPLES .. example .. "/nginx.conf"))
    conf = printed.localized(conf, dir, nginx.port)
    conf = printed.put(conf, "worker_processes auto;", "worker_processes 2;")
    if conf:find("/etc/nginx/lua", 1, true) then
        -- Where workers may read it whoever they are.
        process.must { "cp", EXAMPLES .. example .. "/kafka_logger.lua", dir }
        conf = printed.put(conf, "/etc/nginx/lua", dir)
    end
    process.write(dir .. "/nginx.conf", conf)
    finally(function()
        printed.quit(dir)
    end)
    process.must { program, "-c", dir .. "/nginx.conf" }
    harness.eventually(5, function()
        assert.equal(200, (nginx:get(example == "gateway" and "/search/ready" or "/ready")))
    end)
    return nginx, dir
end


-- Its workers said nothing worse than a notice.
local function assert_content(dir)
    local log = process.read(dir .. "/error.log")
    assert.is_nil(log:match("%[error%][^\n]*") or log:match("%[warn%][^\n]*"))
end


-- payloads(topic, pattern): of the messages in which that is. The topic is made by the first one.
local function payloads(topic, pattern)
    local found = {}
    for _, payload in ipairs(kafka:payloads(topic)) do
        if payload:find(pattern) then
            found[#found + 1] = payload
        end
    end
    return found
end


it("access_log sends a line for each request, which no client can break", function()
    local nginx, dir = serve("access_log")
    nginx:get("/page", { headers = { ["User-Agent"] = 'a "quoted" agent\t', Referer = "here" } })
    harness.eventually(10, function()
        local lines = payloads("access", "GET /page ")
        assert.equal(1, #lines)
        assert.matches('^127%.0%.0%.1 %- %- %[[^%]]+%] "GET /page HTTP/1%.0" 200 6 "here" '
                       .. '"a \\x22quoted\\x22 agent\\x09"$', lines[1])
    end)
    assert_content(dir)
end)


it("json_events sends what is posted, says whether it was taken, and tells of requests", function()
    local nginx, dir = serve("json_events")
    local post = { method = "POST", body = cjson.encode { user = "u1", page = "a\n\"b" } }
    assert.equal(202, (nginx:get("/events", post)))
    assert.equal(400, (nginx:get("/events", { method = "POST", body = "{" })))
    assert.equal(400, (nginx:get("/events", { method = "POST", body = "[1]" })))
    nginx:get("/site?q=1")
    harness.eventually(10, function()
        local records = kafka:records("events")
        assert.equal(1, #records)
        local event = cjson.decode(records[1].payload)
        assert.same({ "u1", "u1", "a\n\"b", "127.0.0.1" },
                    { records[1].key, event.user, event.page, event.client })
        local requests = payloads("requests", "site")
        assert.equal(1, #requests)
        local request = cjson.decode(requests[1])
        assert.same({ "GET", "/site?q=1", 200, 6 },
                    { request.method, request.uri, request.status, request.bytes })
    end)
    assert_content(dir)
end)


it("gateway sends arrays of entries, full, after a while, and when nginx exits", function()
    local nginx, dir = serve("gateway")
    -- Each of two workers collects what comes to it.
    for i = 1, 9 do
        nginx:get("/orders/" .. i)
    end
    nginx:get("/search/waits")
    local function seen(topic)
        local uris, largest = {}, 0
        for _, record in ipairs(kafka:records(topic)) do
            local entries = cjson.decode(record.payload)
            largest = math.max(largest, #entries)
            for _, entry in ipairs(entries) do
                assert.equal(record.key, entry.route_id)
                uris[#uris + 1] = entry.request.uri
            end
        end
        table.sort(uris)
        return uris, largest
    end
    local expected = {}
    for i = 1, 9 do
        expected[i] = "/orders/" .. i
    end
    harness.eventually(10, function()
        local uris, largest = seen("gateway-orders")
        assert.same(expected, uris)
        assert.equal(2, largest)
        assert.same({ "/search/ready", "/search/waits" }, (seen("gateway-search")))
    end)
    nginx:get("/search/last")
    printed.quit(dir)
    assert.same({ "/search/last", "/search/ready", "/search/waits" }, (seen("gateway-search")))
    assert_content(dir)
end)
