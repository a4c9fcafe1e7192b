//! The queues that the driver reads: the worker's own, and those that dead workers left behind.
//!
//! A dead worker's file is adopted by whoever sees it first: a worker that starts, or a living one on its next
//! look round. Its records go through this worker's producer, oldest first, with a fresh time limit; batches that
//! it had sent are repeated as they were. Once all of them are delivered or in a backup file, it is removed; a
//! damaged one is kept aside under another name.
//! `flock` makes sure that a living owner's file is never touched and that nobody adopts a file twice.
//!
//! A chunk of a backup file that is sent again is a source as well. It is never read from here, only looked
//! into: [`replay`](super::replay) hands its lines out.

use super::disk::{Disk, Tool};
use super::{Level, Shared};
use crate::backup::Chunk;
use crate::producer::{RecordId, Time, TopicId};
use crate::protocol::record_batch::ProducerStamp;
use crate::queue::layout::NO_PARTITION;
use crate::queue::stamps::OpenBatch;
use crate::queue::{
    Damage, Flags, NoRoom, Owner, Queue, QueueDir, QueueError, Reader, Slot, recovery,
};
use crate::stats;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Time between looks for dead workers' files.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Files that are adopted at a time; the others wait their turn.
const ADOPTED: usize = 16;
/// How long brokers know a producer's numbers unless told otherwise (`producer.id.expiration.ms`), in milliseconds.
const NUMBERS_LAST: i64 = 86_400_000;
/// Positions may be larger than a record's name has bits for them: what counts is where they lie ahead of the
/// file's head, which is less than the file is long.
const POSITION_BITS: u32 = RecordId::POSITION_BITS;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;

/// Number of the backup lines that are sent again, which no queue has.
const REPLAY: usize = ADOPTED + 1;

/// Lines of a backup file that are sent again.
pub(super) struct ReplayChunk {
    /// Name of the first one. Names are never used twice, so a late answer names nobody.
    pub first: u64,
    pub chunk: Chunk,
}

impl ReplayChunk {
    /// Name of line number `index`.
    pub fn name(&self, index: usize) -> RecordId {
        Sources::name(REPLAY, self.first + index as u64)
    }

    fn index(&self, id: RecordId) -> usize {
        ((id.0 & POSITION_MASK).wrapping_sub(self.first) & POSITION_MASK) as usize
    }
}

/// Where dead workers' files may lie.
pub(super) struct Dirs {
    /// With the worker's own: in memory, as a rule.
    own: Arc<QueueDir>,
    /// Elsewhere, perhaps on a disk that hangs.
    others: Tool<OtherDirs, Vec<Listed>>,
}

/// A directory that nobody has made yet may come later.
struct OtherDirs {
    open: Vec<Arc<QueueDir>>,
    parents: Vec<PathBuf>,
}

/// A directory and its files, whoever they belong to.
type Listed = (Arc<QueueDir>, Result<Vec<String>, QueueError>);

