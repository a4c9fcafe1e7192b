-- The nginx under test: a process of its own, never the runner, with lkfk.so on its
-- lua_package_cpath.

local lfs = require "lfs"
local footprint = require "spec.harness.footprint"
local kafka = require "spec.harness.kafka"
local literal = require "spec.harness.literal"
local process = require "spec.harness.process"

local assert, error, ipairs, pairs, pcall = assert, error, ipairs, pairs, pcall
local loadstring, select, setmetatable = loadstring, select, setmetatable
local tonumber, type = tonumber, type
local concat, max = table.concat, math.max
local getenv = os.getenv
local must, finally, eventually = process.must, process.finally, process.eventually
local at_failure = process.at_failure
local read, write, env_file = process.read, process.write, process.env_file
local alive, children = process.alive, process.children
local ngx = ngx

local STAGE, SHM = getenv("LKFK_STAGE"), getenv("LKFK_SHM")
local TOOL = getenv("LKFK_ROOT") .. "/dev/nginx.sh"
local LITERAL = getenv("LKFK_ROOT") .. "/spec/harness/literal.lua"

local _M = {}

local Nginx = setmetatable({}, { __index = footprint })
Nginx.__index = Nginx

local nginxes = 0
local LINES_AT_FAILURE = 30
local PHASES = { "rewrite", "access", "content", "header_filter", "body_filter", "log" }

-- Runs the Lua code that it is sent.
local RUN = {
    conf = "client_max_body_size 16m; client_body_buffer_size 16m;",
    content = [[
        local literal = dofile(ngx.config.prefix() .. "/lua/literal.lua")
        ngx.req.read_body()
        local chunk, err = loadstring(ngx.req.get_body_data(), "=run")
        local results = { n = 2, false, err }
        if chunk then
            local function pack(...) return { n = select("#", ...), ... } end
            results = pack(pcall(chunk))
        end
        for i = 1, results.n do results[i] = literal(results[i]) end
        ngx.print("return ", table.concat(results, ", ", 1, results.n))
    ]],
}


-- The init_worker chunk of `producer`: init() with the test's broker and directories filled in.
local function producer_code(self, conf)
    local full = {
        queue_path = self.queue_path,
        backpath = self.backpath,
    }
    for key, value in pairs(conf) do
        full[key] = value
    end
    full.metadata_broker_list = full.metadata_broker_list or { kafka.bootstrap }
    return ('local ok, err = require("lkfk.kfk").init(%s) '):format(literal(full))
           .. 'if not ok then ngx.log(ngx.ERR, "lkfk init: ", err) end '
end


-- Writes a chunk to a file of its own and gives the directive for it. Chunks know queue_path and
-- backpath.
local function chunk(self, name, directive, code)
    local path = ("%s/lua/%s.lua"):format(self.prefix, (name:gsub("%W", "_")))
    local known = ("local queue_path, backpath = %q, %q; "):format(self.queue_path, self.backpath)
    write(path, known .. code)
    return ("%s_by_lua_file \"%s\";\n"):format(directive, path)
end


