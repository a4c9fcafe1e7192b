-- Numbers as text that keeps all of their digits, where Lua's tostring() keeps 14.

local format = string.format
local tonumber = tonumber

-- From here on integers share a number with their neighbours.
local LARGEST = 2 ^ 53
local INFINITY = 1 / 0


local _M = {}


-- text_of(number) -> text | nil, err: an integer as such, any other number in the shortest form
-- that reads back as the same. What has no digits, or has lost some already, is refused.
function _M.text_of(number)
    if number ~= number or number == INFINITY or number == -INFINITY then
        return nil, "must not be NaN or infinite"
    end
    if number > LARGEST or number < -LARGEST then
        return nil, "integers beyond 2^53 have lost digits already: pass them as strings"
    end
    if number % 1 == 0 then
        return (format("%d", number))
    end
    local text = format("%.15g", number)
    if tonumber(text) ~= number then
        text = format("%.16g", number)
    end
    return tonumber(text) == number and text or format("%.17g", number)
end


return _M
