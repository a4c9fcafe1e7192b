-- worker_shutdown_timeout in nginx's memory, laid out as nginx has it, and as OpenResty, whose
-- patches put fields before it. No nginx is asked here; exit_spec does that.

local ffi = require "ffi"

local FILE = os.getenv("LKFK_ROOT") .. "/lua/lkfk/shutdown.lua"
local VERSION = 1027001
local SIGNATURE = "8,4,8,0000111111010111001110101111000110"
local NULL = ffi.cast("void *", 0)

-- As in ngx_cycle.h, up to what comes behind the value.
ffi.cdef [[
    typedef struct { intptr_t daemon, master; } spec_core_flags;
    typedef struct {
        spec_core_flags flags;
        uintptr_t timer_resolution, shutdown_timeout;
        intptr_t worker_processes, debug_points;
    } spec_nginx_core_conf;
    typedef struct {
        spec_core_flags flags;
        intptr_t privileged_agent, privileged_agent_connections;
        uintptr_t timer_resolution, shutdown_timeout;
        intptr_t worker_processes, debug_points;
    } spec_openresty_core_conf;
    typedef struct {
        struct { size_t len; const char *data; } name;
        uintptr_t type;
        char *(*set)(void *cf, void *cmd, void *conf);
        uintptr_t conf, offset;
        void *post;
    } spec_command;
    typedef struct {
        uintptr_t ctx_index, index;
        char *name;
        uintptr_t spare0, spare1, version;
        const char *signature;
        void *ctx;
        spec_command *commands;
        uintptr_t type;
        void *hooks[7];
        uintptr_t spare_hooks[8];
    } spec_module;
    typedef struct { void ****conf_ctx; void *pool; } spec_cycle;
]]

-- What memory of nginx's points to, so that it is not collected.
local alive = {}


local function text(value)
    alive[#alive + 1] = value
    return ffi.cast("char *", value)
end


-- core(layout, values, change) -> the core module, the cycle. `change` may spoil the module.
local function core(layout, values, change)
    local conf = ffi.new(layout)
    for name, value in pairs(values) do
        conf[name] = value
    end
    local commands = ffi.new("spec_command[4]")
    for i, name in ipairs { "daemon", "timer_resolution", "worker_shutdown_timeout" } do
        local field = name == "worker_shutdown_timeout" and "shutdown_timeout" or name
        commands[i - 1] = {
            name = { #name, text(name) },
            offset = name == "daemon" and 0 or ffi.offsetof(layout, field),
        }
    end
    local module = ffi.new("spec_module", {
        index = 2, name = text("ngx_core_module"), version = VERSION, signature = text(SIGNATURE),
        commands = commands,
    })
    if change then
        change(module, commands)
    end
    local contexts = ffi.new("void *[3]", { NULL, NULL, conf })
    local cycle = ffi.new("spec_cycle", { ffi.cast("void ****", contexts), NULL })
    for _, value in ipairs { conf, commands, module, contexts, cycle } do
        alive[#alive + 1] = value
    end
    return module, cycle
end


local function read(...)
    local shutdown = dofile(FILE)
    local module, cycle = core(...)
    return shutdown.read(ffi.cast("lkfk_nginx_module *", module),
                         ffi.cast("lkfk_nginx_cycle *", cycle), VERSION)
end


it("FLT-09: is found where nginx has it", function()
    assert.equal(12345, read("spec_nginx_core_conf", { shutdown_timeout = 12345 }))
    assert.equal(0, read("spec_nginx_core_conf", { timer_resolution = 100 }))
end)


it("FLT-09: is found where OpenResty has it, and not what stands in its place there", function()
    assert.equal(12345, read("spec_openresty_core_conf", {
        privileged_agent = 1, privileged_agent_connections = 8000, shutdown_timeout = 12345,
    }))
    assert.equal(0, read("spec_openresty_core_conf", { privileged_agent_connections = 512 }))
end)


it("FLT-09: is not looked for in a module that is not what it must be", function()
    for name, change in pairs {
        ["another version"] = function(module) module.version = VERSION + 1 end,
        ["no version"] = function(module) module.version = 0 end,
        ["another module"] = function(module) module.name = text("ngx_events_module") end,
        ["other types"] = function(module) module.signature = text("4,4,4,0") end,
        ["no such directive"] = function(_, commands) commands[2].name.len = 0 end,
        ["a value far away"] = function(_, commands) commands[2].offset = 65536 end,
        ["a value across words"] = function(_, commands) commands[2].offset = 25 end,
    } do
        assert.is_nil(read("spec_nginx_core_conf", { shutdown_timeout = 12345 }, change), name)
    end
    assert.is_nil(read("spec_nginx_core_conf", { shutdown_timeout = -1 }), "never set")
end)


it("FLT-09: is read in this nginx, also when the file is loaded anew", function()
    for _ = 1, 2 do
        local shutdown = dofile(FILE)
        assert.equal(0, shutdown.timeout())
        assert.equal(0, shutdown.read(ffi.C.lkfk_nginx_core_module, ffi.C.lkfk_nginx_cycle_now,
                                      ngx.config.nginx_version))
    end
end)
