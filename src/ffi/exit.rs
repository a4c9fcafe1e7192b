//! The end. It may come from a `__gc` while nginx closes the Lua VM, when the module's own Lua functions may be gone:
//! plain C functions can still be called.

use super::guard;
use crate::worker::{self, Handle};

/// Ends one producer, and no other, see [`worker::close`]. Each later call that names it says that it is closed.
///
/// # Arguments
/// `handle` names the producer. One that is closed already stays as it is.
///
/// # Returns
/// Nothing, after `exit_timeout_ms` and what writing the rest to disk takes.
///
/// # Errors
/// What could not be saved stays in the queue file, and the log says so.
///
/// # Panics
/// Never: a panic inside is caught.
///
/// # Safety
/// `handle` comes from `lkfk.core`. Called on nginx's thread.
pub unsafe extern "C" fn lkfk_close(handle: *const Handle) {
    guard(|| {
        worker::close(handle);
        0
    });
}

/// Says that the Lua VM is being closed that served a producer, see [`worker::end_with_process`].
///
/// # Arguments
/// `handle` names the producer.
///
/// # Returns
/// 1 when nginx ends the process: all producers have been ended by then, within the longest of their limits. 0 when the
/// process goes on, and the producers with it.
///
/// # Errors
/// What could not be saved stays in the queue files, and the log says so.
///
/// # Panics
/// Never: a panic inside becomes 0.
///
/// # Safety
/// `handle` comes from `lkfk.core`. Called on nginx's thread.
pub unsafe extern "C" fn lkfk_leave(handle: *const Handle) -> i32 {
    guard(|| worker::end_with_process(handle).into()).max(0)
}
