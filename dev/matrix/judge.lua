-- judge.lua COUNT PARTITIONS with|without SINCE: reads lines "PARTITION TIME KEY NUMBER KEY", as
-- kcat printed what matrix.lua logged. Prints how many messages are there twice, or else what is
-- wrong, and fails.

local bit = require "bit"

local bxor, band, rshift, tobit = bit.bxor, bit.band, bit.rshift, bit.tobit
local byte = string.byte
local io, ipairs, os, tonumber = io, ipairs, os, tonumber

local COUNT, PARTITIONS = tonumber(arg[1]), tonumber(arg[2])
local WITH_TIMES, SINCE = arg[3] == "with", tonumber(arg[4])


local function fail(...)
    io.stdout:write(...)
    io.stdout:write("\n")
    os.exit(1)
end


-- CRC-32 bit by bit, so that it shares nothing with what it judges.
local function crc32(text)
    local crc = tobit(0xffffffff)
    for _, char in ipairs { byte(text, 1, -1) } do
        crc = bxor(crc, char)
        for _ = 1, 8 do
            local low = band(crc, 1)
            crc = rshift(crc, 1)
            if low == 1 then
                crc = bxor(crc, tobit(0xedb88320))
            end
        end
    end
    return bxor(crc, tobit(0xffffffff)) % 2 ^ 32
end


local seen, last = {}, {}
local distinct, duplicates = 0, 0
local till = (os.time() + 1) * 1000

for line in io.lines() do
    local partition, time, key, number, again =
        line:match("^(%d+) (%-?%d+) (%S+) (%d+) (%S+)$")
    if key == nil or key ~= again then
        fail("not what was logged: ", line)
    end
    partition, time, number = tonumber(partition), tonumber(time), tonumber(number)
    if number < 1 or number > COUNT then
        fail("never logged: ", line)
    end
    if partition ~= crc32(key) % PARTITIONS then
        fail("not in the partition of its key: ", line)
    end
    if WITH_TIMES and (time < SINCE or time > till) then
        fail("not its time: ", line)
    end
    if not WITH_TIMES and time > 0 then
        fail("a time where there can be none: ", line)
    end
    if seen[number] then
        duplicates = duplicates + 1
    else
        if number < (last[partition] or 0) then
            fail("out of order: ", line)
        end
        seen[number], last[partition] = true, number
        distinct = distinct + 1
    end
end
if distinct ~= COUNT then
    fail(distinct, " of ", COUNT, " messages arrived")
end
io.stdout:write(duplicates, "\n")
