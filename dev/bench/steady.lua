-- For wrk: as wrk.lua, with a pause of 4 ms before each request of a connection: a steady load
-- instead of as much as the server can take.

dofile "dev/bench/wrk.lua"


-- luacheck: globals delay
function delay()
  return 4
end
