-- first(): from now on the calling thread comes before all others of the machine; other threads of
-- its process do not.

local ffi = require "ffi"

local C = ffi.C
local error = error

ffi.cdef "int sched_setscheduler(int pid, int policy, const int *priority);"

local FIFO = 1
local priority = ffi.new("int[1]", 2)


return function()
    if C.sched_setscheduler(0, FIFO, priority) ~= 0 then
        error("no real-time priority")
    end
end
