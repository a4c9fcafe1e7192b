//! Linking of the Lua module.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // LuaJIT unloads modules when a VM closes, while the driver thread may still run.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
