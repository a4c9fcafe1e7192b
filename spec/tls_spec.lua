-- TLS with a real broker: what goes well, and what each thing that goes wrong says in the log.

local harness = require "spec.harness"

local kafka = harness.kafka
local CERTIFICATES = kafka:certificates()
local USER, PASSWORD = "nginx", "open-sesame"
-- An option that is not set.
local NONE = {}

local broker = kafka:new("tls", {
    "--tls=" .. CERTIFICATES,
    "--sasl=" .. USER .. ":" .. PASSWORD,
})


local function path(name)
    return CERTIFICATES .. "/" .. name
end


-- An nginx that is told of one listener.
local function start(listener, options)
    local producer = {
        metadata_broker_list = { broker.listeners[listener] },
        security_protocol = "ssl",
        ssl_ca_location = path("ca.pem"),
        queue_buffering_max_ms = 5,
        message_timeout_ms = 60000,
        reconnect_backoff_max_ms = 200,
    }
    for key, value in pairs(options or {}) do
        if value == NONE then
            value = nil
        end
        producer[key] = value
    end
    return harness.nginx { producer = producer }
end


local function assert_arrives(nginx, topic)
    nginx:run("for i = 1, 100 do assert(kfk.log(..., i, ('x'):rep(i * 100))) end", topic)
    harness.eventually(15, function()
        assert.equal(100, #broker:records(topic))
    end)
end


local function assert_says(nginx, part)
    harness.eventually(10, function()
        assert.matches(part, nginx:error_log(), 1, true)
    end)
end


-- read(name), write(name, text): a file of the certificates'.
local function read(name)
    local file = assert(io.open(path(name)))
    local text = file:read "*a"
    file:close()
    return text
end


local function write(name, text)
    local file = assert(io.open(path(name .. ".new"), "w"))
    file:write(text)
    file:close()
    assert(os.rename(path(name .. ".new"), path(name)))
    harness.run { "chmod", "644", path(name) }
end


setup(function()
    broker:start()
end)


describe("messages arrive by TLS", function()
    local function arrives(name, listener, options)
        it(name, function()
            local topic = broker:topic((("tls-" .. name):gsub("%W+", "-")), 3)
            local nginx = start(listener, options and options())
            assert_arrives(nginx, topic)
            assert_says(nginx, " by TLS, Produce v")
        end)
    end

    arrives("with an authority in a file", "TLS_GOOD")
    arrives("with an authority in the configuration", "TLS_GOOD", function()
        return { ssl_ca_location = NONE, ssl_ca_pem = read "ca.pem" }
    end)
    arrives("with a certificate of our own", "MTLS", function()
        return {
            ssl_certificate_location = path("client.pem"), ssl_key_location = path("client.key"),
        }
    end)
    arrives("with an encrypted key in the configuration", "MTLS", function()
        return {
            ssl_certificate_pem = read("client.pem"), ssl_key_pem = read("client-encrypted.key"),
            ssl_key_password = "open sesame",
        }
    end)
    arrives("from a broker whose self-signed certificate is given", "TLS_SELF", function()
        return { ssl_ca_location = path("self.pem") }
    end)
    arrives("from a broker whose certificate is given, and not its authority's", "TLS_GOOD",
            function()
        return { ssl_ca_location = path("good.pem") }
    end)
    arrives("from a broker of another name, where names are not checked", "TLS_HOST", function()
        return { ssl_endpoint_identification_algorithm = "none" }
    end)
    arrives("from anybody, where nothing is checked", "TLS_UNKNOWN", function()
        return { enable_ssl_certificate_verification = false }
    end)
    for _, mechanism in ipairs { "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512" } do
        arrives("after authentication with " .. mechanism, "SASL_SSL", function()
            return {
                security_protocol = "sasl_ssl",
                sasl_mechanisms = mechanism,
                sasl_username = USER,
                sasl_password = PASSWORD,
            }
        end)
    end
end)


describe("TLS that goes wrong says why, in one line:", function()
    local WRONG = {
        { "an expired certificate", "TLS_EXPIRED", "the broker's certificate has expired" },
        { "one that is not valid yet", "TLS_FUTURE",
          "the broker's certificate is not valid before" },
        { "one for another host", "TLS_HOST", "and not for 127.0.0.1: connect to it by a name that "
          .. "its certificate has, in metadata_broker_list" },
        { "one with a common name alone", "TLS_CN",
          "the broker's certificate has no subjectAltName (its common name is not looked at)" },
        { "a self-signed one", "TLS_SELF", "the broker's certificate is self-signed" },
        { "an unknown authority", "TLS_UNKNOWN",
          "the broker's certificate is not from an authority that is trusted here" },
        { "one that a broker's key has signed, whose certificate is trusted", "TLS_FORGED",
          "the broker's certificate is not from an authority that is trusted here",
          { ssl_ca_location = path("good.pem") } },
        { "no certificate of our own", "MTLS", "the broker wants a client certificate" },
        { "one by an authority that the broker does not know", "MTLS",
          "the broker does not trust our certificate (ssl_certificate_location)",
          { ssl_certificate_location = path("foreign.pem"),
            ssl_key_location = path("foreign.key") } },
        { "a listener without TLS", "BOOTSTRAP",
          "closed the connection in the TLS handshake: perhaps a listener without TLS" },
        { "a listener that has old versions alone", "TLS_OLD", "1.2" },
        { "a file that is not there", "TLS_GOOD",
          "ssl_ca_location: cannot read " .. path("none.pem") .. ": No such file or directory",
          { ssl_ca_location = path("none.pem") } },
        { "a file without certificates", "TLS_GOOD", "ssl_ca_location holds no certificate in PEM",
          { ssl_ca_location = path("client.key") } },
        { "a key of another certificate", "MTLS",
          "the key in ssl_key_location does not belong to the certificate in "
          .. "ssl_certificate_location",
          { ssl_certificate_location = path("client.pem"),
            ssl_key_location = path("foreign.key") } },
        { "an encrypted key without a password", "MTLS",
          "ssl_key_location holds an encrypted key: set ssl_key_password",
          { ssl_certificate_location = path("client.pem"),
            ssl_key_location = path("client-encrypted.key") } },
        { "a wrong password", "MTLS", "ssl_key_password is wrong",
          { ssl_certificate_location = path("client.pem"),
            ssl_key_location = path("client-encrypted.key"), ssl_key_password = "sesame" } },
        { "a key that is encrypted in an old way", "MTLS", "openssl pkcs8 -topk8 -v2 aes-256-cbc",
          { ssl_certificate_location = path("client.pem"),
            ssl_key_location = path("client-old.key"), ssl_key_password = "open sesame" } },
    }

    for _, case in ipairs(WRONG) do
        local name, listener, text, options = unpack(case)
        it(name, function()
            local nginx = start(listener, options)
            nginx:run("assert(kfk.log('tls-wrong', nil, 'kept'))")
            assert_says(nginx, text)
            assert.equal(1, nginx:stats().queue_messages)
        end)
    end

    it("a listener with TLS that is spoken to without", function()
        local nginx = start("TLS_GOOD", { security_protocol = "plaintext", ssl_ca_location = NONE })
        nginx:run("assert(kfk.log('tls-wrong', nil, 'kept'))")
        assert_says(nginx, 'a TLS listener: set security_protocol to "ssl" or "sasl_ssl"')
    end)

    it("a wrong password of a user", function()
        local nginx = start("SASL_SSL", {
            security_protocol = "sasl_ssl", sasl_mechanisms = "SCRAM-SHA-512",
            sasl_username = USER, sasl_password = "wrong",
        })
        nginx:run("assert(kfk.log('tls-wrong', nil, 'kept'))")
        assert_says(nginx, "authentication failed (sasl_username, sasl_password)")
        assert.is_nil(nginx:error_log():find("wrong", 1, true))
    end)
end)


it("a certificate that is mended is used by the next connection, without a reload", function()
    write("mended.pem", read "other-ca.pem")
    local topic = broker:topic("tls-mended", 1)
    local nginx = start("TLS_GOOD", { ssl_ca_location = path("mended.pem") })
    nginx:run("assert(kfk.log(..., nil, 'kept'))", topic)
    assert_says(nginx, "is not from an authority that is trusted here")
    write("mended.pem", read "ca.pem")
    harness.eventually(10, function()
        assert.same({ "kept" }, broker:payloads(topic))
    end)
end)


it("a certificate that ends soon is warned of, and counted down", function()
    local topic = broker:topic("tls-soon", 1)
    local nginx = start("TLS_SOON")
    assert_arrives(nginx, topic)
    assert_says(nginx, "the certificate of broker " .. broker.listeners.TLS_SOON
                       .. " expires in 6 days: renew it")
    local left = nginx:stats().certificate_expires_s
    assert.is_true(left > 5 * 86400 and left <= 7 * 86400, left)
end)


it("what makes TLS unsafe is warned of at start", function()
    assert_says(start("TLS_GOOD", { enable_ssl_certificate_verification = false }),
                "enable_ssl_certificate_verification is false")
    assert_says(start("TLS_GOOD", { ssl_endpoint_identification_algorithm = "none" }),
                "ssl_endpoint_identification_algorithm is none")
end)


it("messages outlive a killed broker and a broken file, by TLS and compressed", function()
    local topic = broker:topic("tls-kill", 2)
    write("broken.pem", read "ca.pem")
    local nginx = start("TLS_GOOD", {
        compression_codec = "zstd", request_required_acks = -1,
        ssl_ca_location = path("broken.pem"),
    })
    local function log(from, to)
        nginx:run([[
            local topic, from, to = ...
            for i = from, to do assert(kfk.log(topic, i, ("line %d "):format(i):rep(30))) end
        ]], topic, from, to)
    end
    log(1, 500)
    harness.eventually(10, function()
        assert.is_true(#broker:records(topic) > 0)
    end)
    broker:kill()
    write("broken.pem", "nothing")
    log(501, 1000)
    broker:start()
    harness.eventually(30, function()
        assert.equal(1000, #broker:records(topic))
    end)
    assert_says(nginx, "ssl_ca_location holds no certificate in PEM (-----BEGIN CERTIFICATE-----); "
                       .. "what was read before is used until that is mended")
end)
