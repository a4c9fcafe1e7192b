-- A whole nginx.conf as it is printed for users, with this run's broker, port and directories in
-- place of those that it names.

local kafka = require "spec.harness.kafka"
local process = require "spec.harness.process"

local assert, getenv, tonumber = assert, os.getenv, tonumber

local _M = {}


-- put(text, what, instead) -> text. `what` is something of the reader's machine, and is there.
function _M.put(text, what, instead)
    local replaced, count = text:gsub(what:gsub("%p", "%%%0"), (instead:gsub("%%", "%%%%")))
    assert(count > 0, what)
    return replaced
end

local put = _M.put


-- localized(conf, dir, port) -> conf, with backup, pid and error log in a directory.
function _M.localized(conf, dir, port)
    conf = put(conf, "127.0.0.1:9092", kafka.bootstrap)
    conf = put(conf, "/var/lib/lkfk", dir .. "/backup")
    conf = put(conf, "127.0.0.1:8080", "127.0.0.1:" .. port)
    if getenv("LKFK_NGINX") then
        conf = put(conf, "include /etc/nginx/modules-enabled/*.conf;", "")
    end
    conf = put(conf, "http {", ("http {\nlua_package_cpath '%s/?.so;;';")
                               :format(getenv("LKFK_CPATH")))
    return ("pid '%s/nginx.pid'; error_log '%s/error.log';\n"):format(dir, dir) .. conf
end


-- quit(dir): gracefully, when it runs.
function _M.quit(dir)
    local pid = tonumber(process.read(dir .. "/nginx.pid") or "")
    if pid then
        process.signal("QUIT", pid)
        process.eventually(15, function()
            return not process.alive(pid)
        end)
    end
end


return _M
