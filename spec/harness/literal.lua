-- literal(value) -> Lua source text of a value without functions or cycles: what travels into the
-- nginx under test, and back.

local pairs, tostring, type = pairs, tostring, type
local concat = table.concat


local function literal(value)
    if type(value) == "string" then
        return ("%q"):format(value)
    end
    if type(value) == "number" then
        return ("%.17g"):format(value)
    end
    if type(value) ~= "table" then
        return tostring(value)
    end
    local items = {}
    for key, item in pairs(value) do
        items[#items + 1] = ("[%s]=%s"):format(literal(key), literal(item))
    end
    return "{" .. concat(items, ",") .. "}"
end


return literal
