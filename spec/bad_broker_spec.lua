-- Peers that are no brokers, or bad ones: nginx goes on, the log says once who and why, the
-- messages end in the backup.

local harness = require "spec.harness"
local process = require "spec.harness.process"

local kafka = harness.kafka
local DEAD = "127.0.0.1:1"

-- The peers of peer.pl and two more, and what the log has to say of each.
local PEERS = {
    { "dead", "a port where nothing listens", "cannot connect .*Connection refused" },
    -- In the handshake, or before connect() is through.
    { "reset", "a peer that resets connections", ": c%l+ t?h?e? ?connect" },
    { "close", "a peer that closes when asked", "closed the connection" },
    { "silent", "a peer that answers nothing", "took longer than 500 ms" },
    { "http", "an HTTP server", "HTTP server" },
    { "tls", "a peer that answers with a TLS alert", "TLS" },
    { "garbage", "a peer that answers garbage", "not a Kafka broker" },
    { "huge", "a peer whose answer claims to have 2 GB",
      "not a Kafka broker, or an answer larger than" },
    { "cut", "a peer that closes in the middle of an answer", "closed the connection" },
    { "correlation", "a peer that answers something else", "correlation id" },
    { "count", "a peer whose answer claims to have 4 billion elements", "ApiVersions answer: " },
    { "late", "a peer that begins well and then answers something else", "correlation id" },
}


-- Name -> address of each bad peer.
local function start_peers()
    local output = harness.start { "perl", os.getenv("LKFK_ROOT") .. "/spec/peer.pl" }
    local addresses = { dead = DEAD }
    harness.eventually(5, function()
        assert.matches("ready", output())
    end)
    for name, port in output():gmatch("(%l+) (%d+)\n") do
        addresses[name] = "127.0.0.1:" .. port
    end
    addresses.http = "127.0.0.1:" .. harness.nginx().port
    return addresses
end


local function peak_kbytes(pid)
    return tonumber(process.read("/proc/" .. pid .. "/status"):match("VmHWM:%s+(%d+)"))
end


describe("a producer whose only broker is", function()
    local addresses, nginxes = nil, {}

    setup(function()
        addresses = start_peers()
        for _, peer in ipairs(PEERS) do
            local nginx = harness.nginx {
                producer = {
                    metadata_broker_list = { addresses[peer[1]] },
                    message_timeout_ms = 2000,
                    socket_connection_setup_timeout_ms = 500,
                    queue_buffering_max_kbytes = 4096,
                    queue_buffering_max_ms = 5,
                },
                locations = { ["/ping"] = "ngx.print('pong')" },
            }
            nginx:run("for i = 1, 3 do assert(kfk.log('bad-broker', nil, i)) end")
            nginxes[peer[1]] = nginx
        end
    end)

    for _, peer in ipairs(PEERS) do
        local name, who, cause = unpack(peer)
        it(who .. " writes its messages to the backup and says why, once", function()
            local nginx, address = nginxes[name], addresses[name]
            assert.same({ 200, "pong" }, { nginx:get("/ping") })
            harness.eventually(10, function()
                assert.equal(3, #nginx:backup("bad-broker"))
            end)
            for i, line in ipairs(nginx:backup("bad-broker")) do
                assert.equal(tostring(i), line.payload)
            end
            local lines = {}
            harness.eventually(2, function()
                lines = {}
                for line in nginx:error_log():gmatch("[^\n]*%[lkfk%] broker [^\n]*") do
                    if line:find("[warn]", 1, true) then
                        lines[#lines + 1] = line
                    end
                end
                return #lines > 0
            end)
            assert.equal(1, #lines, table.concat(lines, "\n"))
            assert.matches("broker " .. address, lines[1], 1, true)
            assert.matches(cause, lines[1])

            local stats = nginx:stats()
            assert.equal(0, stats.driver_restarts)
            -- It is tried again, not all the time.
            assert.is_true(stats.connections_broken >= 2 and stats.connections_broken < 30,
                           stats.connections_broken)
            assert.is_true(peak_kbytes(nginx:pids()[1]) < 100 * 1024)
        end)
    end
end)


it("one good broker among bad ones is found, and everything arrives", function()
    local topic = kafka:topic("bad-broker-mixed", 2)
    local addresses = start_peers()
    local list = { kafka.bootstrap }
    for _, address in pairs(addresses) do
        list[#list + 1] = address
    end
    local nginx = harness.nginx {
        producer = {
            metadata_broker_list = list,
            message_timeout_ms = 30000,
            socket_connection_setup_timeout_ms = 500,
            queue_buffering_max_ms = 5,
        },
    }
    nginx:run("for i = 1, 100 do assert(kfk.log(..., nil, i)) end", topic)
    assert.is_true(nginx:run("return kfk.flush(30)"))
    local seen = {}
    for _, record in ipairs(kafka:records(topic)) do
        seen[#seen + 1] = tonumber(record.payload)
    end
    table.sort(seen)
    local expected = {}
    for i = 1, 100 do
        expected[i] = i
    end
    assert.same(expected, seen)
    assert.same({}, nginx:backup(topic))
end)
