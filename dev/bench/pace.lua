-- A location that logs `n` messages of 400 bytes with `keys` different keys: `rate` a second in
-- ticks of a millisecond, or, with rate=0, as many as the queue takes. Ends when all is
-- acknowledged, and answers with KEY=VALUE lines: nanoseconds a message, messages a second.
--
-- With idle=1 it does the same and logs nothing: the control run. With run=ID all payloads differ:
-- they say run, key and how many messages of this key came before.
--
-- Invariant: what `call` counts is the calls of log() and nothing else. Keys and payloads of a tick
-- are made before the clock is looked at, in the control run too.

local clock = require "clock"
local producers = require "producers"

local floor, min = math.floor, math.min
local ngx = ngx
local sleep = ngx.sleep
local wall, thread, process = clock.wall, clock.thread, clock.process

local SIZE = 400
local TICK = 0.001
local MOST_IN_A_TICK = 5000

local args = ngx.req.get_uri_args()
local n, rate, key_count = tonumber(args.n), tonumber(args.rate), tonumber(args.keys)
local run, idle = args.run, args.idle == "1"

local key_names = {}
for i = 0, key_count - 1 do
  key_names[i] = ("key-%d"):format(i)
end
local padding = ("x"):rep(SIZE)


-- The messages of a tick. Without a run they are the same in every tick.
local keys, payloads = {}, {}
for i = 1, MOST_IN_A_TICK do
  keys[i], payloads[i] = key_names[i % key_count], padding
end


local function make(first, count)
  for i = 1, count do
    local number = first + i - 1
    local key = number % key_count
    local text = run .. " " .. key .. " " .. (number - key) / key_count .. " "
    keys[i], payloads[i] = key_names[key], text .. padding:sub(#text + 1)
  end
end


-- Logs them; returns how many were taken before the first refusal.
local function burst(log, count)
  for i = 1, count do
    if not log("bench", keys[i], payloads[i]) then
      return i - 1
    end
  end
  return count
end


-- Returns the nanoseconds inside of log() and the refusals.
local function send()
  local log, tend = producers.log, producers.tend
  local sent, bursts, refusals, spent = 0, 0, 0, 0
  local began = wall()
  while sent < n do
    local due = MOST_IN_A_TICK
    if rate > 0 then
      due = min(due, floor((wall() - began) * 1e-9 * rate) - sent)
    end
    due = min(due, n - sent)
    if run then
      make(sent, due)
    end
    if not idle and due > 0 then
      local from = wall()
      local taken = burst(log, due)
      spent = spent + (wall() - from)
      bursts = bursts + 1
      tend()
      if taken < due then
        refusals = refusals + 1
        due = taken
      end
    end
    sent = sent + due
    sleep(TICK)
  end
  return spent - bursts * clock.cost(), refusals
end


local began, thread_began, process_began = wall(), thread(), process()
local spent, refusals = send()
local logged = wall()
producers.drain()
ngx.say("call=", spent / n)
ngx.say("thread=", (thread() - thread_began) / n)
ngx.say("process=", (process() - process_began) / n)
ngx.say("logged_rate=", n / (logged - began) * 1e9)
ngx.say("rate=", n / (wall() - began) * 1e9)
ngx.say("refusals=", refusals)
