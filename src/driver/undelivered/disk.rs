//! Disk threads: what may have to wait for a disk, which may be slow, or hang. A producer offloads what works with the
//! disk together with a job for it, goes on, and takes both back when the job is done. Queue files that a worker left
//! below backpath are not offloaded: they are mapped, and used by the driver.
//!
//! There is one thread for each file system that backups lie on, so that a disk that hangs holds up its own alone.
//!
//! # Invariants
//! - The jobs of a thread are done one at a time, in the order in which they were given.
//! - What is offloaded is either here or with its one job.
//! - A panic in a job becomes the driver's, when it takes the result.

use crate::producer::Time;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Weak};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A disk thread. When this is dropped it ends after what it is at; nobody waits for it.
pub(in crate::driver) enum DiskThread {
    Running(Sender<Job>),
    /// The system had none for us: who gives a job does it, too.
    Caller,
}

impl DiskThread {
    /// Starts a thread, which inherits the signal mask.
    #[expect(clippy::disallowed_methods, reason = "a disk thread is started here, by the driver's")]
    pub fn start() -> DiskThread {
        let (give, jobs) = mpsc::channel::<Job>();
        let live = move || jobs.into_iter().for_each(|job| job());
        match std::thread::Builder::new().name("lkfk-disk".into()).spawn(live) {
            Ok(_) => DiskThread::Running(give),
            Err(_) => DiskThread::Caller,
        }
    }

    fn give(&self, job: Job) {
        match self {
            DiskThread::Running(give) => give.send(job).expect("the thread lives as long as this"),
            DiskThread::Caller => job(),
        }
    }
}

/// The disk threads of the process, by file system.
#[derive(Default)]
pub(in crate::driver) struct DiskThreads {
    by_device: HashMap<u64, Weak<DiskThread>>,
}

impl DiskThreads {
    /// The thread of the file system that `path` lies on.
    pub fn of(&mut self, path: &Path) -> Arc<DiskThread> {
        // What cannot be looked at shares a thread with others of that kind.
        let device = std::fs::metadata(path).map_or(u64::MAX, |found| found.dev());
        self.by_device.retain(|_, thread| thread.strong_count() > 0);
        if let Some(thread) = self.by_device.get(&device).and_then(Weak::upgrade) {
            return thread;
        }
        let thread = Arc::new(DiskThread::start());
        self.by_device.insert(device, Arc::downgrade(&thread));
        thread
    }
}

/// A producer's way to its disk thread.
#[derive(Clone)]
pub(in crate::driver) struct Disk {
    thread: Arc<DiskThread>,
    /// Called on that thread after each job of the producer's.
    done: Arc<dyn Fn() + Send + Sync>,
}

impl Disk {
    pub fn new(thread: Arc<DiskThread>, done: impl Fn() + Send + Sync + 'static) -> Disk {
        Disk { thread, done: Arc::new(done) }
    }
}

/// What a disk thread works with, while it does.
pub(in crate::driver) struct Offloaded<T, R> {
    here: Option<T>,
    away: Option<(Time, oneshot::Receiver<Done<T, R>>)>,
}

type Done<T, R> = (T, std::thread::Result<R>);

impl<T: Send + 'static, R: Send + 'static> Offloaded<T, R> {
    pub fn new(here: T) -> Offloaded<T, R> {
        Offloaded { here: Some(here), away: None }
    }

    /// What is offloaded, unless it is away with a job.
    pub fn here(&mut self) -> Option<&mut T> {
        self.here.as_mut()
    }

    pub fn is_here(&self) -> bool {
        self.here.is_some()
    }

    /// Since when it is away.
    pub fn away_since(&self) -> Option<Time> {
        self.away.as_ref().map(|(since, _)| *since)
    }

    /// Sends it, which must be here, away with a job.
    pub fn send(&mut self, now: Time, disk: &Disk, job: impl FnOnce(&mut T) -> R + Send + 'static) {
        let mut taken = self.here.take().expect("one job at a time");
        let (give, result) = oneshot::channel();
        self.away = Some((now, result));
        let done = disk.done.clone();
        disk.thread.give(Box::new(move || {
            // All that is offloaded is built to be used again after a fault.
            let result = catch_unwind(AssertUnwindSafe(|| job(&mut taken)));
            // Nobody may want it any more.
            let _ = give.send((taken, result));
            done();
        }));
    }

