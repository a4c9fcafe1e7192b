-- How long nginx gives a worker that shuts down gracefully: worker_shutdown_timeout, which no API
-- tells, so it is read where nginx keeps it.

local ffi = require "ffi"

local C = ffi.C
local ngx = ngx
local pcall = pcall
local tonumber = tonumber

-- The first release whose configuration begins with these fields.
local FIRST_VERSION = 1011011
-- A resolution of timers above this, in milliseconds, is none.
local LONGEST_RESOLUTION = 60000


local _M = {}


-- The beginnings of nginx's structures, under names that are in nobody's way.
local declared = pcall(ffi.cdef, [[
    typedef struct {
        intptr_t daemon, master;
        uintptr_t timer_resolution, shutdown_timeout;
    } lkfk_nginx_core_conf;
    typedef struct { lkfk_nginx_core_conf **conf_ctx; } lkfk_nginx_cycle;
    typedef struct { uintptr_t ctx_index, index; } lkfk_nginx_module;
    extern lkfk_nginx_cycle *lkfk_nginx_cycle_now __asm__("ngx_cycle");
    extern lkfk_nginx_module lkfk_nginx_core_module __asm__("ngx_core_module");
]])


local function is_flag(value)
    return value == 0 or value == 1
end


local function read()
    local conf = C.lkfk_nginx_cycle_now.conf_ctx[C.lkfk_nginx_core_module.index]
    -- What does not look as it must is not read any further.
    if is_flag(conf.daemon) and is_flag(conf.master)
       and conf.timer_resolution <= LONGEST_RESOLUTION
    then
        return tonumber(conf.shutdown_timeout)
    end
end


-- timeout() -> milliseconds; 0 when there is none, or it cannot be known.
function _M.timeout()
    if not declared or ngx.config.nginx_version < FIRST_VERSION then
        return 0
    end
    local ok, timeout = pcall(read)
    return ok and timeout or 0
end


return _M
