-- Scripts that end under OpenResty's command line: what they logged arrives. Debian has no resty;
-- the one that LKFK_RESTY names is used.

local harness = require "spec.harness"

local kafka = harness.kafka
local RESTY = os.getenv("LKFK_RESTY")
local MESSAGES = 1000

local SCRIPT = [[
    package.cpath = "%s/?.so;" .. package.cpath
    local kfk = require "lkfk.kfk"
    assert(kfk.init {
        metadata_broker_list = { "%s" }, backpath = "%s", instance = "resty-spec",
        queue_path = "%s",
    })
    for i = 1, %d do
        assert(kfk.log("%s", nil, i))
    end
    %s
]]


if not RESTY then
    io.stdout:write("  left out: FLT-08: scripts under resty: LKFK_RESTY names none\n")
    return
end


-- A script that logs MESSAGES messages and then runs `code` ends with that exit code, and all of
-- them are in Kafka.
local function check(topic, code, expected)
    topic = kafka:topic(topic, 1)
    local nginx = harness.nginx()
    local exit, out, err = harness.run {
        RESTY, "-e", SCRIPT:format(os.getenv("LKFK_CPATH"), kafka.bootstrap, nginx.backpath,
                                   nginx.queue_path, MESSAGES, topic, code),
    }
    assert.equal(expected, exit, out .. err)
    assert.equal(MESSAGES, #kafka:payloads(topic))
    assert.same({}, nginx:backup(topic))
    assert.same({}, nginx:queue_files())
end


it("FLT-08: a script's messages arrive when it comes to its end", function()
    check("resty-end", "", 0)
end)

it("FLT-08: a script's messages arrive when it calls os.exit()", function()
    check("resty-os-exit", "os.exit(0)", 0)
end)

it("FLT-08: a script's messages arrive when it calls ngx.exit()", function()
    check("resty-ngx-exit", "ngx.exit(0)", 0)
end)

it("FLT-08: a script's messages arrive when it ends with an error", function()
    check("resty-error", "error('an error of the script')", 1)
end)
