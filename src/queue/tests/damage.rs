//! Files that are not as they should be: nothing in them may cause a panic or a read outside the mapping,
//! and what is whole before the damage is still given out.

use super::*;
use crate::protocol::record_batch::ProducerStamp;
use crate::queue::layout::Areas;
use crate::queue::segments::Entry;
use crate::record::Headers;
use proptest::prelude::*;
use std::fs;
use std::sync::LazyLock;

const RECORDS: usize = 40;
const DATA_OFFSET: usize = Areas::of(layout::MIN_DATA_LEN).data;

/// A dead worker's file with some records, some of them done.
fn orphan(scratch: &Scratch) -> PathBuf {
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, 1000, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("topic").unwrap();
    let mut headers = HeadersBuf::default();
    headers.push("name", Some(b"value"));
    let block = headers.into_block();
    for number in 0..RECORDS {
        let payload = vec![number as u8; number * 13];
        let mut record = Record::new(number as i64, Some(b"key"), Some(&payload));
        if number % 4 == 1 {
            record.headers = Headers::check(&block).unwrap();
            record.timestamp_ms -= 1;
        }
        writer.push(topic, 0, number as i64, &record, Flags::AWAITED).unwrap();
    }
    let taken = drain(&mut reader).unwrap();
    // Two batches are in flight, and of one of them a record is done.
    for (from, base_sequence) in [(4, 0), (10, 3)] {
        let stamp = ProducerStamp { producer_id: 3, epoch: 0, base_sequence };
        reader.stamp(0, stamp, false, taken[from..from + 3].iter().map(|slot| slot.0)).unwrap();
    }
    for index in [0, 1, 5, 9] {
        reader.done(taken[index].0);
    }
    reader.release();
    queue.path()
}

fn adopt_and_drain(scratch: &Scratch) -> Result<(Vec<Taken>, Option<Damage>), QueueError> {
    let queue = recovery::adopt(scratch.dir(), NAME, OWNER)?;
    let mut reader = Reader::new(&queue);
    let taken_of = |slot: &Slot<'_>| {
        let key = slot.record.key.map(<[u8]>::to_vec);
        (slot.position, slot.topic, key, slot.record.payload.unwrap_or_default().to_vec())
    };
    let mut taken = Vec::new();
    for position in reader.take_open_batches().into_iter().flat_map(|batch| batch.positions) {
        taken.push(taken_of(&reader.get(position).unwrap()));
    }
    let damage = loop {
        match reader.read() {
            Ok(Some(slot)) => taken.push(taken_of(&slot)),
            Ok(None) => break None,
            Err(damage) => {
                reader.abandon_rest();
                break Some(damage);
            }
        }
    };
    taken.sort();
    for slot in &taken {
        reader.topic(slot.1);
        reader.done(slot.0);
    }
    reader.release();
    Ok((taken, damage))
}

#[test]
fn an_orphan_gives_what_was_not_done_in_order() {
    let scratch = Scratch::new();
    orphan(&scratch);
    let (taken, damage) = adopt_and_drain(&scratch).unwrap();
    assert_eq!(damage, None);
    let left: Vec<usize> = (0..RECORDS).filter(|n| ![0, 1, 9].contains(n)).collect();
    // 5 was done, and is repeated with its batch.
    assert_eq!(taken.iter().map(|t| t.3.len() / 13).collect::<Vec<_>>(), left);
    let (taken, _) = adopt_and_drain(&scratch).unwrap();
    assert!(taken.is_empty(), "all were marked done");
}

#[test]
fn a_live_owner_s_file_and_a_second_adopter_are_refused() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let in_use = |result| matches!(result, Err(QueueError::InUse { .. }));
    assert!(in_use(recovery::adopt(scratch.dir(), NAME, OWNER).map(drop)));
    drop(queue);
    let adopted = recovery::adopt(scratch.dir(), NAME, OWNER).unwrap();
    assert!(in_use(recovery::adopt(scratch.dir(), NAME, OWNER).map(drop)));
    drop(adopted);
}

