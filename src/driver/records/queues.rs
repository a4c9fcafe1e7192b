//! The queues that a producer reads: the worker's own, and those that dead workers left behind.

use super::super::context::Context;
use super::super::report::queue::{AdoptionReport, QueueReport};
use super::name::{self, ADOPTED, OWN};
use crate::producer::{RecordId, TopicId};
use crate::protocol::record_batch::ProducerStamp;
use crate::queue::stamps::OpenBatch;
use crate::queue::{Damage, NoRoom, Queue, Reader, Slot};
use std::sync::Arc;

/// One queue and how far it was read.
pub(in crate::driver) struct QueueSource {
    pub queue: Arc<Queue>,
    pub reader: Reader,
    /// The queue's topic ids to the producer's.
    pub topics: Vec<TopicId>,
    /// What was sent from it before, and is to be repeated as it was.
    pub open_batches: Vec<OpenBatch>,
    damaged: bool,
}

impl QueueSource {
    pub fn new(queue: Arc<Queue>) -> QueueSource {
        let mut reader = Reader::new(&queue);
        let open_batches = reader.take_open_batches();
        QueueSource { reader, queue, open_batches, topics: Vec::new(), damaged: false }
    }

    /// Records that wait, as the reader counts them: done marks in batches that are repeated do not count.
    pub fn waiting(&self) -> u64 {
        self.reader.written().saturating_sub(self.reader.done_count())
    }

    /// Records of open batches that were logged before this time, in milliseconds since 1970.
    pub fn open_since_before(&self, ms: i64) -> usize {
        let positions = self.open_batches.iter().flat_map(|batch| &batch.positions);
        positions
            .filter(|position| self.reader.get(**position).is_ok_and(|slot| slot.logged_ms < ms))
            .count()
    }
}

/// All queues, by their numbers.
pub(in crate::driver) struct Queues {
    all: Vec<Option<QueueSource>>,
}

impl Queues {
    pub fn new(own: Arc<Queue>) -> Queues {
        Queues { all: vec![Some(QueueSource::new(own))] }
    }

    /// The worker's own queue.
    pub fn own(&self) -> &QueueSource {
        self.all[OWN].as_ref().expect("the own queue is never dropped")
    }

    /// Numbers of all queues, adopted ones first: their records are older.
    pub fn numbers(&self) -> impl DoubleEndedIterator<Item = usize> + use<> {
        (0..self.all.len()).rev()
    }

    /// The queue of this number, if there is one.
    pub fn source(&mut self, number: usize) -> Option<&mut QueueSource> {
        self.all.get_mut(number)?.as_mut()
    }

    /// Whether another dead worker's queue may be taken.
    pub fn has_room(&self) -> bool {
        self.all.len() <= ADOPTED || self.all.iter().any(Option::is_none)
    }

    /// Takes a dead worker's queue, for which there [is room](Self::has_room).
    pub fn add(&mut self, source: QueueSource) {
        match self.all.iter().position(Option::is_none) {
            Some(number) => self.all[number] = Some(source),
            None => self.all.push(Some(source)),
        }
    }

    /// Lets go of the readers, and hands the queues out: the worker's own first.
    pub fn into_queues(self) -> Vec<Arc<Queue>> {
        self.all.into_iter().flatten().map(|source| source.queue).collect()
    }

    /// The reader of the queue that a record lies in, and where.
    fn place(&mut self, id: RecordId) -> Option<(&mut Reader, u64)> {
        let reader = &mut self.source(name::queue(id))?.reader;
        let position = name::position(id, reader.head());
        Some((reader, position))
    }

    /// A record that was handed out and is not done.
    pub fn get(&self, id: RecordId) -> Result<Slot<'_>, Damage> {
        match self.all.get(name::queue(id)) {
            Some(Some(source)) => source.reader.get(name::position(id, source.reader.head())),
            _ => Err(Damage { position: id.0, reason: "its queue is gone" }),
        }
    }

    /// A record that the producer holds: it is not done, so that its slot is as it was when it was read. If it is not,
    /// the file was damaged under us: the producer starts over from the queue, which reports it.
    pub fn in_use(&self, id: RecordId) -> Slot<'_> {
        self.get(id).expect("a slot in use is whole")
    }

    /// Says that a record's header and the first `len` bytes behind it will be looked at soon.
    #[inline]
    pub fn prefetch(&self, id: RecordId, len: usize) {
        if let Some(Some(source)) = self.all.get(name::queue(id)) {
            source.reader.prefetch(name::position(id, source.reader.head()), len);
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
        is_part: bool,
        ids: impl Iterator<Item = RecordId> + Clone,
    ) -> Result<(), NoRoom> {
        let Some(first) = ids.clone().next() else { return Ok(()) };
        let Some((reader, _)) = self.place(first) else { return Ok(()) };
        let head = reader.head();
        reader.stamp(partition, stamp, is_part, ids.map(|id| name::position(id, head)))
    }

    /// Writes down that a record is known not to be in the log.
    pub fn unstamp(&mut self, id: RecordId) {
        if let Some((reader, position)) = self.place(id) {
            reader.unstamp(position);
        }
    }

    /// Marks a record done.
    pub fn done(&mut self, id: RecordId) {
        if let Some((reader, position)) = self.place(id) {
            reader.done(position);
        }
    }

    /// A message's topic is not in the queue's table: the message is lost, and the file kept.
    pub fn lose(&mut self, id: RecordId) {
        if let Some(source) = self.source(name::queue(id)) {
            source.damaged = true;
        }
        self.done(id);
    }

    /// Abandons what is left of a damaged queue; returns how many bytes that was.
    pub fn abandon_rest(&mut self, number: usize) -> u64 {
        let Some(source) = self.source(number) else { return 0 };
        source.damaged = true;
        source.reader.abandon_rest()
    }

    /// Gives the space of done records back, and adopted files that are done with to the file system.
    pub fn release(&mut self, cx: &Context<'_>) {
        for (number, place) in self.all.iter_mut().enumerate() {
            let Some(source) = place else { continue };
            if number != OWN && source.damaged {
                if source.reader.is_through() && keep_aside(cx, source) {
                    *place = None;
                }
                continue;
            }
            source.reader.release();
            if number == OWN || source.reader.head() < source.reader.tail() {
                continue;
            }
            crate::crash_points::crash_point("adopted file to be removed");
            if let Err(error) = source.queue.remove() {
                cx.report(&QueueReport::Adoption(AdoptionReport::NotRemoved { error: &error }));
            }
            *place = None;
        }
    }
}

/// Gives a damaged file its other name; false when it is to be tried again. Until then the file has its own name, so
/// that whoever goes on in our place finds the damage again.
fn keep_aside(cx: &Context<'_>, source: &QueueSource) -> bool {
    match source.queue.keep_aside() {
        Ok(()) => true,
        // Somebody has removed it, or has renamed it himself.
        Err(_) if !source.queue.is_named() => true,
        Err(error) => {
            cx.report(&QueueReport::Adoption(AdoptionReport::NotKeptAside { error: &error }));
            false
        }
    }
}
