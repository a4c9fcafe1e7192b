//! The producers of one nginx worker, by name. They belong to the process: they outlive every Lua VM, and end with the
//! process or when they are closed, never because something was collected.
//!
//! - `registry`: which producers there are; `start`: how one is started.
//! - `producer`: one of them.
//! - [`handle`]: its writing half, which `log()` goes through.
//! - `shutdown`: what ends them.
//!
//! All of it runs on nginx's thread. A producer is named by its [`Handle`], whose address stays valid for as long as
//! the process lives, so that Lua may keep it.

mod error_log;
pub mod handle;
mod producer;
mod registry;
mod shutdown;
mod start;

pub use handle::{Entry, Handle, Refusal};
pub use producer::Producer;
pub use registry::{InitError, find, init_error, set_init_error, with};
pub use shutdown::{close, end_with_process, shuts_down};
pub use start::{init, start};

pub(crate) use error_log::write_line;
