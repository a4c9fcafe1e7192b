//! Queues where no queue file is mapped: in memory without a name, written to a file by who exits and read into memory
//! by who adopts it.

use super::*;
use crate::protocol::record_batch::ProducerStamp;
use std::os::unix::fs::MetadataExt;

const LOTS: u64 = 1_000_000;
const STAMP: ProducerStamp = ProducerStamp { producer_id: 7, epoch: 0, base_sequence: 40 };

fn unfit(scratch: &Scratch) -> Arc<QueueDir> {
    Arc::new(QueueDir::open_unfit(scratch.0.path()).unwrap())
}

/// A queue in memory with some records, the first of which are on record as sent.
fn filled(dir: Arc<QueueDir>) -> Queue {
    let queue = Queue::anonymous(dir, OWNER, 1 << 20, 0).unwrap();
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    for n in 0..500_u32 {
        push(&mut writer, topic, i64::from(n), Some(b"key"), &n.to_be_bytes().repeat(100)).unwrap();
    }
    let sent: Vec<u64> = (0..3).map(|_| reader.read().unwrap().unwrap().position).collect();
    reader.stamp(1, STAMP, false, sent).unwrap();
    queue
}

/// What an adopter finds: the numbers of all records, and how many of them were sent.
fn found(queue: &Queue) -> (Vec<u32>, usize) {
    let mut reader = Reader::new(queue);
    let open = reader.take_open_batches();
    assert!(open.iter().all(|batch| batch.stamp == STAMP && batch.partition == 1));
    let mut positions: Vec<u64> = open.iter().flat_map(|batch| batch.positions.clone()).collect();
    let sent = positions.len();
    while let Some(slot) = reader.read().unwrap() {
        positions.push(slot.position);
    }
    let number = |position: &u64| {
        let payload = reader.get(*position).unwrap().record.payload.unwrap();
        assert_eq!(payload.len(), 400);
        u32::from_be_bytes(payload[..4].try_into().unwrap())
    };
    (positions.iter().map(number).collect(), sent)
}

#[test]
fn flt_04_no_queue_file_is_made_where_a_full_disk_could_end_the_worker() {
    let scratch = Scratch::new();
    let dir = unfit(&scratch);
    let error = Queue::create(dir.clone(), OWNER, "1", layout::MIN_DATA_LEN, 0).err().unwrap();
    assert!(error.to_string().contains("lies on btrfs, where a queue file is not safe"), "{error}");
    let queue = filled(dir.clone());
    assert!(queue.is_anonymous() && !queue.is_named());
    assert_eq!(queue.path().to_str(), Some("(memory)"));
    assert!(queue.fate().to_string().starts_with("lost"));
    queue.remove().unwrap();
    assert_eq!(found(&queue).0, (0..500).collect::<Vec<_>>());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn flt_04_a_copy_is_adopted_with_its_stamps_on_any_file_system() {
    for is_fit in [true, false] {
        let scratch = Scratch::new();
        let dir = if is_fit { scratch.dir() } else { unfit(&scratch) };
        let path = filled(dir.clone()).write_to(&dir, OWNER, "1").unwrap();
        assert_eq!(recovery::list(&dir, "q").unwrap(), [NAME]);
        let adopted = recovery::adopt(dir.clone(), NAME, OWNER).unwrap();
        assert_eq!(adopted.path(), path);
        assert_eq!(found(&adopted), ((0..500).collect(), 3));
        let in_use = recovery::adopt(dir.clone(), NAME, OWNER).err().unwrap();
        assert!(matches!(in_use, QueueError::InUse { .. }), "{in_use}");
        assert_eq!(adopted.is_mapped_in(dir.path()), is_fit);
        adopted.remove().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn flt_04_what_was_read_into_memory_does_not_hang_on_its_file_and_marks_nothing_in_it() {
    let scratch = Scratch::new();
    let dir = unfit(&scratch);
    let path = filled(dir.clone()).write_to(&dir, OWNER, "1").unwrap();
    let before = std::fs::read(&path).unwrap();
    let adopted = recovery::adopt(dir.clone(), NAME, OWNER).unwrap();
    let mut reader = Reader::new(&adopted);
    let first = reader.take_open_batches()[0].positions.clone();
    first.iter().for_each(|position| reader.done(*position));
    reader.release();
    assert!(std::fs::read(&path).unwrap() == before);
    // Of a mapped one whatever is touched now would be a SIGBUS.
    std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    assert_eq!(found(&adopted).0, (3..500).collect::<Vec<_>>());
}

#[test]
fn flt_04_a_copy_for_which_there_is_no_room_or_no_name_leaves_nothing() {
    let scratch = Scratch::new();
    let dir = unfit(&scratch);
    std::fs::write(dir.path().join(NAME), "another's").unwrap();
    let error = filled(dir.clone()).write_to(&dir, OWNER, "1").err().unwrap();
    assert!(error.to_string().contains("cannot rename"), "{error}");
    assert_eq!(recovery::list(&dir, "q").unwrap(), [NAME]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn flt_04_holes_and_zeros_take_no_memory_in_a_copy() {
    let scratch = Scratch::new();
    let dir = unfit(&scratch);
    let path = filled(dir.clone()).write_to(&dir, OWNER, "1").unwrap();
    let metadata = std::fs::metadata(path).unwrap();
    assert!(metadata.len() > 1 << 20);
    // 500 slots of 448 bytes, and what the header has.
    assert!(metadata.blocks() * 512 < 500 * 448 + 64 * 1024, "{}", metadata.blocks() * 512);
}
