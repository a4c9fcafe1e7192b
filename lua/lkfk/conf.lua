-- The configuration that init() without arguments uses. Copy this file to a directory on
-- lua_package_path, as lkfk/conf.lua, and add keys; docs/configuration.md lists them. Keys that are
-- left out have their defaults.

return {
    default_conf = {
        -- metadata_broker_list = { "127.0.0.1:9092" },
    },
}
