-- Authentication with a real broker: with each mechanism, with a wrong password and the right one
-- again, and when the broker wants it repeated.

local harness = require "spec.harness"

local USER, PASSWORD = "nginx", "open-sesame"
local MECHANISMS = { "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512" }
-- Milliseconds after which the broker closes a connection that did not authenticate again.
local SESSION = 2000

local broker = harness.kafka:new("sasl", {
    "--sasl=" .. USER .. ":" .. PASSWORD,
    "connections.max.reauth.ms=" .. SESSION,
})


-- An nginx that authenticates, with these options besides.
local function start_nginx(options)
    local producer = {
        metadata_broker_list = { broker.sasl },
        security_protocol = "sasl_plaintext",
        sasl_mechanisms = "SCRAM-SHA-256",
        sasl_username = USER,
        sasl_password = PASSWORD,
        instance = "sasl",
        queue_buffering_max_ms = 5,
        message_timeout_ms = 30000,
    }
    for key, value in pairs(options or {}) do
        producer[key] = value
    end
    return harness.nginx { producer = producer }
end


-- Of SCRAM-SHA-256.
local function change_password(password)
    broker:tool("kafka.admin.ConfigCommand", "--alter", "--entity-type", "users",
                "--entity-name", USER,
                "--add-config", ("SCRAM-SHA-256=[password=%s]"):format(password))
end


local function assert_says(nginx, part)
    harness.eventually(5, function()
        assert.matches(part, nginx:error_log(), 1, true)
    end)
end


setup(function()
    broker:start()
end)

for _, mechanism in ipairs(MECHANISMS) do
    it("AUT-05: messages arrive at brokers that were found out after authentication with "
       .. mechanism, function()
        local topic = broker:topic("sasl-" .. mechanism, 2)
        local nginx = start_nginx { sasl_mechanisms = mechanism, insecure_plain = true }
        nginx:run("for i = 1, 100 do assert(kfk.log(..., i, i)) end", topic)
        harness.eventually(10, function()
            assert.equal(100, #broker:records(topic))
        end)
        assert_says(nginx, mechanism .. " as " .. USER)
        assert.not_matches("%[warn%]", nginx:error_log())
        assert.not_matches(PASSWORD, nginx:error_log(), 1, true)
    end)
end

it("AUT-03: with a wrong password messages wait, and arrive once it is right", function()
    local topic = broker:topic("sasl-wrong", 1)
    local nginx = start_nginx { sasl_password = "open-barley", message_timeout_ms = 2000 }
    nginx:run("for i = 1, 3 do assert(kfk.log(..., nil, i)) end", topic)
    assert_says(nginx, "authentication failed (sasl_username, sasl_password)")
    harness.eventually(10, function()
        assert.equal(3, #nginx:backup(topic))
    end)
    local broken = nginx:stats().connections_broken
    ngx.sleep(2)
    -- No storm that would lock the user out.
    assert.is_true(nginx:stats().connections_broken - broken <= 1)

    change_password("open-barley")
    finally(function()
        change_password(PASSWORD)
    end)
    nginx:run("assert(kfk.log(..., nil, 4))", topic)
    harness.eventually(30, function()
        local list = broker:payloads(topic)
        table.sort(list)
        assert.same({ "1", "2", "3", "4" }, list)
    end)
    assert.not_matches("open-barley", nginx:error_log(), 1, true)
end)

it("AUT-03: a password that changes under a running worker costs no message", function()
    local topic = broker:topic("sasl-rotated", 1)
    local nginx = start_nginx()
    nginx:run("assert(kfk.log(..., nil, 'before'))", topic)
    harness.eventually(10, function()
        assert.same({ "before" }, broker:payloads(topic))
    end)
    change_password("open-barley")
    finally(function()
        change_password(PASSWORD)
    end)
    -- The session that is open is good until it has to be renewed.
    assert_says(nginx, "authentication failed")
    nginx:run("assert(kfk.log(..., nil, 'meanwhile'))", topic)
    change_password(PASSWORD)
    harness.eventually(30, function()
        assert.same({ "before", "meanwhile" }, broker:payloads(topic))
    end)
end)

for _, acks in ipairs { 1, -1 } do
    it("AUT-04: a session is renewed under load on the same connection, with acks = "
       .. acks, function()
        local topic = broker:topic("sasl-renewed" .. acks, 1)
        local nginx = start_nginx { request_required_acks = acks, batch_num_messages = 20 }
        nginx:run([[
            for i = 1, 4000 do
                assert(kfk.log(..., nil, i))
                if i % 5 == 0 then
                    ngx.sleep(0.005)
                end
            end
        ]], topic)
        harness.eventually(10, function()
            assert.equal(4000, #broker:records(topic))
        end)
        for i, payload in ipairs(broker:payloads(topic)) do
            assert.equal(tostring(i), payload)
        end
        local stats = nginx:stats()
        assert.equal(0, stats.connections_broken)
        -- One to the broker that was given, and one to that which it named.
        assert.is_true(stats.connections_opened <= 2, stats.connections_opened)
        assert.not_matches("%[warn%]", nginx:error_log())
    end)
end

it("a listener that wants authentication is named as the cause", function()
    local nginx = harness.nginx {
        producer = { metadata_broker_list = { broker.sasl }, queue_buffering_max_ms = 5 },
    }
    nginx:run("assert(kfk.log('sasl-none', nil, 'payload'))")
    assert_says(nginx, "it wants authentication first (security_protocol)")
end)

it("a listener that wants no authentication is named as the cause", function()
    local nginx = start_nginx { metadata_broker_list = { broker.bootstrap } }
    nginx:run("assert(kfk.log('sasl-none', nil, 'payload'))")
    assert_says(nginx, 'wants no authentication: set security_protocol to "plaintext"')
end)

describe("brokers that are not asked for their versions are spoken to", function()
    -- With what goes on for longer than a session where it is said to last.
    local RELEASES = {
        { "0.11.0", "with tokens without headers", 1 },
        { "2.0.0", "with SaslAuthenticate", 1 },
        { "2.8.2", "with sessions that are renewed", 60 },
    }

    for _, row in ipairs(RELEASES) do
        local release, how, count = unpack(row)
        it(("as %s, %s"):format(release, how), function()
            local topic = broker:topic("sasl-unasked-" .. release, 1)
            local nginx = start_nginx {
                api_version_request = false, broker_version_fallback = release,
                request_required_acks = -1,
            }
            nginx:run([[
                local topic, count = ...
                for i = 1, count do
                    assert(kfk.log(topic, nil, i))
                    ngx.sleep(0.05)
                end
            ]], topic, count)
            harness.eventually(10, function()
                assert.equal(count, #broker:payloads(topic))
            end)
            assert.equal(0, nginx:stats().connections_broken)
        end)
    end
end)
