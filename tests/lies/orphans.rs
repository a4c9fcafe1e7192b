//! Queue files that a worker finds when it starts: damaged, foreign, too old. What is whole arrives, the log says what
//! is not, and nothing is removed that a person may want to look at.

use super::case::Case;
use crate::support::broker::{Lie, Reply};
use lkfk::internals::protocol::header::ApiKey;
use lkfk::internals::protocol::record_batch::ProducerStamp;
use lkfk::internals::queue::layout::{Areas, NO_PARTITION};
use lkfk::internals::queue::{Flags, Owner, Queue, QueueDir, Reader, Writer};
use lkfk::internals::record::Record;
use std::os::unix::fs::{FileExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const RECORDS: usize = 10;
const DATA_LEN: u64 = 64 * 1024;
/// Whose the driver of a case is.
const OWNER: Owner<'static> = Owner { instance: "hostile", producer: "" };
const DAY_MS: i64 = 86_400_000;
/// Nobody.
const FOREIGN: u32 = 65_534;

fn payload(number: usize) -> Vec<u8> {
    format!("left {number}").into_bytes()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A dead worker's queue with records of this time, the first `sent` of which were sent in one batch. Returns its
/// path and the records' positions.
fn leave(queues: &Path, time_ms: i64, sent: usize) -> (PathBuf, Vec<u64>) {
    let dir = Arc::new(QueueDir::open(queues).unwrap());
    let queue = Queue::create(dir, OWNER, "dead", DATA_LEN, 0).unwrap();
    let mut writer = Writer::new(&queue, u64::MAX, 1000);
    let topic = writer.topic("t").unwrap();
    for number in 0..RECORDS {
        let payload = payload(number);
        let record = Record::new(time_ms, Some(&payload), Some(&payload));
        writer.push(topic, NO_PARTITION, time_ms, &record, Flags::NONE).unwrap();
    }
    let mut reader = Reader::new(&queue);
    let positions: Vec<u64> =
        std::iter::from_fn(|| reader.read().unwrap().map(|slot| slot.position)).collect();
    let numbers = ProducerStamp { producer_id: 5, epoch: 0, base_sequence: 0 };
    reader.stamp(0, numbers, false, positions.iter().copied().take(sent)).unwrap();
    (queue.path(), positions)
}

/// Whole records of the queue that [`leave_damaged`] makes.
const WHOLE: usize = 6;

fn leave_damaged(queues: &Path) {
    let (path, positions) = leave(queues, now_ms(), 0);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xff; 16], Areas::of(DATA_LEN).data as u64 + positions[WHOLE]).unwrap();
}

#[test]
fn rng_04_a_damaged_queue_gives_what_comes_before_the_damage_and_is_kept_aside() {
    let mut case = Case::after(Vec::new(), leave_damaged);
    (0..WHOLE).for_each(|number| case.expect(&payload(number)));
    case.wait_until("the whole ones", |case| case.broker.arrived().len() == WHOLE);
    case.wait_until("it is aside", |case| {
        case.queue_files().iter().any(|name| name == "hostile-dead.queue.damaged")
    });
    case.log(1);
    case.delivers().says("bytes of messages are lost");
}

#[test]
fn rng_04_a_damaged_queue_keeps_its_name_until_what_is_whole_is_safe() {
    let silent = Lie::bytes(ApiKey::Produce, |_| Reply::Nothing);
    let mut case = Case::after(vec![silent.times(usize::MAX)], leave_damaged);
    (0..WHOLE).for_each(|number| case.expect(&payload(number)));
    case.wait_until("the damage", |case| case.has_said("bytes of messages are lost"));
    case.log(1);
    case.wait_until("a request", |case| case.broker.connections() > 1);
    // Were this worker killed now, the next one would have to find it.
    assert!(case.queue_files().iter().any(|name| name == "hostile-dead.queue"));
    case.broker.tell_the_truth();
    case.wait_until("it is aside", |case| {
        case.queue_files().iter().any(|name| name == "hostile-dead.queue.damaged")
    });
    case.delivers();
}

#[test]
fn rng_04_a_damaged_queue_that_somebody_removes_is_let_go_of() {
    let silent = Lie::bytes(ApiKey::Produce, |_| Reply::Nothing);
    let mut path = PathBuf::new();
    let mut case = Case::after(vec![silent.times(usize::MAX)], |queues| {
        leave_damaged(queues);
        path = QueueDir::path_below(queues).join("hostile-dead.queue");
    });
    (0..WHOLE).for_each(|number| case.expect(&payload(number)));
    case.wait_until("the damage", |case| case.has_said("bytes of messages are lost"));
    std::fs::remove_file(path).unwrap();
    case.broker.tell_the_truth();
    case.log(1);
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains("hostile-dead");
    case.wait_until("it is unmapped", |_| !mapped());
    case.delivers();
}

#[test]
fn rng_04_a_file_that_is_no_queue_is_left_where_it_is() {
    for content in [vec![], b"no queue".to_vec(), vec![7; 200_000]] {
        let mut case = Case::after(Vec::new(), |queues| {
            let below = leave(queues, now_ms(), 0).0;
            std::fs::write(below, &content).unwrap();
        });
        case.log(1);
        case.wait_until("it was looked at", |case| case.broker.arrived().len() == 1);
        assert!(case.queue_files().iter().any(|name| name == "hostile-dead.queue"));
        case.delivers().says("a dead worker's queue is left as it is");
    }
}

#[test]
fn rng_03_a_queue_of_another_user_is_not_touched() {
    let mut chowned = true;
    let mut case = Case::after(Vec::new(), |queues| {
        let path = leave(queues, now_ms(), 0).0;
        // Who is not root cannot give a file away: then it is adopted.
        chowned = chown(path, Some(FOREIGN), None).is_ok();
    });
    if !chowned {
        (0..RECORDS).for_each(|number| case.expect(&payload(number)));
    }
    case.log(1);
    let seen = case.delivers();
    assert_eq!(seen.lines.iter().any(|line| line.contains("belongs to another user")), chowned);
}

#[test]
fn idm_09_batches_that_were_sent_more_than_a_day_ago_are_repeated_and_the_log_says_so() {
    for (age, said) in [(DAY_MS + 60_000, true), (DAY_MS / 2, false)] {
        let mut case = Case::after(Vec::new(), |queues| drop(leave(queues, now_ms() - age, 4)));
        (0..RECORDS).for_each(|number| case.expect(&payload(number)));
        case.wait_until("all arrived", |case| case.broker.arrived().len() == RECORDS);
        case.log(1);
        let seen = case.delivers();
        let line = seen.lines.iter().find(|line| line.contains("producer.id.expiration.ms"));
        assert_eq!(line.is_some_and(|line| line.starts_with("4 messages")), said, "{line:?}");
    }
}
