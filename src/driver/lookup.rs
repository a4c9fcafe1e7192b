//! Looks records up wherever they lie: in a queue, or in the chunk of backup lines that is sent again.

use super::records::queues::Queues;
use super::undelivered::replay::Replay;
use crate::producer::RecordId;
use crate::record::Record;

#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    pub queues: &'a Queues,
    pub replay: &'a Replay,
}

impl<'a> Records<'a> {
    /// A record that the producer holds; see [`Queues::in_use`].
    pub fn in_use(self, id: RecordId) -> Record<'a> {
        self.replay.get(id).unwrap_or_else(|| self.queues.in_use(id).record)
    }

    /// Says that a record's header and the first `len` bytes behind it will be looked at soon.
    #[inline]
    pub fn prefetch(self, id: RecordId, len: usize) {
        self.queues.prefetch(id, len);
    }
}
