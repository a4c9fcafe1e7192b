-- The hot path is compiled: log(), and in it the call into lkfk.so, becomes part of its caller's
-- trace.

local harness = require "spec.harness"


-- Runs a loop around log() -> what the trace that it becomes is linked to, and the places in lkfk's
-- Lua files where recording was given up. A trace that is linked to itself never leaves the machine
-- code on its way round.
local WATCH = [[
    local jit, util = require "jit", require "jit.util"
    local key, payload, count, options = ...
    assert(jit.status())
    -- The first call of a topic takes another way.
    assert(kfk.log("jit", key, payload, options))

    local is_root, holds_log
    local links, aborts = {}, {}
    local function on_record(_, fn)
        holds_log = holds_log or fn == kfk.log
    end
    local function on_trace(what, trace, fn, pc, parent_or_code)
        if what == "start" then
            is_root, holds_log = parent_or_code == nil, false
        elseif what == "stop" and is_root and holds_log then
            links[#links + 1] = util.traceinfo(trace).linktype
        elseif what == "abort" then
            local place = util.funcinfo(fn, pc).loc or "C"
            if place:find("lkfk", 1, true) then
                aborts[#aborts + 1] = place .. " error " .. tostring(parent_or_code)
            end
        end
    end
    jit.flush()
    jit.attach(on_record, "record")
    jit.attach(on_trace, "trace")
    local accepted = 0
    for _ = 1, count do
        if kfk.log("jit", key, payload, options) then accepted = accepted + 1 end
    end
    jit.attach(on_record)
    jit.attach(on_trace)
    return { accepted = accepted, links = links, aborts = aborts }
]]


describe("a loop around log() is compiled as one trace", function()
    local nginx

    setup(function()
        nginx = harness.nginx { producer = {} }
    end)

    local function check(key, options)
        local seen = nginx:run(WATCH, key, "payload", 5000, options)
        assert.equal(5000, seen.accepted)
        assert.same({}, seen.aborts)
        -- log() alone may have become hot first.
        local links = table.concat(seen.links, " ")
        assert.is_true(links == "loop" or links == "return loop", links)
    end

    it("with a key", function()
        check("key")
    end)

    it("with a null key", function()
        check(nil)
    end)

    it("with headers in a list", function()
        check("key", { headers = { { "a", "b" }, { "c", "d" }, { "e", "f" } } })
    end)

    it("with headers by name", function()
        check("key", { headers = { a = "b", c = "d" } })
    end)

    it("with a time of its own", function()
        check("key", { timestamp = 1767225600123 })
    end)
end)
