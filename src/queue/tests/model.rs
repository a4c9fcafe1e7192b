//! Random actions on the real queue and on a plain model of it, in lock-step. Each sequence also kills the
//! owner now and then: both ends are dropped and the file is adopted.

use super::*;
use crate::record::Headers;
use crate::seeded_bug::{self, Bug};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
enum Action {
    Push(Message),
    Read,
    /// Marks the n-th of the records that were read and are not done.
    Done(usize),
    Release,
    /// The driver provides memory, so many milliseconds after the last time.
    Provide(u64),
    /// The process dies; another one adopts the file and then owns it.
    Die,
}

/// What is logged, and `number`, which is the time of it.
#[derive(Clone, PartialEq)]
struct Message {
    number: i64,
    key: Option<Vec<u8>>,
    /// How far the time of the record is from when it was logged.
    own_time: i64,
    headers: Vec<u8>,
    payload: Option<Vec<u8>>,
    flags: Flags,
    partition: i32,
}

impl Message {
    fn record(&self) -> Record<'_> {
        Record {
            timestamp_ms: self.number + self.own_time,
            key: self.key.as_deref(),
            headers: Headers::check(&self.headers).unwrap(),
            payload: self.payload.as_deref(),
        }
    }

    fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + self.headers.len() + len(&self.payload)
    }

    /// What the queue gives back.
    fn of(slot: &Slot<'_>) -> Message {
        Message {
            number: slot.logged_ms,
            key: slot.record.key.map(<[u8]>::to_vec),
            own_time: slot.record.timestamp_ms - slot.logged_ms,
            headers: slot.record.headers.block().to_vec(),
            payload: slot.record.payload.map(<[u8]>::to_vec),
            flags: slot.flags,
            partition: slot.partition,
        }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message {} of {} bytes", self.number, self.bytes())
    }
}

fn headers() -> impl Strategy<Value = Vec<u8>> {
    let header = ("[a-z]{0,5}", proptest::option::of(vec(any::<u8>(), 0..9)));
    vec(header, 0..3).prop_map(|all| {
        let mut headers = HeadersBuf::default();
        all.iter().for_each(|(name, value)| headers.push(name, value.as_deref()));
        headers.into_block()
    })
}

fn message() -> impl Strategy<Value = Message> {
    let key = proptest::option::of(vec(any::<u8>(), 0..20));
    let payload = proptest::option::weighted(
        0.9,
        (any::<u8>(), prop_oneof![3 => 0..50usize, 3 => 0..20_000usize, 1 => 0..300_000usize])
            .prop_map(|(byte, len)| vec![byte; len]),
    );
    let own_time = prop_oneof![3 => Just(0), 1 => -9..9i64];
    let flags = prop_oneof![
        Just(Flags::NONE),
        Just(Flags::NO_LINGER),
        Just(Flags::AWAITED),
        Just(Flags::NO_LINGER | Flags::AWAITED)
    ];
    let headers = prop_oneof![2 => Just(Vec::new()), 1 => headers()];
    (key, own_time, headers, payload, flags, -2..9i32).prop_map(
        |(key, own_time, headers, payload, flags, partition)| Message {
            number: 0,
            key,
            own_time,
            headers,
            payload,
            flags,
            partition,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => message().prop_map(Action::Push),
        6 => Just(Action::Read),
        6 => (0..8usize).prop_map(Action::Done),
        3 => Just(Action::Release),
        2 => prop_oneof![0..100u64, 9_000..30_000u64].prop_map(Action::Provide),
        1 => Just(Action::Die),
    ]
}

/// Bytes of the data area: the smallest, which is always wholly in memory, or one that grows and shrinks.
fn data_len() -> impl Strategy<Value = u64> {
    prop_oneof![Just(layout::MIN_DATA_LEN), Just(1 << 20)]
}

const MAX_MESSAGES: u64 = 12;

/// The queue as one would write it without files, wrap-around or sharing.
#[derive(Default)]
struct Model {
    unread: VecDeque<Message>,
    read: Vec<(u64, Message)>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn the_queue_does_what_the_model_does(
        data_len in data_len(),
        actions in vec(action(), 1..300),
    ) {
        follow(data_len, actions)?;
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
    let actions = (data_len(), vec(action(), 1..300));
    let found = runner.run(&actions, |(data_len, actions)| follow(data_len, actions));
    seeded_bug::seed(None);
    assert!(found.is_err());
}

fn follow(data_len: u64, actions: Vec<Action>) -> Result<(), TestCaseError> {
    let scratch = Scratch::new();
    let mut queue = scratch.queue_of(data_len);
    let mut writer = Writer::new(&queue, MAX_MESSAGES, 1 << 20);
    let mut reader = Reader::new(&queue);
    let mut provisioner = Provisioner::new(&queue);
    let topic = writer.topic("t").unwrap();
    let mut model = Model::default();
    let (mut number, mut now_ms) = (0, 0);
    for action in actions {
        match action {
            Action::Push(message) => {
                let message = Message { number, ..message };
                let (record, flags) = (message.record(), message.flags);
                let result = writer.push(topic, message.partition, number, &record, flags);
                let waiting = (model.unread.len() + model.read.len()) as u64;
                let bytes = message.bytes() as u64;
                match result {
                    Ok(_) => {
                        prop_assert!(waiting < MAX_MESSAGES);
                        model.unread.push_back(message);
                    }
                    Err(PushError::TooLarge) => prop_assert!(bytes > data_len / 4),
                    Err(PushError::TooManyMessages) => prop_assert_eq!(waiting, MAX_MESSAGES),
                    Err(PushError::NoSpace) => {
                        prop_assert!(waiting > 0);
                        // Small ones find room while there is a segment that holds nothing; what is
                        // in use of the first and of the last one may be next to nothing.
                        let segment_len = queue.map().division().segment_len();
                        if bytes + 100 <= segment_len {
                            let used = writer.bytes_in_use();
                            prop_assert!(used > reader.capacity() - 2 * segment_len, "{}", used);
                        }
                    }
                    Err(other) => prop_assert!(false, "{}", other),
                }
                number += 1;
            }
            Action::Read => {
                let got = reader.read().unwrap().map(|slot| (slot.position, Message::of(&slot)));
                let expected = model.unread.pop_front();
                prop_assert_eq!(got.as_ref().map(|(_, message)| message), expected.as_ref());
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
            Action::Provide(after_ms) => {
                now_ms += after_ms;
                provisioner.turn(now_ms);
            }
            Action::Die => {
                drop((writer, reader, queue));
                queue = recovery::adopt(scratch.dir(), NAME, OWNER).unwrap();
                writer = Writer::new(&queue, MAX_MESSAGES, 1 << 20);
                writer.take_over(Reader::new(&queue));
                reader = Reader::new(&queue);
                provisioner = Provisioner::new(&queue);
                // What was read and not done is read again, before the rest.
                for (_, message) in std::mem::take(&mut model.read).into_iter().rev() {
                    model.unread.push_front(message);
                }
            }
        }
        for (position, message) in &model.read {
            prop_assert_eq!(&Message::of(&reader.get(*position).unwrap()), message);
        }
        let waiting = (model.unread.len() + model.read.len()) as u64;
        prop_assert_eq!(queue.waiting(), waiting);
    }
    Ok(())
}
