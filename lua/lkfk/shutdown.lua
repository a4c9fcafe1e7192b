-- How long nginx gives a worker that shuts down gracefully: worker_shutdown_timeout, which no API
-- tells, so it is read where nginx keeps it. Where that is differs, since OpenResty's patches put
-- fields of their own before it. So nginx itself is asked: the entry of the directive in the core
-- module's table of commands says where in the configuration its value lies.
--
-- What is read has been checked: the module is of this nginx's version, and built with pointers and
-- types as ours are, before its table is believed. Whatever looks different counts as no timeout.

local ffi = require "ffi"

local C = ffi.C
local ffi_cast = ffi.cast
local ffi_string = ffi.string
local ngx = ngx
local pcall = pcall
local tonumber = tonumber

local NAME = "worker_shutdown_timeout"
-- The first release whose modules have a version and a signature.
local FIRST_VERSION = 1009011
-- What a signature begins with: the sizes of a pointer, a sig_atomic_t and a time_t.
local SIGNATURE = ffi.sizeof("void *") .. ",4," .. ffi.sizeof("long") .. ","
-- Of how many commands a table is read that has no end.
local COMMANDS_MAX = 1000
-- Configurations are smaller than this.
local OFFSET_MAX = 4096
local UNSET = ffi_cast("uintptr_t", -1)


local _M = {}


-- Declared once in a VM, also when this file is loaded anew, under names that are in nobody's way.
-- https://nginx.org/en/docs/dev/development_guide.html#Modules
local declared = pcall(ffi.typeof, "lkfk_nginx_module") or pcall(ffi.cdef, [[
    typedef struct {
        size_t name_len;
        const char *name;
        uintptr_t type;
        void *set;
        uintptr_t conf, offset;
        void *post;
    } lkfk_nginx_command;
    typedef struct {
        uintptr_t ctx_index, index;
        const char *name;
        uintptr_t spare0, spare1, version;
        const char *signature;
        void *ctx;
        const lkfk_nginx_command *commands;
    } lkfk_nginx_module;
    typedef struct { const char **conf_ctx; } lkfk_nginx_cycle;
    extern lkfk_nginx_cycle *lkfk_nginx_cycle_now __asm__("ngx_cycle");
    extern lkfk_nginx_module lkfk_nginx_core_module __asm__("ngx_core_module");
]])


-- Whether a module is laid out as declared here.
local function is_known(module, version)
    return module.version == version and version >= FIRST_VERSION
           and ffi_string(module.name) == "ngx_core_module"
           and ffi_string(module.signature, #SIGNATURE) == SIGNATURE
end


-- Where in the configuration the directive's value lies; nil when nginx has no such directive.
local function offset_of(commands)
    for i = 0, COMMANDS_MAX do
        local command = commands[i]
        if command.name_len == 0 then
            return nil
        end
        if command.name_len == #NAME and ffi_string(command.name, #NAME) == NAME then
            return command.offset
        end
    end
end


-- read(module, cycle, version) -> milliseconds | nil: by nginx's core module and cycle.
function _M.read(module, cycle, version)
    local offset = is_known(module, version) and offset_of(module.commands)
    if not offset or offset > OFFSET_MAX or offset % ffi.alignof("uintptr_t") ~= 0 then
        return nil
    end
    local value = ffi_cast("const uintptr_t *", cycle.conf_ctx[module.index] + offset)[0]
    return value ~= UNSET and tonumber(value) or nil
end


-- timeout() -> milliseconds; 0 when there is none, or it cannot be known.
function _M.timeout()
    if not declared then
        return 0
    end
    local ok, timeout = pcall(function()
        return _M.read(C.lkfk_nginx_core_module, C.lkfk_nginx_cycle_now, ngx.config.nginx_version)
    end)
    return ok and timeout or 0
end


return _M
