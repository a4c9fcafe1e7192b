-- The log handler of the location that is measured with logging: one message for each request.

local producers = require "producers"

local KEYS = 64

local key_names = {}
for i = 0, KEYS - 1 do
  key_names[i] = ("key-%d"):format(i)
end
local payload = ("x"):rep(400)


local _M = { taken = 0, refused = 0 }


function _M.log()
  local taken = _M.taken
  if producers.log("bench", key_names[taken % KEYS], payload) then
    _M.taken = taken + 1
  else
    _M.refused = _M.refused + 1
  end
  if taken % KEYS == 0 then
    producers.tend()
  end
end


return _M
