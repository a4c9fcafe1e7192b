//! A file that lkfk 0.1 made, and whose worker was killed, is adopted. It was captured from that version: 13 records
//! in 16 segments of 4 KiB.
//!
//! Records 1, 2, 3 and 4, 5, 6 were sent as batches of topic "a" that have no answer; 2 and 4 are marked done all the
//! same. 8 and 9, of topic "b", were a batch that is done. 0, 7 and 10 are done. Records 4 and 7 reach over several
//! segments, and a segment within record 7 was given back. 11 has a null key, and 12 was logged for partition 6.

use super::*;
use crate::protocol::record_batch::ProducerStamp;
use crate::queue::layout::v2;
use crate::queue::stamps::OpenBatch;

/// The bytes of the file that are not zero: offset, length (both u32, little-endian) and bytes of each run.
const RUNS: &[u8] = include_bytes!("version_2.runs");
const V2_NAME: &str = "instance-123-abc.queue";
const V2_OWNER: Owner<'static> = Owner { instance: "instance", producer: "" };
const POSITIONS: [u64; 13] =
    [0, 80, 160, 240, 320, 6392, 6472, 6552, 15624, 15704, 15784, 15864, 15944];
const LOGGED_MS: i64 = 1_760_000_000_000;

fn captured() -> Vec<u8> {
    let mut bytes = vec![0; v2::DATA_OFFSET + layout::MIN_DATA_LEN as usize];
    let mut runs = RUNS;
    while !runs.is_empty() {
        let number = |at: usize| u32::from_le_bytes(runs[at..at + 4].try_into().unwrap()) as usize;
        let (offset, len) = (number(0), number(4));
        bytes[offset..offset + len].copy_from_slice(&runs[8..8 + len]);
        runs = &runs[8 + len..];
    }
    bytes
}

fn left_behind() -> Scratch {
    let scratch = Scratch::new();
    std::fs::write(scratch.dir().path().join(V2_NAME), captured()).unwrap();
    scratch
}

fn adopt(scratch: &Scratch) -> Queue {
    recovery::adopt(scratch.dir(), V2_NAME, V2_OWNER).unwrap()
}

fn number(slot: &Slot<'_>) -> usize {
    let payload = slot.record.payload.unwrap();
    let text = payload.strip_prefix(b"record ").unwrap();
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).unwrap().parse().unwrap()
}

fn batch(indices: [usize; 3], base_sequence: i32) -> OpenBatch {
    let stamp = ProducerStamp { producer_id: 7, epoch: 2, base_sequence };
    let positions = indices.iter().map(|index| POSITIONS[*index]).collect();
    OpenBatch { topic: 0, partition: 3, stamp, is_part: false, positions }
}

fn read(reader: &mut Reader) -> Vec<usize> {
    std::iter::from_fn(|| reader.read().unwrap().map(|slot| number(&slot))).collect()
}

#[test]
fn a_file_of_version_2_is_adopted_with_its_batches_and_marks() {
    let scratch = left_behind();
    assert_eq!(recovery::list(&scratch.dir(), "instance").unwrap(), [V2_NAME]);
    let queue = adopt(&scratch);
    let mut reader = Reader::new(&queue);
    assert_eq!(reader.take_open_batches(), [batch([1, 2, 3], 40), batch([4, 5, 6], 43)]);
    for (index, len) in [(2, 10), (4, 6_000), (6, 10)] {
        let slot = reader.get(POSITIONS[index]).unwrap();
        assert_eq!((number(&slot), slot.record.payload.unwrap().len()), (index, len));
        assert_eq!(slot.record.key, Some(format!("key {index}").as_bytes()));
        assert_eq!(
            (slot.logged_ms, slot.record.timestamp_ms),
            (LOGGED_MS + index as i64, slot.logged_ms)
        );
        assert_eq!((slot.flags, slot.partition), (Flags::NONE, 3));
    }
    let slot = reader.read().unwrap().unwrap();
    assert_eq!((number(&slot), slot.record.key, slot.topic), (11, None, 1));
    assert_eq!(reader.read().unwrap().map(|slot| (number(&slot), slot.partition)), Some((12, 6)));
    assert_eq!(reader.read(), Ok(None));
    assert_eq!(reader.read_count(), Some(13));
    assert_eq!(reader.topic(0), Some("a"));
    assert_eq!(reader.topic(1), Some("b"));
    reader.release();
    assert_eq!((queue.waiting(), reader.head()), (8, POSITIONS[1]));
    for index in [1, 2, 3, 4, 5, 6, 11, 12] {
        reader.done(POSITIONS[index]);
    }
    reader.release();
    assert_eq!((queue.waiting(), reader.head()), (0, reader.tail()));
}

