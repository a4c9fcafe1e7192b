//! nginx's cycle: what a process of nginx is configured with at this moment.

use super::variable;
use std::ffi::c_void;

/// The first fields of `ngx_cycle_t`, which are these in every release.
#[repr(C)]
pub(super) struct Cycle {
    /// `conf_ctx`.
    pub configuration: *const c_void,
    pub pool: *const c_void,
    pub log: *const Log,
}

/// `ngx_log_t`. With several logs this is the most talkative one; while nginx exits, the one that stderr is.
#[repr(C)]
pub(super) struct Log {
    pub level: usize,
}

/// The current cycle; `None` where there is no nginx. It is replaced on nginx's thread alone.
pub(super) fn current() -> Option<*const Cycle> {
    // SAFETY: nginx's `ngx_cycle` is a pointer to its current cycle.
    unsafe { variable::<*const Cycle>(c"ngx_cycle") }
}

/// True once nginx has replaced its cycle by the empty one under which it destroys its memory and calls `exit()`. To be
/// called on nginx's thread.
pub fn is_last() -> bool {
    current().is_some_and(is_empty)
}

/// Whether a cycle has no configuration.
fn is_empty(cycle: *const Cycle) -> bool {
    // SAFETY: the current cycle is never freed while it is the current one.
    unsafe { cycle.as_ref() }.is_some_and(|cycle| cycle.configuration.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::null;

    #[test]
    fn only_a_cycle_without_configuration_is_the_last() {
        let configuration = 0u64;
        let configuration = (&raw const configuration).cast::<c_void>();
        let serving = Cycle { configuration, pool: null(), log: null() };
        let last = Cycle { configuration: null(), pool: configuration, log: null() };
        assert!(!is_empty(&serving));
        assert!(is_empty(&last));
        assert!(!is_empty(null()));
        assert!(!is_last(), "there is no nginx");
    }
}
