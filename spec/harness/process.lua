-- Scopes, programs and waiting: what the rest of the harness is made from.
--
-- Nothing here blocks the runner: waiting is ngx.sleep, programs run beside it.

local ffi = require "ffi"
local lfs = require "lfs"

local assert, error, ipairs, pcall, select = assert, error, ipairs, pcall, select
local tonumber, tostring, type, unpack = tonumber, tostring, type, unpack
local concat, remove_last, sort = table.concat, table.remove, table.sort
local execute, getenv, remove, open = os.execute, os.getenv, os.remove, io.open
local C = ffi.C
local ngx = ngx
local sleep, now, update_time = ngx.sleep, ngx.now, ngx.update_time

-- A program of that name is not on every machine.
ffi.cdef "int kill(int pid, int sig);"

local SIGNALS = {
    HUP = 1, QUIT = 3, KILL = 9, USR1 = 10, USR2 = 12, TERM = 15, CONT = 18, STOP = 19, WINCH = 28,
}

local _M = {}


local function clock()
    update_time()
    return now()
end


function _M.read(path)
    local file, err = open(path, "rb")
    if not file then
        return nil, err
    end
    local text = file:read("*a")
    file:close()
    return text
end


function _M.write(path, text)
    local file = assert(open(path, "wb"))
    file:write(text)
    file:close()
end

local read, write = _M.read, _M.write


local function quote(argument)
    return "'" .. tostring(argument):gsub("'", "'\\''") .. "'"
end


local scopes = { {} }


function _M.enter()
    scopes[#scopes + 1] = {}
end


-- Runs what was given to `finally` in this scope, last first and all of it; then raises the first
-- error.
function _M.leave()
    local scope = remove_last(scopes)
    local first
    for i = #scope, 1, -1 do
        local ok, err = pcall(scope[i])
        first = first or (not ok and err)
    end
    if first then
        error(first, 0)
    end
end


function _M.finally(action)
    local scope = scopes[#scopes]
    scope[#scope + 1] = action
end


-- at_failure(tell): tell() -> text, which the runner prints when a test of this scope fails.
function _M.at_failure(tell)
    local scope = scopes[#scopes]
    scope.tell = scope.tell or {}
    scope.tell[#scope.tell + 1] = tell
end


-- evidence() -> what all scopes have to say of a failure.
function _M.evidence()
    local texts = {}
    for _, scope in ipairs(scopes) do
        for _, tell in ipairs(scope.tell or {}) do
            local ok, text = pcall(tell)
            texts[#texts + 1] = ok and text or nil
        end
    end
    return concat(texts, "\n")
end


local runs = 0


-- run(argv, { stdin = bytes, seconds = 60 }) -> exit code, stdout, stderr.
-- Code 124 when it took longer. In a light thread it runs beside the test. It stays in the runner's
-- process group, to end with it.
function _M.run(argv, options)
    options = options or {}
    runs = runs + 1
    local base = getenv("LKFK_STAGE") .. "/log/run" .. runs
    local words = { "timeout --foreground -k 1", options.seconds or 60 }
    for _, argument in ipairs(argv) do
        words[#words + 1] = quote(argument)
    end
    local input = "/dev/null"
    if options.stdin then
        input = base .. ".in"
        write(input, options.stdin)
    end
    local q = quote(base)
    execute(("{ %s <%s >%s.out 2>%s.err; echo $? >%s.tmp; mv %s.tmp %s.code; } &"):format(
            concat(words, " "), quote(input), q, q, q, q, q))
    local pause = 0.002
    while not lfs.attributes(base .. ".code", "mode") do
        sleep(pause)
        pause = pause < 0.02 and pause * 2 or pause
    end
    local code = tonumber(read(base .. ".code"))
    local out, err = read(base .. ".out"), read(base .. ".err")
    for _, suffix in ipairs { ".code", ".in", ".out", ".err" } do
        remove(base .. suffix)
    end
    return code, out, err
end


function _M.must(argv, options)
    local code, out, err = _M.run(argv, options)
    if code ~= 0 then
        error(concat(argv, " ") .. ": exit code " .. code .. ": " .. err .. out, 0)
    end
    return out
end


-- start(argv) -> a function that gives what the program has written so far. The program runs beside
-- the tests until it ends or the scope does.
function _M.start(argv)
    runs = runs + 1
    local base = getenv("LKFK_STAGE") .. "/log/run" .. runs
    local words = {}
    for i, argument in ipairs(argv) do
        words[i] = quote(argument)
    end
    execute(("{ %s </dev/null >%s.out 2>&1 & echo $! >%s.pid; }"):format(
            concat(words, " "), quote(base), quote(base)))
    local pid = assert(tonumber(read(base .. ".pid")))
    _M.finally(function()
        if _M.alive(pid) then
            _M.signal("KILL", pid)
        end
    end)
    return function()
        return assert(read(base .. ".out"))
    end
end


function _M.env_file(path)
    local values = {}
    for key, value in assert(read(path)):gmatch("([A-Z_]+)=([^\n]*)") do
        values[key] = value
    end
    return values
end


-- Nil for a process that is gone. So is a zombie: nobody may ever wait for an orphan.
function _M.parent_of(pid)
    local stat = read("/proc/" .. pid .. "/stat") or ""
    return tonumber(stat:match("%) [^ZX] (%d+)"))
end


function _M.alive(pid)
    return _M.parent_of(pid) ~= nil
end


-- children(parent) -> the pids of a process's children, sorted.
function _M.children(parent)
    local list = {}
    for entry in lfs.dir("/proc") do
        if entry:find("^%d+$") and _M.parent_of(entry) == parent then
            list[#list + 1] = tonumber(entry)
        end
    end
    sort(list)
    return list
end


-- signal(name, pid): "HUP", "QUIT", ...
function _M.signal(name, pid)
    assert(C.kill(pid, (assert(SIGNALS[name], name))) == 0, "no such process")
end


-- eventually(seconds, fn): calls fn until it returns something true, or, when it returns nothing,
-- until it does not raise. Returns what fn returned; raises its last error when the time is over.
function _M.eventually(seconds, fn)
    local deadline = clock() + seconds
    local function judge(ok, ...)
        return ok and (select("#", ...) == 0 or (...)) and true, ...
    end
    repeat
        local result = { judge(pcall(fn)) }
        if result[1] then
            return unpack(result, 2)
        end
        if clock() > deadline then
            if type(result[2]) == "string" then
                result[2] = result[2] .. " (waited " .. seconds .. " s)"
            end
            error(result[2] or "not within " .. seconds .. " s", 2)
        end
        sleep(0.05)
    until false
end


return _M
