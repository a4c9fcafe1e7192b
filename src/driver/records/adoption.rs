//! Looking for the queue files of dead workers.
//!
//! A dead worker's file is adopted by whoever sees it first: a worker that starts, or a living one on its next
//! look. Its records go through this worker's producer, oldest first, with a fresh time limit; batches that
//! it had sent are repeated as they were. Once all of them are delivered or in a backup file, it is removed; a
//! damaged one is kept aside under another name.
//! `flock` makes sure that a living owner's file is never touched and that nobody adopts a file twice.

use super::super::context::{Context, wall_ms};
use super::super::report::queue::{AdoptionReport, QueueReport};
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
    /// With the worker's own, if that has a file: in memory, as a rule.
    own: Option<Arc<QueueDir>>,
    /// Elsewhere, perhaps on a disk that hangs.
    others: Offloaded<OtherDirs, Vec<Listed>>,
}

/// A directory that nobody has made yet may come later.
struct OtherDirs {
    open: Vec<Arc<QueueDir>>,
    parents: Vec<PathBuf>,
}

/// A directory and its files, whoever they belong to.
type Listed = Result<(Arc<QueueDir>, Vec<String>), QueueError>;

impl QueueDirs {
    /// The directory of the worker's own queue, and those below `parents`.
    pub fn new(own: &Queue, parents: &[PathBuf]) -> QueueDirs {
        let own = (!own.is_anonymous()).then(|| own.dir().clone());
        let is_own = |path: PathBuf| own.as_ref().is_some_and(|own| own.path() == path);
        let others = parents.iter().filter(|parent| !is_own(QueueDir::path_below(parent)));
        let others = OtherDirs { open: Vec::new(), parents: others.cloned().collect() };
        QueueDirs { own, others: Offloaded::new(others) }
    }
}

impl OtherDirs {
    fn list(&mut self, instance: &str) -> Vec<Listed> {
        let mut listed = Vec::new();
        self.parents.retain(|parent| {
            if !QueueDir::path_below(parent).exists() {
                return true;
            }
            match QueueDir::open(parent) {
                Ok(dir) => self.open.push(Arc::new(dir)),
                Err(error) => {
                    listed.push(Err(error));
                    return true;
                }
            }
            false
        });
        listed.extend(self.open.iter().map(|dir| list(dir, instance)));
        listed
    }
}

fn list(dir: &Arc<QueueDir>, instance: &str) -> Listed {
    recovery::list(dir, instance).map(|names| (dir.clone(), names))
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
        if let Some(own) = &self.dirs.own {
            adopt_all(cx, queues, list(own, instance), self.owner);
        }
        if self.dirs.others.is_here() {
            let instance = instance.to_owned();
            self.dirs.others.send(cx.now, cx.disk, move |dirs| dirs.list(&instance));
        }
    }
}

/// Nobody could adopt the own queue when its file has no name any more.
fn report_removed(cx: &Context<'_>, own: &Queue) {
    if !own.is_anonymous() && !own.has_a_name() {
        cx.report(&QueueReport::Removed { path: &own.path() });
    }
}

fn adopt_all(cx: &Context<'_>, queues: &mut Queues, listed: Listed, owner: Owner<'_>) {
    match listed {
        Ok((dir, names)) => {
            for name in names {
                adopt(cx, queues, &dir, &name, owner);
            }
        }
        Err(error) => {
            cx.report(&QueueReport::Adoption(AdoptionReport::NotListed { error: &error }));
        }
    }
}

fn adopt(cx: &Context<'_>, queues: &mut Queues, dir: &Arc<QueueDir>, name: &str, owner: Owner<'_>) {
    if !queues.has_room() {
        return;
    }
    let report = |report| cx.report(&QueueReport::Adoption(report));
    let queue = match recovery::adopt(dir.clone(), name, owner) {
        Ok(queue) => Arc::new(queue),
        // Its maker lives, another worker was quicker, or it is another producer's.
        Err(QueueError::InUse { .. } | QueueError::OfAnotherOwner { .. }) => return,
        Err(error) => {
            return report(AdoptionReport::NotAdopted { name, error: &error });
        }
    };
    crate::crash_points::crash_point("adopted");
    let source = QueueSource::new(queue);
    let (worker, records) = (source.reader.owner_pid(), source.waiting());
    report(AdoptionReport::Adopted { name, worker, records });
    stats::add(&cx.shared.stats.adopted_cnt, records);
    let forgotten = source.open_since_before(wall_ms() - SEQUENCES_LAST);
    if forgotten > 0 {
        report(AdoptionReport::Forgotten { name, worker, records: forgotten });
    }
    queues.add(source);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn flt_06_a_directory_that_cannot_be_looked_into_is_reported_until_it_is_mended() {
        let parent = tempfile::tempdir().unwrap();
        let mut others = OtherDirs { open: Vec::new(), parents: vec![parent.path().to_owned()] };
        assert!(others.list("i").is_empty(), "nobody has left anything yet");
        let path = QueueDir::path_below(parent.path());
        let set_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        std::fs::create_dir(&path).unwrap();
        set_mode(0o755);
        for _ in 0..2 {
            let listed = others.list("i");
            let [Err(error)] = &listed[..] else { panic!("not reported") };
            assert!(error.to_string().contains("its mode must be 0700"), "{error}");
        }
        set_mode(0o700);
        assert!(matches!(&others.list("i")[..], [Ok((_, names))] if names.is_empty()));
    }
}
