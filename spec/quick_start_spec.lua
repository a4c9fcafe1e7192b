-- README's quick start as it is printed there, with other ports and directories.

local ffi = require "ffi"
local harness = require "spec.harness"
local printed = require "spec.harness.printed"
local process = require "spec.harness.process"

local kafka, put = harness.kafka, printed.put
local README = os.getenv("LKFK_ROOT") .. "/README.md"

pcall(ffi.cdef, "unsigned int getuid(void);")


if ffi.C.getuid() ~= 0 then
    io.stdout:write("  left out: FLT-18: README's quick start: workers that are nobody take root\n")
    return
end


it("FLT-18: the quick start works as it is printed, with workers that are nobody", function()
    local readme = process.read(README)
    local conf = readme:match("```nginx\n(.-)```")
    local commands = readme:match("```sh\n(install %-d.-)```")
    local nginx = harness.nginx()
    local program, port = nginx:command()[1], tostring(nginx.port)
    local dir = os.getenv("LKFK_STAGE") .. "/quick-start"
    process.must { "mkdir", "-p", dir }
    process.write(dir .. "/nginx.conf", printed.localized(conf, dir, port))
    commands = put(commands, "127.0.0.1:9092", kafka.bootstrap)
    commands = put(commands, "/var/lib/lkfk", "'" .. dir .. "/backup'")
    commands = put(commands, "127.0.0.1:8080", "127.0.0.1:" .. port)
    commands = put(commands, "nginx -c", program .. " -c")
    finally(function()
        printed.quit(dir)
    end)
    -- The first message may still be in flight when it is looked for, and its topic not made yet.
    commands = put(commands, "kcat ", "sleep 3; kcat ")
    local out = process.must { "sh", "-e", "-c", "cd '" .. dir .. "'\n" .. commands }
    assert.matches("hello\n", out, 1, true)
    assert.matches("GET /first HTTP/1.1 200\n", out, 1, true)
    assert.is_nil(process.read(dir .. "/error.log"):find("[error]", 1, true))
end)
