-- What specs are made of: programs, an nginx under test, Kafka brokers.
--
--   local harness = require "spec.harness"
--   local topic = harness.kafka:topic("log", 2)
--   local nginx = harness.nginx {
--     producer = { topics = { topic } },
--     locations = { ["/ping"] = "ngx.print('pong')" },
--   }
--   assert.equal(200, (nginx:get("/ping")))
--   assert.is_true(nginx:run("return kfk.log(...)", topic, "key", "payload"))
--   harness.eventually(5, function() assert.equal(1, #harness.kafka:records(topic)) end)
--
-- Invariants:
-- - Nothing blocks the runner: waiting is ngx.sleep, programs run beside it, HTTP is a cosocket.
-- - What a test, a describe block or a file starts ends with it, at the latest. The common broker
--   is the exception: it stays, and runs again after the scope that stopped or paused it.
-- - The nginx under test is a process of its own, never the runner.

local process = require "spec.harness.process"


-- count_to(n) -> { 1, 2, ..., n }.
local function count_to(n)
    local list = {}
    for i = 1, n do
        list[i] = i
    end
    return list
end


return {
    -- For specs.
    alive = process.alive,
    count_to = count_to,
    eventually = process.eventually,
    kafka = require "spec.harness.kafka",
    load = require "spec.harness.load",
    nginx = require("spec.harness.nginx").start,
    run = process.run,
    start = process.start,
    -- For the runner.
    enter = process.enter,
    evidence = process.evidence,
    leave = process.leave,
}
