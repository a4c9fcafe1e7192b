-- The worker of outage.sh: logs each request with a number of its own, and keeps the ledger of what
-- log() took.
--
-- Invariant: the numbers that were taken are 1, 2, 3 and so on: one that was refused is used for
-- the next request.

local kfk = require "lkfk.kfk"

local assert, pairs = assert, pairs
local getenv = os.getenv
local log = kfk.log
local ngx = ngx

local SIZE = 400
local KEYS = 64

local padding = ("x"):rep(SIZE)
local run
local accepted, refused = 0, 0
local why


local _M = {}


function _M.start(brokers, id)
  run = id
  assert(kfk.init {
    metadata_broker_list = brokers,
    queue_path = getenv "LKFK_SHM",
    backpath = getenv "LKFK_STAGE" .. "/nginx/bench/backup",
    -- What went to the backup is counted there.
    replay = false,
  })
end


function _M.log()
  local number = accepted + 1
  local text = run .. " " .. number .. " "
  local ok, err = log("outage", "key-" .. number % KEYS, text .. padding:sub(#text + 1))
  if ok then
    accepted = number
  else
    refused = refused + 1
    why = err
  end
end


-- The ledger and the statistics, as NAME=VALUE lines.
function _M.ledger()
  ngx.say("accepted=", accepted)
  ngx.say("refused=", refused)
  ngx.say("why=", why or "")
  for name, value in pairs(kfk.stats()) do
    ngx.say(name, "=", value)
  end
end


-- Answers when all that was accepted is in Kafka or in the backup.
function _M.flush()
  assert(kfk.flush(60))
  ngx.say("flushed")
end


return _M