    /// What came of the job, if it is done by now.
    pub fn result(&mut self) -> Option<R> {
        let done = self.away.as_mut()?.1.try_recv().ok()?;
        Some(self.take_back(done))
    }

    /// What came of the job, if it is away with one. Waits for the disk.
    pub async fn wait(&mut self) -> Option<R> {
        let done = (&mut self.away.as_mut()?.1).await.expect("a job is done to its end");
        Some(self.take_back(done))
    }

    /// Has a last job done with it, which must be here, and waits for that. False when the job ended with a panic.
    pub async fn run_last(
        &mut self,
        disk: &Disk,
        job: impl FnOnce(&mut T) + Send + 'static,
    ) -> bool {
        let mut taken = self.here.take().expect("one job at a time");
        let (give, ended) = oneshot::channel();
        disk.thread.give(Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(|| job(&mut taken)));
            // Nobody may want to know any more.
            let _ = give.send(result.is_ok());
        }));
        ended.await.unwrap_or(false)
    }

    fn take_back(&mut self, (taken, result): Done<T, R>) -> R {
        self.here = Some(taken);
        self.away = None;
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn wait<T: Send + 'static, R: Send + 'static>(offloaded: &mut Offloaded<T, R>) -> Option<R> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(offloaded.wait())
    }

    fn fetch(disk: &Disk, bytes: &mut Offloaded<Vec<u8>, usize>, byte: u8) {
        bytes.send(Time(7), disk, move |bytes| {
            bytes.push(byte);
            bytes.len()
        });
    }

    fn disk() -> Disk {
        Disk::new(Arc::new(DiskThread::start()), || {})
    }

    #[test]
    fn what_was_sent_away_comes_back_with_its_result() {
        let (said, heard) = mpsc::channel();
        let disk = Disk::new(Arc::new(DiskThread::start()), move || said.send(()).unwrap());
        let (mut bytes, mut others) = (Offloaded::new(vec![1]), Offloaded::new(vec![]));
        fetch(&disk, &mut bytes, 2);
        fetch(&disk, &mut others, 3);
        assert!(!bytes.is_here() && bytes.here().is_none());
        assert_eq!(bytes.away_since(), Some(Time(7)));
        for _ in 0..2 {
            heard.recv().unwrap();
        }
        assert_eq!(
            (bytes.result(), bytes.result(), wait(&mut others), wait(&mut others)),
            (Some(2), None, Some(1), None)
        );
        assert_eq!(bytes.here(), Some(&mut vec![1, 2]));
    }

    #[test]
    fn nobody_waits_for_a_job_that_hangs() {
        let hang = Arc::new(Barrier::new(2));
        let disk = disk();
        let mut offloaded = Offloaded::new(());
        let there = hang.clone();
        offloaded.send(Time(0), &disk, move |()| {
            there.wait();
        });
        assert_eq!(offloaded.result(), None);
        drop(disk);
        hang.wait();
        assert_eq!(wait(&mut offloaded), Some(()));
    }

    #[test]
    fn a_panic_is_the_takers_and_what_was_away_is_used_again() {
        let caller = Disk::new(Arc::new(DiskThread::Caller), || {});
        for disk in [disk(), caller] {
            let mut bytes = Offloaded::new(vec![]);
            bytes.send(Time(0), &disk, |_| panic!("told to"));
            let taken = catch_unwind(AssertUnwindSafe(|| wait(&mut bytes)));
            assert_eq!(taken.unwrap_err().downcast_ref(), Some(&"told to"));
            fetch(&disk, &mut bytes, 1);
            assert_eq!(wait(&mut bytes), Some(1));
        }
    }

    #[test]
    fn backups_on_one_file_system_share_a_thread_that_ends_with_the_last_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut threads = DiskThreads::default();
        let (one, other) = (threads.of(dir.path()), threads.of(dir.path()));
        assert!(Arc::ptr_eq(&one, &other));
        let elsewhere = threads.of(Path::new("/proc"));
        assert!(!Arc::ptr_eq(&one, &elsewhere));
        let was = Arc::downgrade(&one);
        drop((one, other));
        assert!(was.upgrade().is_none());
        threads.of(dir.path());
        assert_eq!(threads.by_device.len(), 2);
    }
}
