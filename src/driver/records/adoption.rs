//! Looking for the queue files of dead workers.
//!
//! A dead worker's file is adopted by whoever sees it first: a worker that starts, or a living one on its next
//! look. Its records go through this worker's producer, oldest first, with a fresh time limit; batches that
//! it had sent are repeated as they were. Once all of them are delivered or in a backup file, it is removed; a
//! damaged one is kept aside under another name.
//! `flock` makes sure that a living owner's file is never touched and that nobody adopts a file twice.

use super::super::context::{Context, wall_ms};
use super::super::lua::log::Level;
use super::super::undelivered::disk::Offloaded;
use super::queues::{QueueSource, Queues};
use crate::producer::Time;
use crate::queue::{Owner, Queue, QueueDir, QueueError, recovery};
use crate::stats;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time between looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long brokers know a producer's sequence numbers unless told otherwise (`producer.id.expiration.ms`), in
/// milliseconds.
const SEQUENCES_LAST: i64 = 86_400_000;

/// Where dead workers' files may lie.
pub(in crate::driver) struct QueueDirs {
    /// With the worker's own: in memory, as a rule.
    own: Arc<QueueDir>,
    /// Elsewhere, perhaps on a disk that hangs.
    others: Offloaded<OtherDirs, Vec<Listed>>,
}

/// A directory that nobody has made yet may come later.
struct OtherDirs {
    open: Vec<Arc<QueueDir>>,
    parents: Vec<PathBuf>,
}

/// A directory and its files, whoever they belong to.
type Listed = (Arc<QueueDir>, Result<Vec<String>, QueueError>);

impl QueueDirs {
    /// The directory of the worker's own queue, and those below `parents`.
    pub fn new(own: Arc<QueueDir>, parents: &[PathBuf]) -> QueueDirs {
        let others = parents.iter().filter(|parent| QueueDir::path_below(parent) != own.path());
        let others = OtherDirs { open: Vec::new(), parents: others.cloned().collect() };
        QueueDirs { own, others: Offloaded::new(others) }
    }
}

impl OtherDirs {
    fn list(&mut self, instance: &str) -> Vec<Listed> {
        self.parents.retain(|parent| {
            let dir = QueueDir::path_below(parent).exists().then(|| QueueDir::open(parent));
            match dir {
                Some(Ok(dir)) => {
                    self.open.push(Arc::new(dir));
                    false
                }
                _ => true,
            }
        });
        self.open.iter().map(|dir| list(dir, instance)).collect()
    }
}

fn list(dir: &Arc<QueueDir>, instance: &str) -> Listed {
    (dir.clone(), recovery::list(dir, instance))
}

/// The looks. The directories outlive a run of the producer, which may end with a fault.
pub(in crate::driver) struct Adoption<'a> {
    dirs: &'a mut QueueDirs,
    /// Whose files are adopted.
    owner: Owner<'a>,
    look_at: Time,
}

impl<'a> Adoption<'a> {
    pub fn new(dirs: &'a mut QueueDirs, owner: Owner<'a>) -> Adoption<'a> {
        Adoption { dirs, owner, look_at: Time(0) }
    }

    /// When the next look is due.
    pub fn deadline(&self) -> Time {
        self.look_at
    }

    /// Adopts dead workers' files, and sees whether the own one is still there for others.
    pub fn turn(&mut self, cx: &Context<'_>, queues: &mut Queues) {
        for listed in self.dirs.others.result().unwrap_or_default() {
            adopt_all(cx, queues, listed, self.owner);
        }
        if cx.now < self.look_at {
            return;
        }
        self.look_at = cx.now + LOOK_EVERY;
        report_removed(cx, &queues.own().queue);
        let instance = self.owner.instance;
        adopt_all(cx, queues, list(&self.dirs.own, instance), self.owner);
        if self.dirs.others.is_here() {
            let instance = instance.to_owned();
            self.dirs.others.send(cx.now, cx.disk, move |dirs| dirs.list(&instance));
        }
    }
}

/// Nobody could adopt the own queue when its file has no name any more.
fn report_removed(cx: &Context<'_>, own: &Queue) {
    if !own.has_a_name() {
        let path = own.path();
        let text = format_args!(
            "queue {} was removed while in use: what waits in it is lost if this worker is killed; a reload \
             of nginx makes a new one",
            path.display()
        );
        cx.log(Level::Error, "queue", "removed", text);
    }
}

fn adopt_all(cx: &Context<'_>, queues: &mut Queues, (dir, names): Listed, owner: Owner<'_>) {
    match names {
        Ok(names) => {
            for name in names {
                adopt(cx, queues, &dir, &name, owner);
            }
        }
        Err(error) => cx.log(Level::Warn, "adopt", "list", error),
    }
}

fn adopt(cx: &Context<'_>, queues: &mut Queues, dir: &Arc<QueueDir>, name: &str, owner: Owner<'_>) {
    if !queues.has_room() {
        return;
    }
    let queue = match recovery::adopt(dir.clone(), name, owner) {
        Ok(queue) => Arc::new(queue),
        // Its maker lives, another worker was quicker, or it is another producer's.
        Err(QueueError::InUse { .. } | QueueError::OfAnotherOwner { .. }) => return,
        Err(error) => {
            let text = format_args!("a dead worker's queue is left as it is: {error}");
            return cx.log(Level::Error, "adopt", name, text);
        }
    };
    crate::crash_points::crash_point("adopted");
    let source = QueueSource::new(queue);
    let (worker, waiting) = (source.reader.owner_pid(), source.waiting());
    let text =
        format_args!("adopted the queue of worker {worker}, which is gone: {waiting} messages");
    cx.log(Level::Notice, "adopted", name, text);
    stats::add(&cx.shared.stats.adopted_cnt, waiting);
    let forgotten = source.open_since_before(wall_ms() - SEQUENCES_LAST);
    if forgotten > 0 {
        let text = format_args!(
            "{forgotten} messages that worker {worker} had sent, and that were logged more than a day ago, are sent again: \
             brokers that have forgotten their numbers (producer.id.expiration.ms) may have them twice then"
        );
        cx.log(Level::Warn, "forgotten", name, text);
    }
    queues.add(source);
}
