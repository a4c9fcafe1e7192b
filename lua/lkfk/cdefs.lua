-- Loads lkfk.so once and gives FFI callers what they need of it. The declarations come from the .so
-- itself, so they cannot be those of another version.

local ffi = require "ffi"
local core = require "lkfk.core"

local cast = ffi.cast
local error = error
local pcall = pcall


-- A worker has one VM that outlives its requests, or, with lua_code_cache off, one per request:
-- each declares the types once. A module that is loaded anew finds them declared.
local TYPE = "lkfk_api_" .. core.abi
if not pcall(ffi.typeof, TYPE) then
    local declared, err = pcall(ffi.cdef, core.cdef)
    if not declared then
        error("lkfk: the declarations of lkfk.so were refused: " .. err)
    end
end

local api = cast("const " .. TYPE .. " *", core.api)
if api.abi ~= core.abi or api.size ~= ffi.sizeof(TYPE) then
    error("lkfk: lkfk.so speaks ABI " .. api.abi .. ", its Lua files expect " .. core.abi)
end


-- RECORD is the type of what api.push_record() takes.
local _M = { _VERSION = core.version, core = core, api = api, RECORD = ffi.typeof "lkfk_record" }


-- handle_of(id) -> what the functions of api call a producer by that core calls id.
function _M.handle_of(id)
    return cast("const lkfk_handle *", id)
end


-- pointer(buffer) -> one to its bytes, as the declarations have them.
local CHARS = ffi.typeof "const char *"
function _M.pointer(buffer)
    return cast(CHARS, buffer)
end


return _M
