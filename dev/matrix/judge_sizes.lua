-- judge_sizes.lua BATCH SIZES: reads "KEY SIZE:PAYLOAD" lines, which must be the messages of
-- sizes.lua, in order and each once. Prints what is wrong, and fails.

package.path = "dev/matrix/?.lua;" .. package.path

local sizes = require "sizes"

local io, ipairs, os, tonumber = io, ipairs, os, tonumber


local function fail(...)
    io.stdout:write(...)
    io.stdout:write("\n")
    os.exit(1)
end


local text, at = io.read "*a", 1
for number, message in ipairs(sizes.messages(tonumber(arg[1]), arg[2])) do
    local head, key, size = text:match("^((%S+) (%-?%d+):)", at)
    if head == nil then
        fail("message ", number, " is missing")
    end
    local payload = text:sub(at + #head, at + #head + tonumber(size) - 1)
    if key ~= message.key or payload ~= message.payload then
        fail("message ", number, " is not what was logged: ", key, ", ", size, " bytes")
    end
    at = at + #head + #payload + 1
end
if at <= #text then
    fail("more than was logged: ", text:sub(at, at + 60))
end
