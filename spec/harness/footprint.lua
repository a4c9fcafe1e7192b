-- What lkfk leaves on the machine: queue files, backup files, threads. Methods of the nginx under
-- test; nothing of lkfk's own is used to read them.

local lfs = require "lfs"
local process = require "spec.harness.process"

local assert, ipairs = assert, ipairs
local sort = table.sort
local read = process.read

local _M = {}

-- https://www.postgresql.org/docs/current/sql-copy.html
local UNESCAPED = {
    ["\\"] = "\\", b = "\b", t = "\t", n = "\n", v = "\v", f = "\f", r = "\r",
}


local function entries(path, pattern)
    local list = {}
    if lfs.attributes(path, "mode") == "directory" then
        for entry in lfs.dir(path) do
            if entry:find(pattern) then
                list[#list + 1] = entry
            end
        end
    end
    sort(list)
    return list
end


-- queue_files(parent) -> names of the queue files below a directory, the nginx's queue_path if none
-- is given, finished or not.
function _M:queue_files(parent)
    local list = {}
    for _, dir in ipairs(entries(parent or self.queue_path, "^lkfk%-%d+$")) do
        for _, name in ipairs(entries((parent or self.queue_path) .. "/" .. dir, "^[^.]")) do
            list[#list + 1] = name
        end
    end
    return list
end


local function unescape(text)
    if text == "\\N" then
        return nil
    end
    return (text:gsub("\\(.?)", function(letter)
        return assert(UNESCAPED[letter], "not an escape")
    end))
end


-- backup(topic) -> list of { time, topic, key, payload, extra }, in the file's order; empty without
-- a file. A null key or payload is nil, and so is what a line does not have.
function _M:backup(topic)
    local text = read(self.backpath .. "/" .. topic) or ""
    assert(text == "" or text:sub(-1) == "\n", "the last line of the backup is cut")
    local list = {}
    for line in text:gmatch("([^\n]*)\n") do
        local time, name, key, payload, extra =
            line:match("^(%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d)\t([^\t]+)\t([^\t]*)\t([^\t]*)(.*)$")
        assert(time and (extra == "" or extra:find("^\t{[^\t]+}$")), "not a backup line: " .. line)
        list[#list + 1] = {
            time = time, topic = name, key = unescape(key), payload = unescape(payload),
            extra = extra ~= "" and unescape(extra:sub(2)) or nil,
        }
    end
    return list
end


-- threads(pid) -> how many threads of a process are named lkfk.
function _M.threads(_, pid)
    local count = 0
    for _, thread in ipairs(entries("/proc/" .. pid .. "/task", "^%d+$")) do
        if read("/proc/" .. pid .. "/task/" .. thread .. "/comm") == "lkfk\n" then
            count = count + 1
        end
    end
    return count
end


return _M
