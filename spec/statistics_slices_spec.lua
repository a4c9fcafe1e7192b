-- Statistics of many partitions: what they take of the event loop at a time.

local harness = require "spec.harness"

local TOPICS = 1500
-- Changes of the dict that may be made before requests have their turn.
local MOST = 250


describe("statistics of " .. TOPICS .. " partitions", function()
    local nginx

    -- Counts the dict's changes, and puts the number back to 0 in each turn of the event loop.
    local WATCH = [[
        local topics = ...
        local methods = getmetatable(ngx.shared.kfk).__index
        local incr, turn, longest, all = methods.incr, 0, 0, 0
        methods.incr = function(...)
            turn, all = turn + 1, all + 1
            longest = math.max(longest, turn)
            return incr(...)
        end
        for i = 1, topics do assert(kfk.log("slices-" .. i, nil, "payload")) end
        local deadline = ngx.now() + 8
        repeat
            turn = 0
            ngx.sleep(0.001)
        until all >= topics or ngx.now() >= deadline
        methods.incr = incr
        return { longest = longest, all = all }
    ]]

    setup(function()
        nginx = harness.nginx {
            http = "lua_shared_dict kfk 16m;",
            producer = {
                metadata_broker_list = { "127.0.0.1:1" }, message_timeout_ms = 100000,
                exit_timeout_ms = 50,
            },
        }
    end)

    local function waiting()
        return nginx:run([[
            local sum = 0
            for _, key in ipairs(ngx.shared.kfk:get_keys(0)) do
                if key:find("^slices%-") then sum = sum + ngx.shared.kfk:get(key) end
            end
            return { sum, ngx.shared.kfk:get("msg_cnt") }
        ]])
    end

    it("FLT-15: are brought up to date in slices, with requests in between", function()
        local seen = nginx:run(WATCH, TOPICS)
        assert.is_true(seen.all >= TOPICS, seen.all .. " changes")
        assert.is_true(seen.longest <= MOST, seen.longest .. " changes at once")
        harness.eventually(5, function()
            assert.same({ TOPICS, TOPICS }, waiting())
        end)
    end)

    it("FLT-15: are taken out by the successor of a killed worker, all of them", function()
        nginx:kill_worker()
        harness.eventually(10, function()
            assert.same({ TOPICS, TOPICS }, waiting())
        end)
    end)

    it("FLT-15: are published whole when the worker ends", function()
        nginx:signal("TERM")
        nginx:await_end(10)
        local line = nginx:error_log():match("%[statistics%] ([^\n]*)") .. ","
        local zeros = 0
        for value in line:gmatch("slices%-%d+%-1:([^,]+),") do
            assert.equal("0", value)
            zeros = zeros + 1
        end
        assert.equal(TOPICS, zeros)
    end)
end)
