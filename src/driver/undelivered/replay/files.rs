//! What replay has done with the backup files. Runs on the disk thread.

use super::progress::{ChunkProgress, State};
use crate::backup::backlog::{Place, Which};
use crate::backup::{Backlog, BackupError, Chunk, Waiting};
use crate::config::{BackupConfig, Replay as Setting};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

/// What came of a job.
pub(super) enum Answer {
    /// What waits, by topic, `None` when another process replays; and the processor's time that the look took.
    Waiting(Result<Option<BTreeMap<String, Waiting>>, BackupError>, Duration),
    /// The next lines of a topic, if there are some.
    Read { topic: String, settled: HashSet<Place>, chunk: Result<Option<Chunk>, BackupError> },
    /// What became of a chunk is noted; how many of its lines were moved aside.
    Noted {
        chunk: Chunk,
        progress: ChunkProgress,
        open: Option<usize>,
        moved: Result<usize, BackupError>,
    },
}

/// The backup files. They are opened by the first job, and again by the next one when that did not work.
pub(super) struct Files {
    path: PathBuf,
    which: Which,
    longest: usize,
    backlog: Option<Backlog>,
}

impl Files {
    /// Those that the configuration has sent again, if there are to be any; a message has `longest` bytes at most.
    pub fn new(config: &BackupConfig, longest: usize) -> Option<Files> {
        let which = match config.replay {
            Setting::Off => return None,
            Setting::Own => Which::Own,
            Setting::All => Which::All,
        };
        Some(Files { path: config.backpath.clone(), which, longest, backlog: None })
    }

    /// The files, once they were opened.
    pub fn backlog(&mut self) -> Option<&mut Backlog> {
        self.backlog.as_mut()
    }

    fn open(&mut self) -> Result<&mut Backlog, BackupError> {
        let backlog = match self.backlog.take() {
            Some(backlog) => backlog,
            None => Backlog::open(&self.path, self.which, self.longest)?,
        };
        Ok(self.backlog.insert(backlog))
    }

    /// Takes the lock and counts what waits.
    pub fn look(&mut self, now_s: i64) -> Answer {
        let before = thread_time();
        let waiting = self.open().and_then(|backlog| {
            if backlog.lock()? { backlog.waiting(now_s).map(Some) } else { Ok(None) }
        });
        Answer::Waiting(waiting, thread_time().saturating_sub(before))
    }

    /// Reads the next lines of a topic, but for those in `settled`.
    pub fn read(&mut self, topic: String, settled: HashSet<Place>) -> Answer {
        let chunk = self.open().and_then(|backlog| backlog.read(&topic, &settled));
        Answer::Read { topic, settled, chunk }
    }

    /// Notes what became of a chunk.
    pub fn note(&mut self, chunk: Chunk, progress: ChunkProgress) -> Answer {
        let open = progress.numbers(State::Open).next();
        let refused: Vec<usize> = progress.numbers(State::Refused).collect();
        let moved = self.open().and_then(|backlog| backlog.commit(&chunk, open, &refused));
        Answer::Noted { chunk, progress, open, moved }
    }
}

/// The processor's time that this thread has used.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
