//! What is left in the queues when their worker exits: its own, and those that it has adopted. Messages that were
//! never sent go to the backup files. Those that were sent and have no answer keep their stamps, in a queue file for
//! the next worker: below backpath, since the machine or the container may be stopped as well.
//!
//! Runs on the disk thread, when nobody reads the queues any more.

use super::super::context::{Shared, wall_ms};
use super::super::own_queue;
use super::super::report::backup::BackupReport;
use super::super::report::driver::DriverReport;
use super::spill::{self, CHUNK_LINES, chunk_limit};
use crate::backup::format::Line;
use crate::backup::{BackupDir, BackupError, LineBatch};
use crate::queue::stamps::OpenBatch;
use crate::queue::{Damage, NoRoom, Owner, PushError, Queue, QueueDir, QueueError, Reader, Writer};
use crate::stats;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The end of a producer.
pub(in crate::driver) struct ProducerExit {
    pub shared: Arc<Shared>,
    /// The worker's own queue first.
    pub queues: Vec<Arc<Queue>>,
    pub backpath: PathBuf,
    /// Whose the queues are.
    pub instance: String,
    pub name: String,
}

impl ProducerExit {
    /// Saves all that can be saved, and says so in the log. A queue of which something could not be saved keeps its
    /// file.
    pub fn save(mut self, backup: &mut BackupDir) {
        self.write_appends(backup);
        let (mut saved, mut open, mut places) = (0, 0, Vec::new());
        for queue in std::mem::take(&mut self.queues) {
            let mut spill = ExitSpill::new(Reader::new(&queue), backup);
            let result = spill.save();
            saved += spill.saved();
            let is_open = spill.open() > 0;
            open += spill.open();
            let carried = self.carry_over(&queue, &mut spill);
            if is_open {
                places.push(carried.as_ref().ok().cloned().unwrap_or_else(|| queue.path()));
            }
            let path = queue.path();
            if let Err(error) = &result {
                self.shared.report(&DriverReport::NotSaved { path: &path, error });
            }
            if result.is_err() || !self.is_gone(&queue, carried) {
                let (path, fate) = (Some(&*path), &queue.fate());
                self.shared.report(&DriverReport::Left { path, fate });
            }
        }
        self.report(saved, open, &places);
    }

    /// Writes what the event loop had left for backup files.
    fn write_appends(&self, backup: &mut BackupDir) {
        while let Some((topic, text)) = self.shared.lua.appends.take() {
            if let Err(error) = spill::append(backup, &topic, &text) {
                self.shared.report(&BackupReport::AppendLost { topic: &topic, error: &error });
            }
        }
    }

    /// Copies open batches to where the next worker finds them, unless the queue lies there already. Returns where they
    /// lie.
    fn carry_over(&self, queue: &Queue, spill: &mut ExitSpill<'_>) -> Result<PathBuf, CarryError> {
        if spill.open() == 0 || queue.is_mapped_in(&QueueDir::path_below(&self.backpath)) {
            return Ok(queue.path());
        }
        let dir = Arc::new(QueueDir::open(&self.backpath)?);
        let owner = Owner { instance: &self.instance, producer: &self.name };
        spill.carry_over(dir, owner, &own_queue::unique(self.shared.now()), wall_ms())
    }

    /// Removes the queue's file once nothing is left in it; false when that failed.
    fn is_gone(&self, queue: &Queue, carried: Result<PathBuf, CarryError>) -> bool {
        if let Err(error) = carried {
            let (path, error, fate) = (&queue.path(), &error, &queue.fate());
            self.shared.report(&DriverReport::NotCarriedOver { path, error, fate });
            return true;
        }
        if queue.waiting() > 0 {
            // In place, for the next worker.
            return !queue.is_anonymous();
        }
        crate::crash_points::crash_point("queue to be removed");
        !queue.has_a_name() || queue.remove().is_ok()
    }

    fn report(&self, saved: u64, open: u64, places: &[PathBuf]) {
        if saved > 0 {
            stats::add(&self.shared.stats.fail_msg_cnt, saved);
            let backpath = &self.backpath;
            self.shared.report(&DriverReport::ToBackup { records: saved, backpath });
        }
        if open > 0 {
            self.shared.report(&DriverReport::Unacknowledged { records: open, places });
        }
    }
}

/// Why the rest of a queue could not be saved whole.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    /// The backup took no more.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The file is damaged; what stood before the damage is saved.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// A message's topic is not in the file's table.
    #[error("message at {0} has no topic")]
    NoTopic(u64),
}

/// Everything that is left in one queue, written to the backup files in one go.
struct ExitSpill<'a> {
    reader: Reader,
    backup: &'a mut BackupDir,
    /// Lines and positions per topic, until a chunk is full.
    chunks: HashMap<u16, (LineBatch, Vec<u64>)>,
    saved: u64,
    open: Vec<OpenBatch>,
}

