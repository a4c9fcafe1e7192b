-- A location that names the software the worker is made of.

local function dotted(number)
  return ("%d.%d.%d"):format(number / 1000000, number / 1000 % 1000, number % 1000)
end


local nginx = ngx.config.nginx_version
local ngx_lua = ngx.config.ngx_lua_version
ngx.say("nginx ", dotted(nginx), ", ngx_lua ", dotted(ngx_lua), ", ", jit.version)