#[test]
fn what_an_adopter_does_to_a_file_of_version_2_the_next_one_finds() {
    let scratch = left_behind();
    let queue = adopt(&scratch);
    let mut reader = Reader::new(&queue);
    reader.take_open_batches();
    assert_eq!(read(&mut reader), [11, 12]);
    // The first batch is done, of the second a part; it was refused for good in the meantime, and 11 and 12 were sent.
    [1, 2, 3].iter().for_each(|index| reader.done(POSITIONS[*index]));
    reader.release();
    [4, 5, 6].iter().for_each(|index| reader.unstamp(POSITIONS[*index]));
    reader.done(POSITIONS[4]);
    reader.assign(POSITIONS[5], 9);
    let stamp = ProducerStamp { producer_id: 8, epoch: 0, base_sequence: 70 };
    for _ in 0..2 {
        reader.stamp(1, stamp, false, [POSITIONS[11], POSITIONS[12]]).unwrap();
    }
    drop((reader, queue));

    let queue = adopt(&scratch);
    let mut reader = Reader::new(&queue);
    let positions = vec![POSITIONS[11], POSITIONS[12]];
    assert_eq!(
        reader.take_open_batches(),
        [OpenBatch { topic: 1, partition: 1, stamp, is_part: false, positions }]
    );
    let slot = reader.read().unwrap().unwrap();
    assert_eq!((number(&slot), slot.partition), (5, 9));
    assert_eq!(read(&mut reader), [6]);
    assert!(std::fs::read(queue.path()).unwrap()[8..12] == v2::VERSION.to_ne_bytes());
}

#[test]
fn files_of_version_2_are_the_default_producer_s() {
    let scratch = left_behind();
    for other in
        [Owner { producer: "named", ..V2_OWNER }, Owner { instance: "instance-123", ..V2_OWNER }]
    {
        let refused = recovery::adopt(scratch.dir(), V2_NAME, other).err().unwrap();
        assert!(matches!(refused, QueueError::OfAnotherOwner { .. }), "{refused}");
    }
}

#[test]
fn an_edit_of_a_file_of_version_2_ends_it_where_it_is() {
    let scratch = Scratch::new();
    let path = scratch.dir().path().join(V2_NAME);
    let whole = captured();
    for offset in (0..64)
        .chain(layout::CURSORS_OFFSET..layout::CURSORS_OFFSET + 384)
        .chain(v2::MAP_OFFSET..v2::MAP_OFFSET + 16)
        .chain(v2::DATA_OFFSET..v2::DATA_OFFSET + 400)
        .chain(v2::DATA_OFFSET + 6_392..v2::DATA_OFFSET + 6_600)
    {
        for edit in [0, 0x41, 0xff] {
            let mut bytes = whole.clone();
            bytes[offset] ^= edit;
            std::fs::write(&path, &bytes).unwrap();
            let Ok(queue) = recovery::adopt(scratch.dir(), V2_NAME, V2_OWNER) else { continue };
            let mut reader = Reader::new(&queue);
            let open = reader.take_open_batches();
            let mut taken: Vec<u64> =
                open.iter().flat_map(|batch| batch.positions.clone()).collect();
            loop {
                match reader.read() {
                    Ok(Some(slot)) => taken.push(slot.position),
                    Ok(None) => break,
                    Err(_) => drop(reader.abandon_rest()),
                }
            }
            for position in taken {
                assert!(
                    reader
                        .get(position)
                        .is_ok_and(|slot| slot.record.payload.unwrap().len() <= 9_000)
                );
                reader.assign(position, 1);
                reader.done(position);
            }
            reader.release();
            assert_eq!(reader.head(), reader.tail(), "{offset}");
        }
    }
}
