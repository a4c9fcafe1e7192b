-- The spec runner: busted as a library inside an nginx worker, so that specs may sleep, use
-- cosockets and start light threads. dev/spec.sh starts it. One line for each test as it ends.
--
-- A test whose name begins with "#pending " shows a known fault that is not mended yet. It is
-- listed and neither runs nor counts; with SPEC_PENDING=1 such tests are the only ones that run,
-- and count like others. Whoever mends the fault deletes that word. Any other test that is pending
-- has failed. So has whatever goes wrong outside of a test, and a run without tests. A test or a
-- setup that does not end within LIMIT ends the run.
--
-- Several runners may share the files: each takes the next one that none has yet. Who has it made a
-- directory of its name in SPEC_CLAIMS.

local getenv, exit = os.getenv, os.exit
local stdout = io.stdout
local ngx = ngx

local LIMIT = 120
local PENDING = "^#pending "

package.path = getenv("LKFK_ROOT") .. "/?.lua;" .. package.path .. getenv("SPEC_LUA_PATH")
package.cpath = package.cpath .. getenv("SPEC_LUA_CPATH")

local lfs = require "lfs"
local harness = require "spec.harness"
local busted = require "busted.core"()
require "busted"(busted)

local colour = require "term".isatty(stdout) and not getenv("NO_COLOR")
local passed, failed, pending = 0, 0, 0
local current = {}


local function say(mark, element, seconds, message)
    local names = {}
    while element and element.descriptor and element.descriptor ~= "file" do
        table.insert(names, 1, element.name or element.descriptor)
        element = busted.context.parent(element)
    end
    local paint, plain = "", ""
    if colour then
        paint, plain = mark == "ok" and "\27[32m" or "\27[31m", "\27[0m"
    end
    stdout:write(("  %s%-4s%s %6.2f s  %s\n"):format(paint, mark, plain, seconds or 0,
                                                     table.concat(names, " ")))
    if message then
        stdout:write((tostring(message):gsub("%s+$", ""):gsub("[^\n]+", "        %0")), "\n")
    end
end


local function finish()
    if passed + failed == 0 and (pending == 0 or getenv("SPEC_PENDING")) then
        stdout:write("no test ran\n")
        failed = 1
    end
    local result = assert(io.open(getenv("SPEC_RESULT"), "w"))
    result:write(("%d passed, %d failed\n"):format(passed, failed))
    result:close()
    stdout:flush()
    exit(failed == 0 and 0 or 1)
end


local function subscribe(channel, handler)
    busted.subscribe(channel, function(...)
        handler(...)
        return nil, true
    end)
end


-- Lists the tests that are pending instead of running them, or keeps all others from running.
local function watch_registrations()
    busted.subscribe({ "register", "it" }, function(name)
        local is_pending = name:find(PENDING) ~= nil
        if is_pending and not getenv("SPEC_PENDING") then
            pending = pending + 1
            stdout:write(("  wait            %s\n"):format((name:gsub(PENDING, ""))))
        end
        return nil, is_pending == (getenv("SPEC_PENDING") ~= nil)
    end, { priority = 1 })
end


-- Something began or ended: the clock starts anew.
local function progress(element)
    current.element, current.deadline = element, ngx.now() + LIMIT
end


-- Stops what the scope of ELEMENT started.
local function leave(element)
    progress(element)
    local ok, err = pcall(harness.leave)
    if not ok then
        failed = failed + 1
        say("FAIL", element, 0, err)
    end
end


-- busted tells of a failure before the end of its test; the line of a test is written at its end.
local function watch_tests()
    local message

    subscribe({ "test", "start" }, function(element)
        message = nil
        progress(element)
        harness.enter()
    end)

    subscribe({ "test", "end" }, function(element, _, status)
        if status == "success" then
            passed = passed + 1
            say("ok", element, element.duration)
        else
            failed = failed + 1
            if status == "pending" then
                message = "pending: a test that does not run counts as failed"
            end
            say("FAIL", element, element.duration, (message or "") .. "\n" .. harness.evidence())
        end
        leave(element)
    end)

    local function broken(element, text)
        if element.descriptor == "it" then
            message = text
            return
        end
        failed = failed + 1
        say("FAIL", element, element.duration, text .. "\n" .. harness.evidence())
    end
    subscribe({ "failure" }, function(element, _, text)
        broken(element, text)
    end)
    subscribe({ "error" }, function(element, _, text, trace)
        broken(element, tostring(text) .. (trace and trace.traceback or ""))
    end)
end


local function claim(file)
    local claims = getenv("SPEC_CLAIMS")
    return not claims or lfs.mkdir(claims .. "/" .. file:match("[^/]*$"))
end


local function watch_scopes()
    for _, kind in ipairs { "file", "describe" } do
        subscribe({ kind, "start" }, function(element)
            if kind == "file" and claim(element.name) then
                stdout:write(element.name, "\n")
            elseif kind == "file" then
                setmetatable(element.run, { __call = function() end })
            end
            progress(element)
            harness.enter()
        end)
        subscribe({ kind, "end" }, leave)
    end
end


-- A coroutine cannot be ended from outside, so the run ends; its stage stops what it left running.
local function watch_clock()
    ngx.timer.every(1, function()
        if current.deadline and ngx.now() > current.deadline then
            failed = failed + 1
            say("FAIL", current.element, LIMIT, "did not end\n" .. harness.evidence())
            finish()
        end
    end)
end


local function main()
    local files = {}
    for file in getenv("SPEC_FILES"):gmatch("[^\n]+") do
        files[#files + 1] = file
    end
    stdout:setvbuf("line")
    os.exit = function() -- luacheck: ignore 122
        error("os.exit called by a spec", 2)
    end
    watch_tests()
    watch_scopes()
    watch_clock()
    -- Before the filter, since whoever subscribes last is asked first.
    watch_registrations()
    local filter = getenv("SPEC_FILTER")
    require "busted.modules.filter_loader"()(busted, {
        tags = {}, excludeTags = {}, filterOut = {}, filter = filter ~= "" and { filter } or {},
    })
    local load = require "busted.modules.test_file_loader"(busted, { "lua" })
    load(files, { "_spec" }, { excludes = {}, recursive = true })
    require "busted.execute"(busted)(1, {})
    finish()
end


main()
