-- The kernel's clocks, in nanoseconds.

local ffi = require "ffi"

local C = ffi.C
local tonumber = tonumber

ffi.cdef [[
  struct lkfk_bench_time { long s; long ns; };
  int lkfk_bench_clock(int clock, struct lkfk_bench_time *now) __asm__("clock_gettime");
]]

local MONOTONIC, PROCESS_CPU, THREAD_CPU = 1, 2, 3

local time = ffi.new "struct lkfk_bench_time"


local function read(clock)
  C.lkfk_bench_clock(clock, time)
  return tonumber(time.s) * 1e9 + tonumber(time.ns)
end


local _M = {}


function _M.wall()
  return read(MONOTONIC)
end


-- CPU time of the process with all its threads.
function _M.process()
  return read(PROCESS_CPU)
end


-- CPU time of the calling thread.
function _M.thread()
  return read(THREAD_CPU)
end


return _M