impl<'a> ExitSpill<'a> {
    pub fn new(reader: Reader, backup: &'a mut BackupDir) -> ExitSpill<'a> {
        ExitSpill { reader, backup, chunks: HashMap::new(), saved: 0, open: Vec::new() }
    }

    /// Messages saved so far.
    pub fn saved(&self) -> u64 {
        self.saved
    }

    /// Messages that were sent, and of which no answer tells what became of them: only who finds their stamps can send
    /// them again without duplicates.
    pub fn open(&self) -> u64 {
        self.open.iter().map(|batch| batch.positions.len() as u64).sum()
    }

    /// Saves all that is whole, was not sent with a stamp, and that its topic's file takes; the error is the
    /// last one met. Each message is marked done once its line is written.
    pub fn save(&mut self) -> Result<(), SaveError> {
        let mut result = Ok(());
        self.open = self.reader.take_open_batches();
        while let Some((position, topic)) = match self.reader.read() {
            Ok(slot) => slot.map(|slot| (slot.position, slot.topic)),
            Err(damage) => {
                result = Err(damage.into());
                None
            }
        } {
            let Some(name) = self.reader.topic(topic).map(str::to_owned) else {
                result = Err(SaveError::NoTopic(position));
                continue;
            };
            let slot = self.reader.get(position)?;
            let (lines, positions) = self.chunks.entry(topic).or_default();
            lines.push(&Line { logged_ms: slot.logged_ms, topic: &name, record: slot.record });
            positions.push(position);
            let full =
                lines.bytes() as u64 >= chunk_limit(self.backup) || lines.count() >= CHUNK_LINES;
            if full && let Err(error) = self.write(topic) {
                result = Err(error);
            }
        }
        let topics: Vec<u16> = self.chunks.keys().copied().collect();
        for topic in topics {
            if let Err(error) = self.write(topic) {
                result = Err(error);
            }
        }
        self.reader.release();
        result
    }

    fn write(&mut self, topic: u16) -> Result<(), SaveError> {
        let Some((lines, positions)) = self.chunks.remove(&topic) else { return Ok(()) };
        let name = self.reader.topic(topic).map(str::to_owned).unwrap_or_default();
        self.backup.append(&name, &lines)?;
        crate::crash_points::crash_point("rest written");
        self.saved += positions.len() as u64;
        for position in positions {
            self.reader.done(position);
        }
        self.reader.release();
        Ok(())
    }

    /// Copies the open batches, stamps and all, to a queue file of their own in `dir`, where they outlive the
    /// machine, and marks them done here. Killed in between it leaves them in both files: they are repeated
    /// twice, and the broker drops the duplicates all the same.
    pub fn carry_over(
        &mut self,
        dir: Arc<QueueDir>,
        owner: Owner<'_>,
        unique: &str,
        now_ms: i64,
    ) -> Result<PathBuf, CarryError> {
        let mut needed = (0, 0);
        for position in self.open.iter().flat_map(|batch| &batch.positions) {
            let slot = self.reader.get(*position)?;
            let bytes = slot.bytes_in_queue() as u64;
            needed = (needed.0 + bytes, needed.1.max(bytes));
        }
        // Room for what is lost at the ends of segments, and for the largest, which may be a quarter at most.
        let bytes = needed.0 * 2 + needed.1 * 4;
        // The directory may lie on any file system, so nothing in it is mapped.
        let copies = Queue::anonymous(dir.clone(), owner, bytes, now_ms)?;
        self.copy_open(&copies)?;
        let path = copies.write_to(&dir, owner, unique)?;
        crate::crash_points::crash_point("batches carried over");
        for position in self.open.drain(..).flat_map(|batch| batch.positions) {
            self.reader.done(position);
        }
        self.reader.release();
        Ok(path)
    }

    fn copy_open(&mut self, queue: &Queue) -> Result<(), CarryError> {
        let mut writer = Writer::new(queue, u64::MAX, usize::MAX);
        let mut copies = Reader::new(queue);
        for batch in &self.open {
            let name = self.reader.topic(batch.topic).ok_or(CarryError::NoTopic)?;
            let topic = writer.topic(name).map_err(|_| CarryError::NoTopic)?;
            let mut positions = Vec::new();
            for (index, position) in batch.positions.iter().enumerate() {
                if index == 1 {
                    crate::crash_points::crash_point("half of a batch to be carried over");
                }
                let slot = self.reader.get(*position)?;
                let (time, partition) = (slot.logged_ms, batch.partition as i32);
                // Nobody waits for a signal.
                let _ = writer.push(topic, partition, time, &slot.record, slot.flags)?;
                positions.push(copies.read()?.ok_or(CarryError::NoTopic)?.position);
            }
            copies.stamp(batch.partition, batch.stamp, batch.is_part, positions)?;
        }
        Ok(())
    }
}

/// Why open batches stay where they are.
#[derive(Debug, thiserror::Error)]
enum CarryError {
    /// There is no file to be made.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The queue is damaged.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The copy takes no more.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The copy has no room for what was sent together.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// A message's topic is not in the queue's table, or the copy's has no room for it.
    #[error("a message has no topic")]
    NoTopic,
}
