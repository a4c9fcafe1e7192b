rockspec_format = "3.0"
package = "lkfk"
version = "0.1.0-1"
-- `luarocks make` builds the checkout that this file is in, and looks at no source. `make rock` packs what is committed:
-- it makes that archive and puts its whole path here, since luarocks takes no other.
source = {
    url = "file://lkfk-0.1.0.tar.gz",
    dir = "lkfk-0.1.0",
}
description = {
    summary = "Messages from nginx to Kafka: a non-blocking producer for OpenResty and ngx_lua",
    detailed = [[
lkfk is one shared object for LuaJIT in nginx's workers. log() copies a message into a queue and
returns, in every phase: no waiting, no yielding, no error thrown. One background thread per worker
batches what was logged, speaks to Kafka 0.8.2 to 4.4, and repeats what failed; with acks = "all"
nothing is duplicated. What cannot be delivered goes to backup files, and from there to Kafka once
it can. A killed worker's messages are sent by the next one. It replaces the module ngx_lua_lkfk
call for call.

To build it takes Linux and Rust 1.88 or later, by rustup.]],
    labels = { "nginx", "openresty", "kafka", "logging" },
    license = "Apache-2.0",
}
supported_platforms = { "linux" }
dependencies = { "lua == 5.1" }
build = {
    type = "make",
    install_variables = { INST_LIBDIR = "$(LIBDIR)" },
}
