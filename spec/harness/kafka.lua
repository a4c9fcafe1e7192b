-- Kafka brokers, each a cluster of one node, run by dev/kafka.sh.

local process = require "spec.harness.process"

local assert, ipairs, pairs, rawget = assert, ipairs, pairs, rawget
local setmetatable = setmetatable
local tonumber, tostring, unpack = tonumber, tostring, unpack
local getenv = os.getenv
local must, finally, env_file = process.must, process.finally, process.env_file

local STAGE = getenv("LKFK_STAGE")
local TOOL = getenv("LKFK_ROOT") .. "/dev/kafka.sh"

local Broker = {}


local function call(self, verb, ...)
    return must { TOOL, verb, self.name, ... }
end


-- A broker starts when something asks for its address.
local function field(self, key)
    if key == "bootstrap" then
        self:start()
        return rawget(self, "bootstrap")
    end
    return Broker[key]
end


local function broker(name, lines)
    return setmetatable({ name = name, lines = lines, state = "down" }, { __index = field })
end


function Broker:start()
    call(self, "start", unpack(self.lines))
    self.lines = {}
    local env = env_file(("%s/kafka/%s/env"):format(STAGE, self.name))
    self.bootstrap, self.pid, self.state = env.BOOTSTRAP, tonumber(env.PID), "up"
    self.sasl = env.SASL
    -- Addresses of listeners, by name.
    self.listeners = env
end


-- certificates() -> the directory that dev/kafka/certificates.sh filled, once.
local made
function Broker:certificates() -- luacheck: ignore 212
    if made == nil then
        made = STAGE .. "/certificates"
        must { "mkdir", "-p", made }
        must { (TOOL:gsub("kafka%.sh$", "kafka/certificates.sh")), made }
    end
    return made
end


-- Whatever a scope did to a broker, it runs again after it.
local function restore_later(self)
    finally(function()
        if self.state == "paused" then
            self:resume()
        elseif self.state == "down" then
            self:start()
        end
    end)
end


function Broker:stop()
    assert(self.bootstrap)
    restore_later(self)
    call(self, "stop")
    self.state = "down"
end


function Broker:kill()
    assert(self.bootstrap)
    restore_later(self)
    call(self, "kill")
    self.state = "down"
end


function Broker:pause()
    assert(self.bootstrap)
    restore_later(self)
    call(self, "pause")
    self.state = "paused"
end


function Broker:resume()
    call(self, "resume")
    self.state = "up"
end


-- topic(name, partitions, { ["config.key"] = value }) -> name, when each partition has a leader.
function Broker:topic(name, partitions, config)
    assert(self.bootstrap)
    local settings = {}
    for key, value in pairs(config or {}) do
        settings[#settings + 1] = key .. "=" .. tostring(value)
    end
    call(self, "topic", name, partitions or 1, unpack(settings))
    return name
end


function Broker:delete_topic(topic)
    assert(self.bootstrap)
    call(self, "delete", topic)
end


-- grow_topic(topic, partitions): it has so many from now on.
function Broker:grow_topic(topic, partitions)
    assert(self.bootstrap)
    call(self, "grow", topic, partitions)
end


-- consume(topic, format) -> all records, as kcat prints them in that format.
function Broker:consume(topic, format)
    assert(self.bootstrap)
    return call(self, "consume", topic, format)
end


-- records(topic) -> list of { partition, offset, timestamp (ms), key, payload }, in order within
-- each partition. A null key or payload is nil.
function Broker:records(topic)
    local text = self:consume(topic, "%p %o %T %K %S:%k%s")
    local list, at = {}, 1
    local function bytes(size)
        if size < 0 then
            return nil
        end
        at = at + size
        return text:sub(at - size, at - 1)
    end
    while at <= #text do
        local head, partition, offset, timestamp, key_size, size =
            text:match("^((%d+) (%d+) (%-?%d+) (%-?%d+) (%-?%d+):)", at)
        assert(head, "kcat's answer makes no sense")
        at = at + #head
        list[#list + 1] = {
            partition = tonumber(partition),
            offset = tonumber(offset),
            timestamp = tonumber(timestamp),
            key = bytes(tonumber(key_size)),
            payload = bytes(tonumber(size)),
        }
    end
    return list
end


-- codecs(topic) -> the codecs of what is stored, in order, as one text.
function Broker:codecs(topic)
    assert(self.bootstrap)
    local names = {}
    for name in call(self, "codecs", topic):gmatch("(%a%w*) %d+ %d+\n") do
        names[#names + 1] = name
    end
    return table.concat(names, " ")
end


-- payloads(topic) -> those of records(topic).
function Broker:payloads(topic)
    local list = {}
    for i, record in ipairs(self:records(topic)) do
        list[i] = record.payload
    end
    return list
end


-- tool(class, argument, ...): one of Kafka's own.
function Broker:tool(...)
    assert(self.bootstrap)
    return call(self, "tool", ...)
end


-- new(name, { "key=value", ... }) -> one more broker, a cluster of its own, with those properties;
-- it starts when its address is asked for, and is gone with the test.
function Broker:new(name, lines) -- luacheck: ignore 212
    local other = broker(name, lines or {})
    finally(function()
        if rawget(other, "bootstrap") then
            call(other, "kill")
            other.state = "gone"
            must { "rm", "-rf", STAGE .. "/kafka/" .. name }
        end
    end)
    return other
end


-- The common broker of all specs.
return broker("main", {})
