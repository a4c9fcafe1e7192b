//! What a broker keeps of idempotent producers in a partition: the last batches of each, by which it knows one that
//! comes again, and what may follow them (KIP-98; ProducerStateManager, ProducerAppendInfo). All models of a broker
//! have it from here, and `examples/sequence_rules.rs` holds it to a real one.

use std::collections::{BTreeMap, VecDeque};

pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
pub const INVALID_PRODUCER_EPOCH: i16 = 47;
pub const UNKNOWN_PRODUCER_ID: i16 = 59;

/// What differs between brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Batches of a producer that are known again.
    pub batches: usize,
    /// What a producer is told that is not known and does not begin at 0, where it has to.
    pub unknown: Option<i16>,
}

impl Memory {
    /// Kafka 0.11.
    pub const OLDEST: Memory = Memory { batches: 1, unknown: Some(OUT_OF_ORDER_SEQUENCE_NUMBER) };
    /// Kafka 1.0 to 2.4.
    pub const OLD: Memory = Memory { batches: 5, unknown: Some(UNKNOWN_PRODUCER_ID) };
    /// Since Kafka 2.5.
    pub const NEWEST: Memory = Memory { batches: 5, unknown: None };
}

/// The numbers of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub producer_id: i64,
    pub epoch: i16,
    pub first: i32,
    pub count: i32,
}

impl Numbers {
    /// The number of the record behind it: after 2^31 - 1 comes 0.
    pub fn next(&self) -> i32 {
        ((i64::from(self.first) + i64::from(self.count)) % (1 << 31)) as i32
    }
}

/// What is known of a producer: numbers and offsets of its last batches. There is one at least.
type Batches = VecDeque<(Numbers, i64)>;

/// What is known in a partition.
#[derive(Debug, Clone, Default)]
pub struct Sequences(BTreeMap<i64, Batches>);

impl Sequences {
    /// The offset of the same batch, if it was taken before; else whether it may be taken, at `offset`.
    pub fn take(
        &mut self,
        memory: Memory,
        numbers: Numbers,
        offset: i64,
    ) -> Result<Option<i64>, i16> {
        let Some(batches) = self.0.get_mut(&numbers.producer_id) else {
            if let Some(error) = memory.unknown.filter(|_| numbers.first != 0) {
                return Err(error);
            }
            self.0.insert(numbers.producer_id, [(numbers, offset)].into());
            return Ok(None);
        };
        let (last, _) = batches.back().expect("there is one at least");
        if numbers.epoch < last.epoch {
            return Err(INVALID_PRODUCER_EPOCH);
        }
        if let Some((_, known)) = batches.iter().find(|(known, _)| *known == numbers) {
            return Ok(Some(*known));
        }
        let follows = if numbers.epoch == last.epoch { last.next() } else { 0 };
        if numbers.first != follows {
            return Err(OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        batches.push_back((numbers, offset));
        self.keep(memory.batches);
        Ok(None)
    }

    /// Forgets all but the last `count` batches of each producer, and keeps one.
    pub fn keep(&mut self, count: usize) {
        for batches in self.0.values_mut() {
            batches.drain(..batches.len().saturating_sub(count.max(1)));
        }
    }
}
