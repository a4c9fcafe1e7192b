//! Random actions on the real queue and on a plain model of it, in lock-step. Each sequence also kills the
//! owner now and then: both ends are dropped and the file is adopted.

use super::*;
use crate::seeded_bug::{self, Bug};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
enum Action {
    Push {
        key: Option<Vec<u8>>,
        len: usize,
    },
    Read,
    /// Marks the n-th of the records that were read and are not done.
    Done(usize),
    Release,
    /// The process dies; another one adopts the file and then owns it.
    Die,
}

fn action() -> impl Strategy<Value = Action> {
    let key = proptest::option::of(vec(any::<u8>(), 0..20));
    prop_oneof![
        8 => (key, prop_oneof![0..50usize, 0..20_000usize])
            .prop_map(|(key, len)| Action::Push { key, len }),
        6 => Just(Action::Read),
        6 => (0..8usize).prop_map(Action::Done),
        3 => Just(Action::Release),
        1 => Just(Action::Die),
    ]
}

#[derive(Clone, PartialEq)]
struct Record {
    number: i64,
    key: Option<Vec<u8>>,
    payload: Vec<u8>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {} of {} bytes", self.number, self.payload.len())
    }
}

const MAX_MESSAGES: u64 = 12;

/// The queue as one would write it without files, wrap-around or sharing.
#[derive(Default)]
struct Model {
    unread: VecDeque<Record>,
    read: Vec<(u64, Record)>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn the_queue_does_what_the_model_does(actions in vec(action(), 1..300)) {
        follow(actions)?;
    }
}

#[test]
fn a_slot_that_is_freed_early_is_found() {
    seeded_bug::seed(Some(Bug::FreeSlotEarly));
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    });
    let found = runner.run(&vec(action(), 1..300), follow);
    seeded_bug::seed(None);
    assert!(found.is_err());
}

fn follow(actions: Vec<Action>) -> Result<(), TestCaseError> {
    let scratch = Scratch::new();
    let dir = scratch.dir();
    let mut queue = scratch.queue();
    let mut writer = Writer::new(&queue, MAX_MESSAGES, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let mut model = Model::default();
    let mut number = 0;
    for action in actions {
        match action {
            Action::Push { key, len } => {
                let payload = vec![number as u8; len];
                let result = push(&mut writer, topic, number, key.as_deref(), &payload);
                let waiting = (model.unread.len() + model.read.len()) as u64;
                match result {
                    Ok(_) => {
                        prop_assert!(waiting < MAX_MESSAGES);
                        model.unread.push_back(Record { number, key, payload });
                    }
                    Err(PushError::TooLarge) => prop_assert!(len > 16_000),
                    Err(PushError::TooManyMessages) => prop_assert_eq!(waiting, MAX_MESSAGES),
                    Err(PushError::NoSpace) => {
                        prop_assert!(waiting > 0);
                        // Small ones find room while there is a segment that holds nothing; what is
                        // in use of the first and of the last one may be next to nothing.
                        let segment_len = queue.map().division().segment_len();
                        if (len + 100) as u64 <= segment_len {
                            let used = writer.bytes_in_use();
                            prop_assert!(used > reader.capacity() - 2 * segment_len, "{}", used);
                        }
                    }
                    Err(other) => prop_assert!(false, "{}", other),
                }
                number += 1;
            }
            Action::Read => {
                let got = reader.read().unwrap().map(|slot| {
                    (
                        slot.position,
                        Record {
                            number: slot.logged_ms,
                            key: slot.record.key.map(<[u8]>::to_vec),
                            payload: slot.record.payload.unwrap().to_vec(),
                        },
                    )
                });
                let expected = model.unread.pop_front();
                prop_assert_eq!(got.as_ref().map(|(_, record)| record), expected.as_ref());
                model.read.extend(got);
            }
            Action::Done(index) => {
                if index < model.read.len() {
                    let (position, _) = model.read.remove(index);
                    reader.done(position);
                    // As the driver does each turn: the model counts a record as gone at once.
                    reader.release();
                }
            }
            Action::Release => reader.release(),
            Action::Die => {
                drop((writer, reader, queue));
                queue = recovery::adopt(dir.clone(), NAME, OWNER).unwrap();
                writer = Writer::new(&queue, MAX_MESSAGES, 1 << 20);
                writer.take_over(Reader::new(&queue));
                reader = Reader::new(&queue);
                // What was read and not done is read again, before the rest.
                for (_, record) in std::mem::take(&mut model.read).into_iter().rev() {
                    model.unread.push_front(record);
                }
            }
        }
        for (position, record) in &model.read {
            let slot = reader.get(*position).unwrap();
            prop_assert_eq!(slot.record.payload.unwrap(), &record.payload[..]);
            prop_assert_eq!(slot.logged_ms, record.number);
        }
        let waiting = (model.unread.len() + model.read.len()) as u64;
        prop_assert_eq!(queue.waiting(), waiting);
    }
    Ok(())
}
