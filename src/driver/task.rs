//! One producer as a task of the driver thread: its event loop is started anew after a fault, and at the end what is
//! left in its queues is saved.

use super::context::Shared;
use super::event_loop::EventLoop;
use super::records::adoption::QueueDirs;
use super::report::driver::DriverReport;
use super::undelivered::disk::Disk;
use super::undelivered::exit::ProducerExit;
use super::undelivered::spill::Backup;
use crate::config::Config;
use crate::producer::Time;
use crate::queue::{Owner, Queue};
use crate::stats;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::time::Duration;

/// Pause before the first restart; doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A run that lasted this long starts the pauses anew.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// What a producer's task owns.
pub(super) struct ProducerTask {
    pub config: Config,
    pub shared: Arc<Shared>,
    pub queue: Arc<Queue>,
    pub dirs: QueueDirs,
    pub instance: String,
    /// The producer's name, empty for the default one.
    pub name: String,
    pub backup: Backup,
    pub finished: Arc<Finished>,
}

/// Whether a producer has ended, for those who wait for that.
#[derive(Default)]
pub(super) struct Finished {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Finished {
    fn set(&self) {
        *self.is_set.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        self.changed.notify_all();
    }

    /// Waits for at most `limit`; returns whether the producer has ended.
    pub fn wait(&self, limit: Duration) -> bool {
        let is_set = self.is_set.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waited = self.changed.wait_timeout_while(is_set, limit, |is_set| !*is_set);
        *waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }
}

/// How a run ended: well, or with a fault's text, and the queues that it had.
struct Ended {
    result: Result<(), String>,
    queues: Vec<Arc<Queue>>,
}

impl ProducerTask {
    pub async fn live(mut self, disk: Disk) {
        let finished = self.finished.clone();
        // A fault here leaves what is left in the queue files.
        let _ = catch_panic(async move {
            let queues = self.run_until_stopped(&disk).await;
            self.save(queues, &disk).await;
        })
        .await;
        finished.set();
    }

    /// Runs, and runs again after faults; returns the queues that the last run had.
    async fn run_until_stopped(&mut self, disk: &Disk) -> Vec<Arc<Queue>> {
        let shared = self.shared.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let began = shared.now();
            let ended = self.run(disk).await;
            let Err(fault) = ended.result else { return ended.queues };
            stats::add(&shared.stats.driver_restarts, 1);
            shared.report(&DriverReport::Fault { text: &fault });
            if shared.is_stopping() {
                return ended.queues;
            }
            if shared.now().since(began) > GOOD_RUN {
                pause = FIRST_PAUSE;
            }
            let until = shared.now() + pause;
            while shared.now() < until && !shared.is_stopping() {
                tokio::time::sleep(FIRST_PAUSE / 4).await;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn run(&mut self, disk: &Disk) -> Ended {
        let (dirs, backup) = (&mut self.dirs, &mut self.backup);
        let (config, shared) = (&self.config, &*self.shared);
        let owner = Owner { instance: &self.instance, producer: &self.name };
        let queue = self.queue.clone();
        let begin =
            AssertUnwindSafe(|| EventLoop::new(config, shared, disk, queue, dirs, owner, backup));
        // Queue and backup are built to be read anew, whatever a fault leaves behind.
        let mut event_loop = match catch_unwind(begin) {
            Ok(event_loop) => event_loop,
            Err(panic) => {
                return Ended {
                    result: Err(panic_text(&*panic)),
                    queues: vec![self.queue.clone()],
                };
            }
        };
        let served = catch_panic(event_loop.serve()).await;
        let result = served.and_then(|served| served.map_err(|error| error.to_string()));
        let replay = catch_panic(event_loop.finish_replay()).await;
        let spill = catch_panic(event_loop.finish_spill()).await;
        Ended { result: result.and(replay).and(spill), queues: event_loop.into_queues() }
    }

    /// Saves the rest on the disk thread. Where the backup is still away there, after a fault, the rest stays in the
    /// queue files.
    async fn save(&mut self, queues: Vec<Arc<Queue>>, disk: &Disk) {
        let shared = &self.shared;
        let exit = ProducerExit {
            shared: shared.clone(),
            queues,
            backpath: self.config.backup.backpath.clone(),
            instance: self.instance.clone(),
            name: self.name.clone(),
        };
        let saved = self.backup.is_here()
            && self.backup.run_last(disk, move |backup| exit.save(backup)).await;
        if !saved {
            shared.report(&DriverReport::Left { path: None, fate: &self.queue.fate() });
        }
        shared.log.settle(Time::NEVER);
    }
}

/// Polls `future` to its end; a panic in it is its result.
async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
    })
    .await
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}
