-- What the nginx of chaos.sh does: logs messages that say who they are, and answers what log() said
-- of each and how long it took.
--
-- payload = run worker seq topic key length crc padding, see dev/chaos/src/judge/payload.rs.
-- Sequence numbers are never used twice, so that a refused message can be told from all others.

local clock = require "clock"
local kfk = require "lkfk.kfk"

local log, stats = kfk.log, kfk.stats
local wall = clock.wall
local ngx = ngx
local crc32_long, header, now, pid, print, var =
    ngx.crc32_long, ngx.header, ngx.now, ngx.worker.pid, ngx.print, ngx.var
local concat = table.concat
local collectgarbage, error, floor, tonumber, tostring =
    collectgarbage, error, math.floor, tonumber, tostring

local KEYS = 64
local LONGEST_PADDING = 400
local CRC_AND_SPACE = 9

local padding = ("x"):rep(LONGEST_PADDING)
local run, topics, worker
local seq = 0


local _M = {}


-- start(run, topics, conf): in init_worker_by_lua.
function _M.start(id, names, conf)
    local ok, err = kfk.init(conf)
    if not ok then
        error(err)
    end
    run, topics = id, names
    worker = pid() .. "-" .. floor(now() * 1000)
end


-- -> topic, key or nil, payload
local function message(number)
    local topic = topics[number % #topics + 1]
    -- Every eighth has no key.
    local key = number % 8 ~= 0 and "k" .. number % KEYS or nil
    local rest = padding:sub(1, number * 7919 % LONGEST_PADDING)
    local head = run .. " " .. worker .. " " .. number .. " " .. topic .. " " .. (key or "-") .. " "
    local length = #head + 4 + CRC_AND_SPACE + #rest
    -- A length has two or three digits.
    if length <= 100 then
        length = length - 1
    end
    head = head .. length .. " "
    return topic, key, head .. ("%08x "):format(crc32_long(head .. rest)) .. rest
end


-- /log?n=5 -> "WORKER FIRST MARKS NS,NS,..."
function _M.log()
    local marks, took = {}, {}
    local first = seq + 1
    -- What is made here is garbage soon, and compiled code collects a part of it wherever a trace
    -- begins: that may be inside of log(), whose time it is not.
    collectgarbage("stop")
    for i = 1, tonumber(var.arg_n) do
        seq = seq + 1
        local topic, key, payload = message(seq)
        local before = wall()
        local ok = log(topic, key, payload)
        took[i] = tostring(wall() - before)
        marks[i] = ok and "y" or "n"
    end
    collectgarbage("restart")
    local answer = concat { worker, " ", first, " ", concat(marks), " ", concat(took, ","), "\n" }
    header.content_length = #answer
    print(answer)
end


-- /ping -> "WORKER ACKED"
function _M.ping()
    local answer = worker .. " " .. stats().succ_msg_cnt .. "\n"
    header.content_length = #answer
    print(answer)
end


-- /waiting -> "PID MESSAGES", in its queue
function _M.waiting()
    local values = stats()
    print(pid(), " ", values.queue_messages + values.spill_waiting, "\n")
end


return _M
