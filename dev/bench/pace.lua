-- A location that logs `n` messages of 400 bytes with `keys` different keys to `topic`: `rate` a
-- second in ticks of a millisecond, or, with rate=0, as many as the queue takes. Ends when all is
-- acknowledged, and answers with KEY=VALUE lines: nanoseconds a message, messages a second.
--
-- With bursts=1 the messages of a tick all have one key, and those of the next tick the next key.
-- With lines=1 they are lines as an access log has them instead, all different, of some 300 bytes.
--
-- With idle=1 it does the same and logs nothing: the control run. With run=ID all payloads differ:
-- they say run, key and how many messages of this key came before.
--
-- Invariant: what `call` counts is CPU time inside of log(), and the clock's own, which is what the
-- control run counts. Keys and payloads of a tick are made before the clock is looked at.

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
local topic, run, idle, bursts_of_a_key = args.topic, args.run, args.idle == "1", args.bursts == "1"
local as_lines = args.lines == "1"

local key_names = {}
for i = 0, key_count - 1 do
  key_names[i] = ("key-%d"):format(i)
end
local padding = ("x"):rep(SIZE)
local rest_after = {}
for i = 0, SIZE do
  rest_after[i] = padding:sub(i + 1)
end


-- The messages of a tick. Without a run they are the same in every tick.
local keys, payloads = {}, {}
for i = 1, MOST_IN_A_TICK do
  keys[i], payloads[i] = key_names[i % key_count], padding
end


-- A line of JSON about a made-up request.
local random = math.random


local LINE = '{"time":"2026-01-01T%02d:%02d:%02d+00:00","remote_addr":"10.%d.%d.%d",'
  .. '"request_id":"%08x%08x","method":"%s","uri":"/api/v2/items/%d","status":%d,'
  .. '"body_bytes_sent":%d,"request_time":%.3f,"upstream":"10.1.%d.%d:8080",'
  .. '"user_agent":"Mozilla/5.0 (X11; Linux x86_64) Firefox/%d.0"}'


local function access_line()
  return LINE:format(random(0, 23), random(0, 59), random(0, 59), random(0, 255), random(0, 255),
                     random(0, 255), random(0, 2 ^ 31 - 1), random(0, 2 ^ 31 - 1),
                     random(10) > 8 and "POST" or "GET", random(1, 50000),
                     random(20) > 19 and 404 or 200, random(200, 20000), random() ^ 4,
                     random(0, 3), random(1, 250), random(100, 140))
end


if as_lines then
  for i = 1, MOST_IN_A_TICK do
    payloads[i] = access_line()
  end
end


-- For each key a tick of nothing else.
local ticks_of = {}
if bursts_of_a_key then
  for key = 0, key_count - 1 do
    ticks_of[key] = {}
    for i = 1, MOST_IN_A_TICK do
      ticks_of[key][i] = key_names[key]
    end
  end
end


local function make(first, count)
  for i = 1, count do
    local number = first + i - 1
    local key = number % key_count
    local text = run .. " " .. key .. " " .. (number - key) / key_count .. " "
    keys[i], payloads[i] = key_names[key], text .. rest_after[#text]
  end
end


-- Logs those behind `at`; returns how many were taken before the first refusal.
local function burst(log, at, count)
  for i = 1, count do
    if not log(topic, keys[at + i], payloads[at + i]) then
      return i - 1
    end
  end
  return count
end


-- Nanoseconds a message in each burst.
local bursts = {}


-- Returns the nanoseconds that `call` counts.
local function send()
  local log, tend = producers.log, producers.tend
  local sent, spent, ticks = 0, 0, 0
  local began = wall()
  while sent < n do
    local due = MOST_IN_A_TICK
    if rate > 0 then
      due = min(due, floor((wall() - began) * 1e-9 * rate) - sent)
    end
    due = min(due, n - sent)
    if run then
      make(sent, due)
    elseif bursts_of_a_key then
      keys, ticks = ticks_of[ticks % key_count], ticks + 1
    end
    local at = as_lines and sent % (MOST_IN_A_TICK - 200) or 0
    due = min(due, MOST_IN_A_TICK - at)
    local from = thread()
    local taken = idle and due or burst(log, at, due)
    local took = thread() - from
    spent = spent + took
    if not idle then
      tend()
    end
    if taken > 0 then
      bursts[#bursts + 1] = took / taken
    end
    sent = sent + taken
    sleep(TICK)
  end
  return spent
end


local function median(values)
  table.sort(values)
  return values[math.ceil(#values / 2)] or 0
end


local began, thread_began, process_began = wall(), thread(), process()
local spent = send()
producers.drain()
local lasted, thread_spent, process_spent = wall() - began, thread() - thread_began,
                                            process() - process_began
ngx.say("call=", spent / n)
ngx.say("call_median=", median(bursts))
ngx.say("thread=", thread_spent / n)
ngx.say("process=", process_spent / n)
ngx.say("rate=", n / lasted * 1e9)
