//! The processors that nginx may run on.
//!
//! `worker_cpu_affinity` pins each worker, and a thread that it starts, to some of them, so that lkfk's threads would
//! share the processor of nginx's event loop. They run wherever nginx was allowed to run when it was started
//! (`taskset`, systemd's `CPUAffinity`), which is what its master still does, since the directive is for workers.

use super::variable;
use rustix::process::{Pid, getppid};
use rustix::thread::{sched_getaffinity, sched_setaffinity};

/// `NGX_PROCESS_WORKER` in `ngx_process_cycle.h`: a process that has a master.
const WORKER: usize = 3;

/// Lets the calling thread, and those that it starts, run where nginx's master may. Where that cannot be known or is
/// forbidden it stays on the worker's processors.
pub fn run_where_the_master_may() {
    if let Some(master) = master()
        && let Ok(processors) = sched_getaffinity(Some(master))
    {
        let _ = sched_setaffinity(None, &processors);
    }
}

/// The master of this worker. `None` in a process without one, whose parent is a stranger with processors of its own,
/// and in a worker whose master is gone.
fn master() -> Option<Pid> {
    // SAFETY: an `ngx_uint_t`, which has the size of a pointer, and a `pid_t`.
    let (process, forked_by) =
        unsafe { (variable::<usize>(c"ngx_process"), variable::<libc::pid_t>(c"ngx_parent")) };
    master_of(process, forked_by, getppid())
}

/// `forked_by` is who nginx says it was forked by, which old releases do not say.
fn master_of(
    process: Option<usize>,
    forked_by: Option<libc::pid_t>,
    parent: Option<Pid>,
) -> Option<Pid> {
    let is_the_same = |pid: &Pid| forked_by.is_none_or(|by| by == pid.as_raw_nonzero().get());
    parent.filter(is_the_same).filter(|_| process == Some(WORKER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::CpuSet;

    const PARENT: Option<Pid> = Pid::from_raw(70);

    #[test]
    fn flt_16_only_a_worker_whose_master_lives_has_one() {
        assert_eq!(master_of(Some(WORKER), Some(70), PARENT), PARENT);
        assert_eq!(master_of(Some(WORKER), None, PARENT), PARENT);
        assert_eq!(master_of(Some(WORKER), Some(70), Pid::from_raw(1)), None);
        assert_eq!(master_of(Some(WORKER), Some(70), None), None);
        for single_or_master in [0, 1] {
            assert_eq!(master_of(Some(single_or_master), Some(70), PARENT), None);
        }
        assert_eq!(master(), None, "there is no nginx");
    }

    #[test]
    fn flt_16_without_a_master_a_thread_stays_where_it_is() {
        let on_one_processor = || {
            let mine = sched_getaffinity(None).unwrap();
            let first = (0..CpuSet::MAX_CPU).find(|cpu| mine.is_set(*cpu)).unwrap();
            let mut one = CpuSet::new();
            one.set(first);
            sched_setaffinity(None, &one).unwrap();
            run_where_the_master_may();
            assert_eq!(sched_getaffinity(None).unwrap(), one);
        };
        std::thread::scope(|scope| scope.spawn(on_one_processor).join().unwrap());
    }
}