impl Dirs {
    /// The directory of the worker's own queue, and those below `parents`.
    pub fn new(own: Arc<QueueDir>, parents: &[PathBuf]) -> Dirs {
        let others = parents.iter().filter(|parent| QueueDir::path_below(parent) != own.path());
        let others = OtherDirs { open: Vec::new(), parents: others.cloned().collect() };
        Dirs { own, others: Tool::new(others) }
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

/// One queue and how far it was read.
pub(super) struct Source {
    pub queue: Arc<Queue>,
    pub reader: Reader,
    /// The queue's topic ids to the producer's.
    pub topics: Vec<TopicId>,
    /// What was sent from it before, and is to be repeated as it was.
    pub open_batches: Vec<OpenBatch>,
    damaged: bool,
}

impl Source {
    fn new(queue: Arc<Queue>) -> Source {
        let mut reader = Reader::new(&queue);
        let open_batches = reader.take_open_batches();
        Source { reader, queue, open_batches, topics: Vec::new(), damaged: false }
    }

    /// Records of open batches that were logged before this time, in milliseconds since 1970.
    fn open_since_before(&self, ms: i64) -> usize {
        let positions = self.open_batches.iter().flat_map(|batch| &batch.positions);
        positions
            .filter(|position| self.reader.get(**position).is_ok_and(|slot| slot.logged_ms < ms))
            .count()
    }
}

/// All queues. Number 0 is the worker's own.
pub(super) struct Sources {
    all: Vec<Option<Source>>,
    /// Backup lines that are sent again.
    pub replay: Option<ReplayChunk>,
    look_at: Time,
}

impl Sources {
    pub fn new(own: Arc<Queue>) -> Sources {
        Sources { all: vec![Some(Source::new(own))], replay: None, look_at: Time(0) }
    }

    /// The worker's own queue.
    pub fn own(&mut self) -> &mut Source {
        self.all[0].as_mut().expect("the own queue is never dropped")
    }

    /// Numbers of all queues, adopted ones first: their records are older.
    pub fn numbers(&self) -> impl DoubleEndedIterator<Item = usize> + use<> {
        (0..self.all.len()).rev()
    }

    /// The queue of this number, if there is one.
    pub fn source(&mut self, number: usize) -> Option<&mut Source> {
        self.all.get_mut(number)?.as_mut()
    }

    /// Name of the record at `position` of queue `number`.
    pub fn name(number: usize, position: u64) -> RecordId {
        RecordId((number as u64) << POSITION_BITS | (position & POSITION_MASK))
    }

    /// Number of the queue, and the position, given that queue's head.
    fn number(id: RecordId) -> usize {
        usize::from(id.queue())
    }

    /// True for a record of the worker's own queue.
    pub fn is_own(id: RecordId) -> bool {
        Self::number(id) == 0
    }

    /// True for a backup line that is sent again; it has no slot in any queue.
    pub fn is_replay(id: RecordId) -> bool {
        Self::number(id) == REPLAY
    }

    /// Which line of the chunk in hand this is, if it is one.
    pub fn replay_index(&self, id: RecordId) -> Option<usize> {
        let replay = self.replay.as_ref().filter(|_| Self::is_replay(id))?;
        let index = replay.index(id);
        (index < replay.chunk.len()).then_some(index)
    }

    fn position(id: RecordId, head: u64) -> u64 {
        head + (id.0.wrapping_sub(head) & POSITION_MASK)
    }

    /// The reader of the queue that a record lies in, and where.
    fn place(&mut self, id: RecordId) -> Option<(&mut Reader, u64)> {
        let reader = &mut self.source(Self::number(id))?.reader;
        let position = Self::position(id, reader.head());
        Some((reader, position))
    }

    /// A record that was handed out and is not done.
    pub fn get(&self, id: RecordId) -> Result<Slot<'_>, Damage> {
        if let Some(replay) = self.replay.as_ref().filter(|_| Self::is_replay(id))
            && let Some(line) = replay.chunk.get(replay.index(id))
        {
            return Ok(Slot {
                position: id.0 & POSITION_MASK,
                topic: 0,
                partition: NO_PARTITION,
                flags: Flags::NONE,
                logged_ms: line.timestamp_ms,
                record: line,
            });
        }
        match self.all.get(Self::number(id)) {
            Some(Some(source)) => source.reader.get(Self::position(id, source.reader.head())),
            _ => Err(Damage { position: id.0, reason: "its queue is gone" }),
        }
    }

    /// Writes down which partition a record goes to.
    pub fn assign(&mut self, id: RecordId, partition: u32) {
        if let Some((reader, position)) = self.place(id) {
            reader.assign(position, partition);
        }
    }

    /// Writes down that records, which lie in one queue, are about to be sent as one batch.
    pub fn stamp(
        &mut self,
        partition: u32,
        stamp: ProducerStamp,
        ids: impl Iterator<Item = RecordId> + Clone,
    ) -> Result<(), NoRoom> {
        let Some(first) = ids.clone().next() else { return Ok(()) };
        let Some((reader, _)) = self.place(first) else { return Ok(()) };
        let head = reader.head();
        reader.stamp(partition, stamp, ids.map(|id| Self::position(id, head)))
    }

    /// Writes down that a record is known not to be in the log.
    pub fn unstamp(&mut self, id: RecordId) {
        if let Some((reader, position)) = self.place(id) {
            reader.unstamp(position);
        }
    }

    /// Says that a record's header and the first `len` bytes behind it will be looked at soon.
    #[inline]
    pub fn prefetch(&self, id: RecordId, len: usize) {
        if let Some(Some(source)) = self.all.get(Self::number(id)) {
            source.reader.prefetch(Self::position(id, source.reader.head()), len);
        }
    }

    /// Marks a record done.
    pub fn done(&mut self, id: RecordId) {
        if let Some((reader, position)) = self.place(id) {
            reader.done(position);
        }
    }

    /// A message's topic is not in the queue's table: the message is given up, and the file kept.
    pub fn give_up(&mut self, number: usize, id: RecordId) {
        if let Some(source) = self.source(number) {
            source.damaged = true;
        }
        self.done(id);
    }

    /// Gives up what is left of a damaged queue; returns how many bytes that was.
    pub fn abandon_rest(&mut self, number: usize) -> u64 {
        let Some(source) = self.source(number) else { return 0 };
        source.damaged = true;
        source.reader.abandon_rest()
    }

    /// Gives the space of done records back, and adopted files that are done with to the file system.
    pub fn release(&mut self, now: Time, shared: &Shared) {
        for (number, place) in self.all.iter_mut().enumerate() {
            let Some(source) = place else { continue };
            if number > 0 && source.damaged {
                // Until then under its name: whoever goes on in our place finds the damage again.
                if source.reader.is_through() {
                    match source.queue.keep_aside() {
                        Ok(()) => *place = None,
                        // Somebody has removed it, or given it a name himself.
                        Err(_) if !source.queue.is_named() => *place = None,
                        Err(error) => shared.lines.put(now, Level::Error, "adopt", "aside", error),
                    }
                }
                continue;
            }
            source.reader.release();
            if number == 0 || source.reader.head() < source.reader.tail() {
                continue;
            }
            crate::crash_points::crash_point("adopted file to be removed");
            if let Err(error) = source.queue.remove() {
                shared.lines.put(now, Level::Error, "adopt", "end", error);
            }
            *place = None;
        }
    }

    /// When [`adopt`](Self::adopt) is due.
    pub fn look_at(&self) -> Time {
        self.look_at
    }

    /// Looks round: adopts dead workers' files in `dirs`, and sees whether the own one is still there for others.
    pub fn adopt(
        &mut self,
        now: Time,
        dirs: &mut Dirs,
        instance: &str,
        shared: &Shared,
        disk: &Disk,
    ) {
        for listed in dirs.others.result().unwrap_or_default() {
            self.adopt_all(now, listed, instance, shared);
        }
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        self.tell_if_removed(now, shared);
        self.adopt_all(now, list(&dirs.own, instance), instance, shared);
        if dirs.others.is_here() {
            let instance = instance.to_owned();
            dirs.others.send(now, disk, move |dirs| dirs.list(&instance));
        }
    }

    fn adopt_all(&mut self, now: Time, (dir, names): Listed, instance: &str, shared: &Shared) {
        let owner = Owner::of_default_producer(instance);
        match names {
            Ok(names) => {
                for name in names {
                    self.adopt_one(now, &dir, &name, owner, shared);
                }
            }
            Err(error) => shared.lines.put(now, Level::Warn, "adopt", "list", error),
        }
    }

    /// Nobody could adopt the own queue when its file has no name any more.
    fn tell_if_removed(&mut self, now: Time, shared: &Shared) {
        let own = &self.own().queue;
        if !own.has_a_name() {
            let path = own.path();
            let text = format_args!(
                "queue {} was removed while in use: what waits in it is lost if this worker is killed; a reload \
                 of nginx makes a new one",
                path.display()
            );
            shared.lines.put(now, Level::Error, "queue", "removed", text);
        }
    }

    fn adopt_one(
        &mut self,
        now: Time,
        dir: &Arc<QueueDir>,
        name: &str,
        owner: Owner<'_>,
        shared: &Shared,
    ) {
        let free = self.all.iter().position(Option::is_none);
        if free.is_none() && self.all.len() > ADOPTED {
            return;
        }
        let queue = match recovery::adopt(dir.clone(), name, owner) {
            Ok(queue) => Arc::new(queue),
            // Its owner lives, or another worker was quicker.
            Err(QueueError::InUse { .. } | QueueError::OfAnotherOwner { .. }) => return,
            Err(error) => {
                let text = format_args!("a dead worker's queue is left as it is: {error}");
                shared.lines.put(now, Level::Error, "adopt", name, text);
                return;
            }
        };
        crate::crash_points::crash_point("adopted");
        let source = Source::new(queue);
        // As the reader counted: done marks in batches that are repeated do not count.
        let waiting = source.reader.written().saturating_sub(source.reader.done_count());
        let text = format_args!(
            "adopted the queue of worker {}, which is gone: {waiting} messages",
            source.reader.owner_pid()
        );
        shared.lines.put(now, Level::Notice, "adopted", name, text);
        stats::add(&shared.stats.adopted_cnt, waiting);
        let forgotten = source.open_since_before(super::wall_ms() - NUMBERS_LAST);
        if forgotten > 0 {
            let text = format_args!(
                "{forgotten} messages that worker {} had sent, and that were logged more than a day ago, are sent again: \
                 brokers that have forgotten their numbers (producer.id.expiration.ms) may have them twice then",
                source.reader.owner_pid()
            );
            shared.lines.put(now, Level::Warn, "forgotten", name, text);
        }
        match free {
            Some(number) => self.all[number] = Some(source),
            None => self.all.push(Some(source)),
        }
    }
}
