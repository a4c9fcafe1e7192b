-- codecs.lua SEGMENT...: the codecs of the batches in a broker's log files, in order, each with how
-- many batches have it and how many bytes they take. A batch, and a message of old, begins with its
-- offset and its length; where its attributes stand, its magic byte says.
-- https://kafka.apache.org/documentation/#recordbatch

local byte = string.byte
local io, ipairs, table = io, ipairs, table

local NAMES = { [0] = "none", "gzip", "snappy", "lz4", "zstd" }
local LENGTH_END, MAGIC_AT = 12, 17
local ATTRIBUTES_AT = { [0] = 18, 18, 23 }


local function number(bytes, at)
    local a, b, c, d = byte(bytes, at, at + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
end


local batches, bytes, names = {}, {}, {}
for _, path in ipairs(arg) do
    local file = io.open(path, "rb")
    local log = file:read "*a"
    file:close()
    local at = 0
    -- What lies behind the last one is room that the broker asked for in advance.
    while at + MAGIC_AT < #log and number(log, at + 9) > 0 do
        local codec = NAMES[byte(log, at + ATTRIBUTES_AT[byte(log, at + MAGIC_AT)]) % 8]
        if batches[codec] == nil then
            batches[codec], bytes[codec] = 0, 0
            names[#names + 1] = codec
        end
        local length = LENGTH_END + number(log, at + 9)
        batches[codec], bytes[codec] = batches[codec] + 1, bytes[codec] + length
        at = at + length
    end
end
table.sort(names)
for _, name in ipairs(names) do
    io.write(name, " ", batches[name], " ", bytes[name], "\n")
end
