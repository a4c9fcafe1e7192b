//! Statistics, by their place in [`stats::ROWS`]. A plain C function, since the last ones are read from a `__gc`
//! at worker exit.

use super::Handle;
use crate::stats;

/// A value of [`stats::ROWS`]. Asking for number 0 brings those up to date that nginx's thread owns.
///
/// # Returns
/// The value; 0 for an index that does not exist.
///
/// # Safety
/// `handle` is the one of [`Api`](super::Api). Called on nginx's thread.
pub unsafe extern "C" fn lkfk_stat(handle: *const Handle, index: u32) -> u64 {
    let mut value = 0;
    super::guard(|| {
        // SAFETY: the caller's promise, see above.
        let handle = unsafe { &*handle };
        if index == 0 {
            handle.refresh_stats();
        }
        value = stats::ROWS.get(index as usize).map_or(0, |row| row.value(&handle.shared.stats));
        0
    });
    value
}
