//! What the producer is told of a record, wherever it comes from.

use crate::producer::{self, RecordId, Time, partitioner};
use crate::protocol::message_set::message_size_bound;
use crate::record::Record;

/// What the producer is to know of a record. A partition that somebody chose is still to be named.
pub(in crate::driver) fn new_record(
    send_key: bool,
    id: RecordId,
    born: Time,
    record: Record<'_>,
) -> producer::Record {
    producer::Record {
        id,
        partition: None,
        key_hash: record.key.map(partitioner::key_hash),
        bytes: size_bound(&on_the_wire(send_key, record)) as u32,
        born,
    }
}

/// The record as it goes on the wire: a key that is not sent has served to choose the partition.
pub(in crate::driver) fn on_the_wire(send_key: bool, record: Record<'_>) -> Record<'_> {
    Record { key: record.key.filter(|_| send_key), ..record }
}

/// Upper bound of what a record takes in a request. Which version that will be is not known when a record comes; a
/// message set takes more than a batch, which alone has headers.
fn size_bound(record: &Record<'_>) -> usize {
    message_size_bound(record) + record.headers.block().len()
}
