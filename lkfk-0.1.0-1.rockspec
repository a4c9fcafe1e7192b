rockspec_format = "3.0"
package = "lkfk"
version = "0.1.0-1"
source = { url = "." }
description = {
    summary = "Messages from nginx to Kafka: a non-blocking producer for OpenResty and ngx_lua",
    license = "Apache-2.0",
}
supported_platforms = { "linux" }
dependencies = { "lua == 5.1" }
build = {
    type = "make",
    install_variables = { INST_LIBDIR = "$(LIBDIR)" },
}
