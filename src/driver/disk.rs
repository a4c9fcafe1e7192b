//! The disk thread: what may have to wait for the backup's disk, which may be slow, or hang. The driver sends
//! a tool there with an errand, goes on, and takes tool and result back when the errand is done. Queue files that a
//! worker left below backpath are no tools: they are mapped, and used by the driver.
//!
//! # Invariants
//! - Errands are done one at a time, in the order in which they were given.
//! - A tool is either here or on its one errand.
//! - A panic in an errand becomes the driver's, when it takes the result.

#![allow(clippy::disallowed_methods, reason = "this is the thread that may wait")]

use crate::producer::Time;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

type Errand = Box<dyn FnOnce() + Send>;

/// The thread. When this is dropped it ends after what it is at; nobody waits for it.
pub(super) enum Disk {
    Thread(Sender<Errand>),
    /// The system had none for us: who gives an errand does it, too.
    Caller(Arc<dyn Fn() + Send + Sync>),
}

impl Disk {
    /// Starts the thread, which inherits the signal mask. `done` is called there after each errand.
    pub fn start(done: impl Fn() + Send + Sync + 'static) -> Disk {
        let (give, errands) = mpsc::channel::<Errand>();
        let done: Arc<dyn Fn() + Send + Sync> = Arc::new(done);
        let also_done = done.clone();
        let live = move || {
            for errand in errands {
                errand();
                done();
            }
        };
        match std::thread::Builder::new().name("lkfk-disk".into()).spawn(live) {
            Ok(_) => Disk::Thread(give),
            Err(_) => Disk::Caller(also_done),
        }
    }

    fn give(&self, errand: Errand) {
        match self {
            Disk::Thread(give) => give.send(errand).expect("the thread lives as long as this"),
            Disk::Caller(done) => {
                errand();
                done();
            }
        }
    }
}

/// What the disk thread works with, while it does.
pub(super) struct Tool<T, R> {
    here: Option<T>,
    away: Option<(Time, Receiver<Done<T, R>>)>,
}

type Done<T, R> = (T, std::thread::Result<R>);

impl<T: Send + 'static, R: Send + 'static> Tool<T, R> {
    pub fn new(tool: T) -> Tool<T, R> {
        Tool { here: Some(tool), away: None }
    }

    /// The tool, unless it is on an errand.
    pub fn here(&mut self) -> Option<&mut T> {
        self.here.as_mut()
    }

    pub fn is_here(&self) -> bool {
        self.here.is_some()
    }

    /// Since when it is on its errand.
    pub fn away_since(&self) -> Option<Time> {
        self.away.as_ref().map(|(since, _)| *since)
    }

    /// Sends the tool, which must be here, on an errand.
    pub fn send(
        &mut self,
        now: Time,
        disk: &Disk,
        errand: impl FnOnce(&mut T) -> R + Send + 'static,
    ) {
        let mut tool = self.here.take().expect("a tool is on one errand at a time");
        let (done, result) = mpsc::sync_channel(1);
        self.away = Some((now, result));
        disk.give(Box::new(move || {
            // The tools are built to be used again after a fault.
            let result = catch_unwind(AssertUnwindSafe(|| errand(&mut tool)));
            // Nobody may want it any more.
            let _ = done.send((tool, result));
        }));
    }

    /// What came of the errand, if it is done by now.
    pub fn result(&mut self) -> Option<R> {
        let done = self.away.as_ref()?.1.try_recv().ok()?;
        Some(self.take_back(done))
    }

    /// What came of the errand, if it is on one. Waits for the disk.
    pub fn wait(&mut self) -> Option<R> {
        let done = self.away.as_ref()?.1.recv().expect("an errand is done to its end");
        Some(self.take_back(done))
    }

    fn take_back(&mut self, (tool, result): Done<T, R>) -> R {
        self.here = Some(tool);
        self.away = None;
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn fetch(disk: &Disk, tool: &mut Tool<Vec<u8>, usize>, byte: u8) {
        tool.send(Time(7), disk, move |bytes| {
            bytes.push(byte);
            bytes.len()
        });
    }

    #[test]
    fn a_tool_comes_back_with_its_result() {
        let (said, heard) = mpsc::channel();
        let disk = Disk::start(move || said.send(()).unwrap());
        let (mut tool, mut other) = (Tool::new(vec![1]), Tool::new(vec![]));
        fetch(&disk, &mut tool, 2);
        fetch(&disk, &mut other, 3);
        assert!(!tool.is_here() && tool.here().is_none());
        assert_eq!(tool.away_since(), Some(Time(7)));
        for _ in 0..2 {
            heard.recv().unwrap();
        }
        assert_eq!(
            (tool.result(), tool.result(), other.wait(), other.wait()),
            (Some(2), None, Some(1), None)
        );
        assert_eq!(tool.here(), Some(&mut vec![1, 2]));
    }

    #[test]
    fn nobody_waits_for_an_errand_that_hangs() {
        let hang = Arc::new(Barrier::new(2));
        let disk = Disk::start(|| {});
        let mut tool = Tool::new(());
        let there = hang.clone();
        tool.send(Time(0), &disk, move |()| {
            there.wait();
        });
        assert_eq!(tool.result(), None);
        drop(disk);
        hang.wait();
        assert_eq!(tool.wait(), Some(()));
    }

    #[test]
    fn a_panic_is_the_takers_and_the_tool_is_used_again() {
        for disk in [Disk::start(|| {}), Disk::Caller(Arc::new(|| {}))] {
            let mut tool = Tool::new(vec![]);
            tool.send(Time(0), &disk, |_| panic!("told to"));
            let taken = catch_unwind(AssertUnwindSafe(|| tool.wait()));
            assert_eq!(taken.unwrap_err().downcast_ref(), Some(&"told to"));
            fetch(&disk, &mut tool, 1);
            assert_eq!(tool.wait(), Some(1));
        }
    }
}
