-- For wrk: orders at a steady rate, and each reply's line in a file: what log() said of a message.
--   wrk -t 1 ... -s load.lua URL -- FILE
-- wrk calls these by name.

local PAUSE_MS = 3

local ledger


function init(args) -- luacheck: ignore
    ledger = assert(io.open(args[1], "w"))
    ledger:setvbuf("line")
end


function delay() -- luacheck: ignore
    return PAUSE_MS
end


function response(status, _, body) -- luacheck: ignore
    if status == 200 then
        ledger:write(body)
    end
end