#[test]
fn a_header_that_is_not_ours_is_refused_with_a_reason() {
    let scratch = Scratch::new();
    let path = orphan(&scratch);
    let whole = fs::read(&path).unwrap();
    for (offset, reason) in [
        (0, "magic"),
        (8, "version"),
        (12, "byte order"),
        (16, "size"),
        (44, "segments"),
        (48, "another producer"),
    ] {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        let error = adopt_and_drain(&scratch).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    for len in [0, 100, DATA_OFFSET, DATA_OFFSET + 4096] {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(adopt_and_drain(&scratch).is_err(), "{len}");
    }
}

#[test]
fn positions_behind_which_sums_would_go_around_are_refused() {
    let scratch = Scratch::new();
    let path = orphan(&scratch);
    let mut bytes = fs::read(&path).unwrap();
    for (tail, is_refused) in [(u64::MAX - 7, true), (1 << 63, false)] {
        for (word, value) in [(0, tail), (128, tail - 4096)] {
            let at = layout::CURSORS_OFFSET + word;
            bytes[at..at + 8].copy_from_slice(&u64::to_ne_bytes(value));
        }
        fs::write(&path, &bytes).unwrap();
        let refused = adopt_and_drain(&scratch).err().map(|error| error.to_string());
        assert_eq!(refused.is_some_and(|error| error.contains("cursors")), is_refused, "{tail}");
    }
}

#[test]
fn a_link_a_second_name_and_a_directory_are_not_adopted() {
    let scratch = Scratch::new();
    let path = orphan(&scratch);
    fs::hard_link(&path, scratch.0.path().join("second")).unwrap();
    assert!(adopt_and_drain(&scratch).unwrap_err().to_string().contains("hard link"));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(scratch.0.path().join("second"), &path).unwrap();
    assert!(adopt_and_drain(&scratch).is_err());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(adopt_and_drain(&scratch).is_err());
}

#[test]
fn a_zeroed_page_costs_what_lies_behind_it_and_nothing_before() {
    let scratch = Scratch::new();
    let path = orphan(&scratch);
    let mut bytes = fs::read(&path).unwrap();
    bytes[DATA_OFFSET + 4096..DATA_OFFSET + 8192].fill(0);
    fs::write(&path, &bytes).unwrap();
    let (taken, damage) = adopt_and_drain(&scratch).unwrap();
    assert!(damage.is_some() && !taken.is_empty());
    assert!(taken.iter().all(|t| t.0 < 4096));
}

/// Reads a queue of 61 records of 1,000 bytes whose map says `entry` of segment `number`; returns how many
/// were whole, and why the next was not.
fn read_with_entry(number: u64, entry: Entry) -> (usize, &'static str) {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, 1000, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    for number in 0..61 {
        push(&mut writer, topic, 0, None, &[number; 1_000]).unwrap();
    }
    queue.map().set_entry(number, entry);
    let mut whole = 0;
    let damage = loop {
        match reader.read() {
            Ok(Some(slot)) => assert_eq!(slot.record.payload.unwrap(), [whole as u8; 1_000]),
            Ok(None) => return (whole, ""),
            Err(damage) => break damage,
        }
        whole += 1;
    };
    assert_eq!(damage.position, whole as u64 * 1_056);
    reader.abandon_rest();
    assert_eq!(reader.read(), Ok(None));
    reader.done(0);
    reader.release();
    (whole, damage.reason)
}

#[test]
fn a_map_that_lies_ends_the_queue_where_it_lies() {
    // Four records begin in the first segment; the last of them goes on into the second.
    for place in [0, 2, 15, 16, 17, 0x7fff] {
        let read = read_with_entry(1, Entry::At(place));
        assert_eq!(read, (3, "length beyond the end of its segments"));
    }
    for place in [16, 0x7fff] {
        assert_eq!(read_with_entry(0, Entry::At(place)), (0, "a segment outside the file"));
    }
    // Gone, with slots that go on far behind the end.
    assert_eq!(read_with_entry(0, Entry::Gone(0x7fff * 32)), (0, "goes on beyond the tail"));
    for place in [1, 15] {
        // What lies there is no slot of this position, whatever its bytes look like.
        let (whole, reason) = read_with_entry(0, Entry::At(place));
        assert!(whole == 0 && !reason.is_empty(), "{whole} {reason}");
    }
    assert_eq!(read_with_entry(1, Entry::At(1)), (61, ""));
}

#[test]
fn a_reader_goes_on_with_new_records_after_it_gave_up_damaged_ones() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, 3, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    push(&mut writer, topic, 0, None, b"whole").unwrap();
    let broken = writer.tail();
    push(&mut writer, topic, 0, None, b"broken").unwrap();
    // SAFETY: the slot lies inside the data area; nobody reads it at this moment.
    unsafe { queue.map().data().add(broken as usize).cast::<u32>().write(12) };
    let whole = reader.read().unwrap().unwrap().position;
    assert!(reader.read().is_err());
    assert_eq!(reader.abandon_rest(), writer.tail() - broken);
    push(&mut writer, topic, 0, None, b"new").unwrap();
    let new = reader.read().unwrap().unwrap();
    assert_eq!(new.record.payload.unwrap(), b"new");
    let new = new.position;
    reader.done(new);
    reader.release();
    assert_eq!(reader.head(), whole);
    reader.done(whole);
    reader.release();
    assert_eq!((reader.head(), queue.waiting()), (writer.tail(), 0));
    push(&mut writer, topic, 0, None, b"newer").unwrap();
}

/// What a map entry can be made to say.
fn hostile_place() -> impl Strategy<Value = u16> {
    prop_oneof![0..16u16, 16..20u16, any::<u16>()]
}

static ORPHAN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let scratch = Scratch::new();
    fs::read(orphan(&scratch)).unwrap()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]
    #[test]
    fn no_edit_of_a_file_causes_a_panic_or_a_wrong_payload(
        edits in proptest::collection::vec((0..DATA_OFFSET + 16_384, any::<u8>()), 1..8),
        places in proptest::collection::vec((0..8usize, hostile_place()), 0..3),
        near_cursors: bool,
    ) {
        let scratch = Scratch::new();
        let path = scratch.dir().path().join(NAME);
        let mut bytes = ORPHAN.clone();
        for (offset, byte) in edits {
            // Most of the file is empty: aim where something is.
            let offset = match (near_cursors, offset % 6) {
                (true, _) => layout::CURSORS_OFFSET + offset % 384,
                (false, 0) => offset % 192,
                (false, 1) => layout::TOPICS_OFFSET + offset % 16,
                (false, 2) => layout::DONE_OFFSET + offset % 96,
                (false, 3) => Areas::of(layout::MIN_DATA_LEN).log + offset % 192,
                (false, _) => DATA_OFFSET + offset % 16_384,
            };
            bytes[offset] = byte;
        }
        for (entry, place) in places {
            let at = layout::MAP_OFFSET + entry * 2;
            bytes[at..at + 2].copy_from_slice(&place.to_ne_bytes());
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok((taken, _)) = adopt_and_drain(&scratch) {
            for slot in taken {
                // A payload's own bytes are not guarded, its bounds are.
                prop_assert!(slot.3.len() % 13 == 0 && slot.3.len() / 13 < RECORDS);
            }
        }
    }
}
