-- A location that says who the worker is: its process id, then the software it is made of.

local function dotted(number)
  return ("%d.%d.%d"):format(number / 1000000, number / 1000 % 1000, number % 1000)
end


local config = ngx.config
ngx.say(ngx.worker.pid())
ngx.say("nginx ", dotted(config.nginx_version), ", ngx_lua ", dotted(config.ngx_lua_version), ", ",
        jit.version)
