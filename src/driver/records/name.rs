//! Names of records: which queue a record lies in, and where. Lines of a backup file that are sent again have a number
//! of their own, which no queue has.

use crate::producer::RecordId;

/// Files of dead workers that are read at a time; the others wait their turn.
pub(in crate::driver) const ADOPTED: usize = 16;
/// Number of the worker's own queue.
pub(in crate::driver) const OWN: usize = 0;
/// Number of the backup lines that are sent again.
const REPLAY: usize = ADOPTED + 1;

/// Positions may be larger than a record's name has bits for them: what counts is where they lie ahead of the
/// file's head, which is less than the file is long.
const POSITION_MASK: u64 = (1 << RecordId::POSITION_BITS) - 1;

/// Name of the record at `position` of queue `number`.
pub(in crate::driver) fn of_slot(number: usize, position: u64) -> RecordId {
    RecordId((number as u64) << RecordId::POSITION_BITS | (position & POSITION_MASK))
}

/// Name of a backup line that is sent again, given its number among all of them.
pub(in crate::driver) fn of_line(line: u64) -> RecordId {
    of_slot(REPLAY, line)
}

/// Number of the queue that the record lies in.
pub(in crate::driver) fn queue(id: RecordId) -> usize {
    usize::from(id.queue())
}

/// True for a record of the worker's own queue.
pub(in crate::driver) fn is_own(id: RecordId) -> bool {
    queue(id) == OWN
}

/// Which line this is, counted from the line `first`, when it is a backup line that is sent again.
pub(in crate::driver) fn line_after(id: RecordId, first: u64) -> Option<usize> {
    let line = (id.0 & POSITION_MASK).wrapping_sub(first) & POSITION_MASK;
    (queue(id) == REPLAY).then_some(line as usize)
}

/// Position of the record in its queue, given that queue's head.
pub(in crate::driver) fn position(id: RecordId, head: u64) -> u64 {
    head + (id.0.wrapping_sub(head) & POSITION_MASK)
}
