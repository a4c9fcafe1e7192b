-- The options of log(): headers, a time of its own, a null payload. They are written into one
-- record and one buffer, which the next call uses again: lkfk.so copies what it takes of them.

local bit = require "bit"
local cdefs = require "lkfk.cdefs"
local ffi = require "ffi"
local numbers = require "lkfk.numbers"

local band, bor, rshift = bit.band, bit.bor, bit.rshift
local copy = ffi.copy
local floor = math.floor
local new = ffi.new
local next = next
local null = ngx.null
local text_of = numbers.text_of
local to_string = ffi.string
local tonumber = tonumber
local tostring = tostring
local type = type

-- The longest varint of a length: a message is far below 2 GiB.
local VARINT = 5
-- From here on integers share a number with their neighbours.
local LAST_TIMESTAMP = 2 ^ 53
local KNOWN = { headers = true, timestamp = true, tombstone = true }
local SHAPE = "headers must be a table of values by names, or a list of { name, value }"

local record = new(cdefs.RECORD)
local size = 512
local buffer = new("uint8_t[?]", size)


local _M = { record = record }


local function put_varint(at, number)
    while number >= 128 do
        buffer[at] = bor(band(number, 127), 128)
        number = rshift(number, 7)
        at = at + 1
    end
    buffer[at] = number
    return at + 1
end


-- The value of a header -> text | nil for null | nil, err.
local function value_of(name, value)
    if type(value) == "string" then
        return value
    end
    if value == nil or value == null then
        return nil
    end
    if type(value) == "number" then
        local text, err = text_of(value)
        return text, err and "header " .. name .. ": " .. err
    end
    return nil, "header " .. name .. " must be a string, a number or ngx.null, got " .. type(value)
end


local function make_room(at, bytes)
    if at + bytes > size then
        local larger = new("uint8_t[?]", 2 * (at + bytes))
        copy(larger, buffer, at)
        buffer, size = larger, 2 * (at + bytes)
    end
end


-- put_header(at, name, value) -> where it ends | nil, err. Lengths are signed varints, in which a
-- length is its double, and null, which is -1, is 1.
local function put_header(at, name, value)
    if type(name) ~= "string" then
        return nil, "the name of a header must be a string, got " .. type(name)
    end
    local text, err = value_of(name, value)
    if err then
        return nil, err
    end
    make_room(at, 2 * VARINT + #name + (text and #text or 0))
    at = put_varint(at, 2 * #name)
    copy(buffer + at, name, #name)
    at = at + #name
    if not text then
        return put_varint(at, 1)
    end
    at = put_varint(at, 2 * #text)
    copy(buffer + at, text, #text)
    return at + #text
end


local function put_pair(headers, i, at)
    local pair = headers[i]
    if type(pair) ~= "table" then
        return nil, SHAPE
    end
    return put_header(at, pair[1], pair[2])
end


-- A loop of a few rounds would keep what is around it from being compiled, and so would calls of
-- itself: the first four headers of a list, and three by name, are part of their caller's trace.

-- Behind `at`, all of a list.
local function put_list(headers, at)
    local count, i, err = #headers, 5
    at, err = put_pair(headers, 1, at)
    if at and count > 1 then at, err = put_pair(headers, 2, at) end
    if at and count > 2 then at, err = put_pair(headers, 3, at) end
    if at and count > 3 then at, err = put_pair(headers, 4, at) end
    while at and i <= count do
        at, err = put_pair(headers, i, at)
        i = i + 1
    end
    return at, err
end


local function count_names(headers)
    local count, name = 0, next(headers)
    if name ~= nil then count, name = 1, next(headers, name) end
    if name ~= nil then count, name = 2, next(headers, name) end
    if name ~= nil then count, name = 3, next(headers, name) end
    if name ~= nil then count, name = 4, next(headers, name) end
    while name ~= nil do
        count, name = count + 1, next(headers, name)
    end
    return count
end


-- Behind `at`, the header `name` of a table by names.
local function put_named(headers, name, at)
    return put_header(at, name, headers[name])
end


-- Behind `at`, all of a table by names, in the order in which Lua goes through it.
local function put_names(headers, at)
    local err
    local first = next(headers)
    local second = next(headers, first)
    local third = second ~= nil and next(headers, second) or nil
    local name = third ~= nil and next(headers, third) or nil
    at, err = put_named(headers, first, at)
    if at and second ~= nil then at, err = put_named(headers, second, at) end
    if at and third ~= nil then at, err = put_named(headers, third, at) end
    while at and name ~= nil do
        at, err = put_named(headers, name, at)
        name = next(headers, name)
    end
    return at, err
end


-- put_headers(headers) -> bytes of the block in `buffer` | nil, err.
local function put_headers(headers)
    if headers == nil then
        return 0
    end
    if type(headers) ~= "table" then
        return nil, SHAPE
    end
    if headers[1] ~= nil then
        return put_list(headers, put_varint(0, 2 * #headers))
    end
    local count = count_names(headers)
    if count == 0 then
        return 0
    end
    return put_names(headers, put_varint(0, 2 * count))
end


-- The first name that is no option's. There are three, and no loop: one of so few rounds would keep
-- what is around it from being compiled.
local function unknown_of(options)
    local name = next(options)
    if name ~= nil and KNOWN[name] then
        name = next(options, name)
        if name ~= nil and KNOWN[name] then
            name = next(options, name)
            if name ~= nil and KNOWN[name] then
                name = next(options, name)
            end
        end
    end
    return name
end


local function is_timestamp(value)
    return type(value) == "number" and value >= 0 and value <= LAST_TIMESTAMP
           and floor(value) == value
end


local function check(options, payload)
    if type(options) ~= "table" then
        return "options must be a table, got " .. type(options)
    end
    local name = unknown_of(options)
    if name ~= nil then
        return "log() has no option " .. tostring(name)
    end
    local timestamp = options.timestamp
    if timestamp ~= nil and not is_timestamp(timestamp) then
        return "timestamp must be a whole number of milliseconds since 1970, got "
               .. tostring(timestamp)
    end
    if options.tombstone and payload ~= nil then
        return "a tombstone has no payload: pass nil for it"
    end
end


-- set(options, payload) -> nothing | err: all of `record` that the options say. Its topic,
-- partition, key and payload are the caller's.
function _M.set(options, payload)
    local err = check(options, payload)
    if err then
        return err
    end
    local len
    len, err = put_headers(options.headers)
    if not len then
        return err
    end
    record.flags = 0
    record.timestamp_ms = options.timestamp or -1
    record.headers, record.headers_len = cdefs.pointer(buffer), len
end


-- What set() was last given, to be kept: the block of headers and the time, nil without.
function _M.kept()
    local len, timestamp = record.headers_len, tonumber(record.timestamp_ms)
    return len > 0 and to_string(buffer, len) or nil, timestamp >= 0 and timestamp or nil
end


return _M