local function location(self, path, value)
    if type(value) == "string" then
        value = { content = value }
    end
    local lines = { value.conf or "" }
    for _, phase in ipairs(PHASES) do
        if value[phase] then
            lines[#lines + 1] = chunk(self, path .. "." .. phase, phase, value[phase])
        end
    end
    return ("location %s {\n%s}\n"):format(path, concat(lines, "\n"))
end


local function write_configuration(self, options)
    local http = { "include cpath.conf;", options.http or "" }
    local function add(line)
        http[#http + 1] = line
    end
    add(("lua_package_path '%s;;';"):format(options.lua_path or ""))
    if not (options.http or ""):find("lua_shared_dict%s+kfk%s") then
        add("lua_shared_dict kfk 1m;")
    end
    if options.init then
        add(chunk(self, "init", "init", options.init))
    end
    local init_worker = options.init_worker or ""
    if options.producer then
        init_worker = producer_code(self, options.producer) .. init_worker
    end
    if init_worker ~= "" then
        add(chunk(self, "init_worker", "init_worker", init_worker))
    end
    add("server {\ninclude listen.conf;")
    add(options.server or "")
    for path, value in pairs(options.locations or {}) do
        add(location(self, path, value))
    end
    add(location(self, "= /run", RUN))
    add("}")
    write(self.prefix .. "/http.conf", concat(http, "\n") .. "\n")
    write(self.prefix .. "/main.conf",
          ("worker_processes %d;\n%s\n"):format(options.workers or 1, options.main or ""))
end


-- nginx(options) -> a running nginx. Options, all of them optional:
--   workers      1
--   main, http, server   more lines of those levels
--   init, init_worker    Lua code
--   producer     table: init_worker calls kfk.init with it, metadata_broker_list, queue_path and
--                backpath filled in; raises what init() says against it
--   locations    path -> Lua code for content_by_lua, or { rewrite, access, content, header_filter,
--                body_filter, log = Lua code, conf = directives }
--   lua_path     put before lua_package_path, e.g. dir .. "/?.lua"
-- Lua code may use the locals queue_path and backpath, fields of the nginx, as are prefix and port.
function _M.start(options)
    options = options or {}
    nginxes = nginxes + 1
    local name = "spec" .. nginxes
    local prefix = STAGE .. "/nginx/" .. name
    local self = setmetatable({
        name = name,
        prefix = prefix,
        queue_path = SHM .. "/" .. name,
        backpath = prefix .. "/backup/",
        workers = options.workers or 1,
    }, Nginx)
    must { "mkdir", "-p", prefix .. "/lua", self.queue_path, self.backpath }
    -- In its prefix, where workers may read it whoever they are.
    write(prefix .. "/lua/literal.lua", assert(read(LITERAL)))
    write_configuration(self, options)
    finally(function()
        if self.master then
            pcall(self.stop, self, 3)
        end
    end)
    at_failure(function()
        return ("%s's error log:\n%s"):format(name, self:last_lines(LINES_AT_FAILURE))
    end)
    self:start()
    local refused = options.producer and self:error_log():match("lkfk init: [^\n]*")
    if refused then
        error(refused, 2)
    end
    return self
end


-- start(): again, on the same port and with the same files, after a stop or a kill.
function Nginx:start()
    must { TOOL, "start", self.name }
    local env = env_file(self.prefix .. "/env")
    self.port, self.master = tonumber(env.PORT), tonumber(env.PID)
    eventually(10, function()
        return #self:pids() == self.workers
    end)
end


-- stop(seconds): gracefully, as a service manager does. Raises when it takes longer (15 s).
function Nginx:stop(seconds)
    self.master = nil
    must { TOOL, "stop", self.name, seconds or 15 }
end


-- command() -> the words of the command that runs its program on its files, for who wants to start
-- it in another shape. It is stopped.
function Nginx:command()
    local program = assert(lfs.symlinkattributes("/proc/" .. self.master .. "/exe", "target"))
    self:stop()
    return {
        program, "-p", self.prefix, "-c", self.prefix .. "/nginx.conf",
        "-e", self.prefix .. "/error.log",
    }
end


-- await_master(): until a master that was started by such a command, and its workers, are there. It
-- ends with the test at the latest.
function Nginx:await_master()
    eventually(10, function()
        self.master = tonumber(assert(read(self.prefix .. "/nginx.pid")))
        return #self:pids() == self.workers
    end)
    local pid = self.master
    finally(function()
        if alive(pid) then
            process.signal("QUIT", pid)
            eventually(10, function()
                return not alive(pid)
            end)
        end
    end)
end


-- await_end([seconds]): waits for the end of its master, which a signal has begun.
function Nginx:await_end(seconds)
    local pid = self.master
    eventually(seconds or 10, function()
        return not alive(pid)
    end)
    self.master = nil
end


-- quit(): gracefully, when it was started by a command.
function Nginx:quit()
    self:signal("QUIT")
    self:await_end()
end


-- get(path, { method, body, headers, seconds }) -> status, body | nil, err. One connection each.
function Nginx:get(path, options)
    options = options or {}
    local socket = ngx.socket.tcp()
    socket:settimeout((options.seconds or 10) * 1000)
    local ok, err = socket:connect("127.0.0.1", self.port)
    if not ok then
        return nil, err
    end
    local body = options.body or ""
    local head = {
        (options.method or "GET") .. " " .. path .. " HTTP/1.0",
        "Host: localhost",
        "Content-Length: " .. #body,
    }
    for key, value in pairs(options.headers or {}) do
        head[#head + 1] = key .. ": " .. value
    end
    local answer
    ok, err = socket:send(concat(head, "\r\n") .. "\r\n\r\n" .. body)
    if ok then
        answer, err = socket:receive("*a")
    end
    socket:close()
    local status, content = (answer or ""):match("^HTTP/1%.%d (%d%d%d).-\r\n\r\n(.*)$")
    if not status then
        return nil, err or "closed without an answer"
    end
    return tonumber(status), content
end


-- run(code, ...) -> what the Lua code returns in a request's content phase. `...` are its
-- arguments; `kfk` is the module. Arguments and results are nil, booleans, numbers, strings and
-- tables of those.
function Nginx:run(code, ...)
    local arguments = {}
    for i = 1, select("#", ...) do
        arguments[i] = literal((select(i, ...)))
    end
    local status, answer = self:get("/run", {
        method = "POST",
        body = ('local kfk = require "lkfk.kfk"\nreturn (function(...) %s\nend)(%s)'):format(
            code, concat(arguments, ", ")),
    })
    local result = status == 200 and loadstring(answer)
    if not result then
        error(("run: %s %s"):format(status, answer), 2)
    end
    local function judge(ok, ...)
        if not ok then
            error((...), 3)
        end
        return ...
    end
    return judge(result())
end


-- log_numbers(topic, first, last): the worker that answers logs a message for each number.
function Nginx:log_numbers(topic, first, last)
    self:run([[
        local topic, first, last = ...
        for i = first, last do assert(kfk.log(topic, nil, i)) end
    ]], topic, first, last)
end


-- stats() -> what kfk.stats() returns in the worker that answers.
function Nginx:stats()
    return self:run("return kfk.stats()")
end


function Nginx:error_log()
    return assert(read(self.prefix .. "/error.log"))
end


-- last_lines(count) -> the end of the error log.
function Nginx:last_lines(count)
    local lines = {}
    for line in self:error_log():gmatch("[^\n]+") do
        lines[#lines + 1] = line
    end
    return concat(lines, "\n", max(1, #lines - count + 1))
end


-- pids() -> workers at work, workers on their way out; self.master is the master's.
function Nginx:pids()
    local working, leaving = {}, {}
    for _, pid in ipairs(children(self.master)) do
        local title = read("/proc/" .. pid .. "/cmdline") or ""
        if title:find("worker process is shutting down", 1, true) then
            leaving[#leaving + 1] = pid
        elseif title:find("nginx: worker process", 1, true) then
            working[#working + 1] = pid
        end
    end
    return working, leaving
end


-- signal(name): "HUP", "QUIT", ... to the master, or to the process given.
function Nginx:signal(name, pid)
    process.signal(name, pid or self.master)
end


local function wait_for_workers_beside(self, old)
    local gone = {}
    for _, pid in ipairs(old) do
        gone[pid] = true
    end
    return eventually(10, function()
        local workers = self:pids()
        for _, pid in ipairs(workers) do
            if gone[pid] then
                return false
            end
        end
        return #workers == self.workers and workers
    end)
end


-- reload() -> the new workers. Returns when they are there; old ones may still be on their way out.
function Nginx:reload()
    local old = self:pids()
    self:signal("HUP")
    return wait_for_workers_beside(self, old)
end


-- kill_worker(i) -> the pid that was. Kills the i-th worker (1) with SIGKILL and waits for its
-- successor.
function Nginx:kill_worker(i)
    local pid = self:pids()[i or 1]
    self:signal("KILL", pid)
    wait_for_workers_beside(self, { pid })
    return pid
end


-- kill(): nginx crashes, master first, so that no worker comes back.
function Nginx:kill()
    local victims = { self.master }
    for _, list in ipairs { self:pids() } do
        for _, pid in ipairs(list) do
            victims[#victims + 1] = pid
        end
    end
    for _, pid in ipairs(victims) do
        self:signal("KILL", pid)
    end
    eventually(5, function()
        for _, pid in ipairs(victims) do
            if alive(pid) then
                return false
            end
        end
        return true
    end)
    self.master = nil
end


return _M
