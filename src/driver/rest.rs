//! What is left in a queue when its worker exits: messages that were never sent go to the backup files. Those
//! that were sent and have no answer keep their stamps, in a queue file for the next worker: on disk, since
//! the machine may be stopped as well.

use super::spill::{CHUNK_LINES, chunk_limit};
use crate::backup::format::Line;
use crate::backup::{BackupDir, BackupError, Lines};
use crate::queue::stamps::OpenBatch;
use crate::queue::{Damage, NoRoom, Owner, PushError, Queue, QueueDir, QueueError, Reader, Writer};
use std::collections::HashMap;
use std::sync::Arc;

/// Why the rest of a queue could not be saved whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestError {
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

/// Everything that is left in a queue, on its way to the backup files in one go: at exit, when there is
/// nobody any more who could deliver it.
pub(super) struct Rest<'a> {
    reader: Reader,
    backup: &'a mut BackupDir,
    /// Lines and positions per topic, until a chunk is full.
    chunks: HashMap<u16, (Lines, Vec<u64>)>,
    saved: u64,
    open: Vec<OpenBatch>,
}

impl<'a> Rest<'a> {
    pub fn new(reader: Reader, backup: &'a mut BackupDir) -> Rest<'a> {
        Rest { reader, backup, chunks: HashMap::new(), saved: 0, open: Vec::new() }
    }

    /// Messages saved so far.
    pub fn saved(&self) -> u64 {
        self.saved
    }

    /// Messages that were sent, and whose fate is open: only who finds their stamps can send them again without
    /// doubling them.
    pub fn open(&self) -> u64 {
        self.open.iter().map(|batch| batch.positions.len() as u64).sum()
    }

    /// Saves all that is whole, was not sent with a stamp, and that its topic's file takes; the error is the
    /// last one met. Each message is marked done once its line is written.
    pub fn save(&mut self) -> Result<(), RestError> {
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
                result = Err(RestError::NoTopic(position));
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

    fn write(&mut self, topic: u16) -> Result<(), RestError> {
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
    /// twice, and the broker drops the doubles all the same.
    pub fn carry_over(
        &mut self,
        dir: Arc<QueueDir>,
        owner: Owner<'_>,
        unique: &str,
        now_ms: i64,
    ) -> Result<(), CarryError> {
        let mut needed = (0, 0);
        for position in self.open.iter().flat_map(|batch| &batch.positions) {
            let slot = self.reader.get(*position)?;
            let bytes = slot.bytes_in_queue() as u64;
            needed = (needed.0 + bytes, needed.1.max(bytes));
        }
        // Room for what is lost at the ends of segments, and for the largest, which may be a quarter at most.
        let bytes = needed.0 * 2 + needed.1 * 4;
        let mut queue = Queue::create_unfinished(dir, owner, unique, bytes, now_ms)?;
        let copied = self.copy_open(&queue).and_then(|()| queue.finish().map_err(CarryError::from));
        if copied.is_err() {
            // Half a copy is none; the batches are still here.
            queue.remove()?;
            return copied;
        }
        crate::crash_points::crash_point("batches carried over");
        for position in self.open.drain(..).flat_map(|batch| batch.positions) {
            self.reader.done(position);
        }
        self.reader.release();
        Ok(())
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
                    crate::crash_points::crash_point("half of a batch carried over");
                }
                let slot = self.reader.get(*position)?;
                let (time, partition) = (slot.logged_ms, batch.partition as i32);
                // Nobody waits for a signal.
                let _ = writer.push(topic, partition, time, &slot.record, slot.flags)?;
                positions.push(copies.read()?.ok_or(CarryError::NoTopic)?.position);
            }
            copies.stamp(batch.partition, batch.stamp, positions)?;
        }
        Ok(())
    }
}

/// Why open batches stay where they are.
#[derive(Debug, thiserror::Error)]
pub(super) enum CarryError {
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
