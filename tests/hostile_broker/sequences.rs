//! What a broker keeps of idempotent producers: the last five batches of each in a partition, by which it knows one
//! that comes again, and what may follow them (KIP-98).

use std::collections::{BTreeMap, VecDeque};

/// Batches of a producer that are known again.
const KNOWN: usize = 5;

const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;

/// The numbers of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub producer_id: i64,
    pub epoch: i16,
    pub first: i32,
    pub count: i32,
}

#[derive(Default)]
struct Producer {
    epoch: i16,
    /// Numbers and offset of its last batches.
    batches: VecDeque<(Numbers, i64)>,
}

/// What is known in one partition.
#[derive(Default)]
pub struct Sequences(BTreeMap<i64, Producer>);

impl Sequences {
    /// The offset of the same batch, if it was taken before; else whether it may be taken, at `offset`.
    pub fn take(&mut self, numbers: Numbers, offset: i64) -> Result<Option<i64>, i16> {
        let producer = self.0.entry(numbers.producer_id).or_default();
        if numbers.epoch < producer.epoch {
            return Err(INVALID_PRODUCER_EPOCH);
        }
        if let Some((_, known)) = producer.batches.iter().find(|(known, _)| *known == numbers) {
            return Ok(Some(*known));
        }
        let follows = match producer.batches.back() {
            Some((last, _)) if last.epoch == numbers.epoch => last.first + last.count,
            Some(_) => 0,
            // A producer that is not known may begin anywhere.
            None => numbers.first,
        };
        if numbers.first != follows {
            return Err(OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        producer.epoch = numbers.epoch;
        producer.batches.push_back((numbers, offset));
        if producer.batches.len() > KNOWN {
            producer.batches.pop_front();
        }
        Ok(None)
    }
}
