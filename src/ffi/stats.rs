//! Statistics, by their place among [`statistics::names`](crate::driver::statistics::names). A plain C function, since the
//! last ones are read from a `__gc` at worker exit.

use super::guard;
use crate::worker::Handle;

/// A value of [`statistics::names`](crate::driver::statistics::names). Asking for number 0 brings those up to date that
/// nginx's thread owns.
///
/// # Arguments
/// `handle` names the producer; `index` counts from 0.
///
/// # Returns
/// The value; 0 for an index that does not exist, and when the producer is closed.
///
/// # Errors
/// None.
///
/// # Panics
/// Never: a panic inside becomes 0.
///
/// # Safety
/// `handle` comes from `lkfk.core`. Called on nginx's thread.
pub unsafe extern "C" fn lkfk_stat(handle: *const Handle, index: u32) -> u64 {
    let mut value = 0;
    guard(|| {
        // SAFETY: the caller's promise, see above.
        let handle = unsafe { &*handle };
        if index == 0 {
            handle.refresh_stats();
        }
        let found = handle.shared().and_then(|shared| shared.statistic(index as usize));
        value = found.unwrap_or(0);
        0
    });
    value
}
