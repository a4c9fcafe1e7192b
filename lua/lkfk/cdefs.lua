-- Loads lkfk.so once and gives FFI callers what they need of it. The declarations come from the .so
-- itself, so they cannot be those of another version.

local ffi = require "ffi"
local core = require "lkfk.core"

local pcall = pcall


local _M = { _VERSION = core.version, core = core, errors = core.errors }


-- A worker has one VM that outlives its requests, or, with lua_code_cache off, one per request:
-- each declares the types once.
local declared, err = pcall(ffi.cdef, core.cdef)
if not declared then
    error("lkfk: the declarations of lkfk.so were refused: " .. err)
end


-- attach() -> api | nil: the running producer's functions.
function _M.attach()
    local address = core.api()
    if address == nil then
        return nil
    end
    local api = ffi.cast("const lkfk_api_" .. core.abi .. " *", address)
    if api.abi ~= core.abi or api.size ~= ffi.sizeof("lkfk_api_" .. core.abi) then
        error("lkfk: lkfk.so speaks ABI " .. api.abi .. ", its Lua files expect " .. core.abi)
    end
    return api
end


return _M
