-- The messages by which codecs are tried: a batch of lines as an access log has them, then messages
-- of given sizes. Whoever logs them and whoever judges them make them anew.

local tonumber = tonumber

local _M = {}


local function line(number)
    return ('{"time":"2026-01-01T00:00:%02dZ","uri":"/items/%d","status":200,"bytes":%d}'):format(
        number % 60, number * 7919 % 1000, number * 31 % 5000)
end


-- messages(batch, sizes) -> list of { key, payload }: `batch` lines, and one of each of `sizes`,
-- a text of numbers.
function _M.messages(batch, sizes)
    local list = {}
    for number = 1, batch do
        list[number] = { key = "key-" .. number, payload = line(number) }
    end
    for size in sizes:gmatch "%d+" do
        local number, lines, bytes = #list + 1, {}, 0
        while bytes < tonumber(size) do
            lines[#lines + 1] = line(number + #lines)
            bytes = bytes + #lines[#lines]
        end
        list[number] = { key = "key-" .. number, payload = table.concat(lines):sub(1, size) }
    end
    return list
end


return _M
