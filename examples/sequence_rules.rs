//! Holds the model of a broker to a real one (SIM-04): batches with numbers of all kinds, those that follow, come
//! again, leave a gap, have other bounds, another epoch or an unknown producer, go to both, and what they answer must
//! be the same.
//!
//! `sequence_rules HOST:PORT TOPIC KAFKA-VERSION [SEED]`: the topic's partition 0 must be empty, and the broker its
//! leader. See `dev/matrix.sh`.

#![allow(clippy::disallowed_methods, reason = "a seed is drawn from the clock")]

#[path = "../src/producer/tests/sequences.rs"]
#[allow(dead_code, reason = "a real broker forgets by itself")]
mod sequences;

use lkfk::internals::protocol::header::{ApiKey, read_response_header};
use lkfk::internals::protocol::primitives::Reader;
use lkfk::internals::protocol::produce::{ProduceEncoder, ProduceResponse, TopicRef};
use lkfk::internals::protocol::record_batch::{BatchEncoder, ProducerStamp};
use lkfk::internals::record::Record;
use sequences::{Memory, Numbers, Sequences};
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const BATCHES: usize = 2_000;
/// All brokers with record batches take it.
const VERSION: i16 = 3;
const PRODUCERS: usize = 3;
/// Batches of a producer that may come again.
const REPEATED: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, topic, version, seed @ ..] = &arguments[..] else {
        return Err("sequence_rules HOST:PORT TOPIC KAFKA-VERSION [SEED]".into());
    };
    let seed = match seed.first() {
        Some(seed) => seed.parse()?,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into(),
    };
    let memory = memory_of(version)?;
    let mut broker = Broker::connect(address, topic)?;
    let mut model = Model { memory, sequences: Sequences::default(), end: 0 };
    let mut draw = Draw(seed);
    let mut producers: Vec<Producer> = (0..PRODUCERS).map(|_| Producer::new(&mut draw)).collect();
    let mut refused = 0;
    for number in 0..BATCHES {
        let producer = &mut producers[draw.below(PRODUCERS)];
        let numbers = producer.next_batch(&mut draw);
        let (expected, told) = (model.take(numbers), broker.produce(numbers)?);
        if expected != told {
            let text = format!(
                "batch {number}, {numbers:?}: the model says {expected:?}, Kafka {version} {told:?} (SEED {seed})"
            );
            return Err(text.into());
        }
        match told {
            Ok(_) => producer.sent(numbers),
            Err(_) => refused += 1,
        }
    }
    println!(
        "{BATCHES} batches, {refused} of them refused, and the model says the same (SEED {seed})"
    );
    Ok(())
}

/// What a release keeps of producers.
fn memory_of(version: &str) -> Result<Memory, Box<dyn Error>> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let (Some(major), Some(minor)) = (parts.next().transpose()?, parts.next().transpose()?) else {
        return Err(format!("not a version of Kafka: {version}").into());
    };
    Ok(match (major, minor) {
        (0, _) => Memory::OLDEST,
        version if version < (2, 5) => Memory::OLD,
        _ => Memory::NEWEST,
    })
}

/// Offset of the batch, or an error's code.
type Told = Result<i64, i16>;

struct Model {
    memory: Memory,
    sequences: Sequences,
    end: i64,
}

impl Model {
    fn take(&mut self, numbers: Numbers) -> Told {
        let known = self.sequences.take(self.memory, numbers, self.end)?;
        Ok(known.unwrap_or_else(|| {
            self.end += i64::from(numbers.count);
            self.end - i64::from(numbers.count)
        }))
    }
}

/// A real one.
struct Broker {
    stream: TcpStream,
    topic: String,
    correlation_id: i32,
}

impl Broker {
    fn connect(address: &str, topic: &str) -> Result<Broker, Box<dyn Error>> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Broker { stream, topic: topic.to_owned(), correlation_id: 0 })
    }

    fn produce(&mut self, numbers: Numbers) -> Result<Told, Box<dyn Error>> {
        self.correlation_id += 1;
        let mut frame = Vec::new();
        let mut request = ProduceEncoder::begin(
            &mut frame,
            VERSION,
            self.correlation_id,
            "sequence_rules",
            -1,
            30_000,
            1,
        );
        request.topic(TopicRef { name: &self.topic, id: uuid::Uuid::nil() }, 1);
        let stamp = ProducerStamp {
            producer_id: numbers.producer_id,
            epoch: numbers.epoch,
            base_sequence: numbers.first,
        };
        request.partition(0, 0, |out| {
            let mut batch = BatchEncoder::begin(out, stamp);
            for _ in 0..numbers.count {
                batch.push(&Record::new(0, None, Some(b"numbers")));
            }
            batch.finish()
        });
        request.finish();
        self.stream.write_all(&frame)?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut answer)?;
        let mut reader = Reader::new(&answer);
        let correlation_id = read_response_header(&mut reader, ApiKey::Produce, VERSION)?;
        if correlation_id != self.correlation_id {
            return Err("an answer to another request".into());
        }
        let response = ProduceResponse::decode(VERSION, &mut reader)?;
        let told = &response.topics[0].partitions[0];
        Ok(if told.error.0 == 0 { Ok(told.base_offset) } else { Err(told.error.0) })
    }
}

/// Who sends; what it sends is as it should be or not.
struct Producer {
    id: i64,
    epoch: i16,
    next: i32,
    sent: Vec<Numbers>,
}

impl Producer {
    /// Its number may be any: that it was given by a broker is not checked.
    fn new(draw: &mut Draw) -> Producer {
        let id = (draw.below(1 << 30) as i64) << 20;
        let next = [0, 0, i32::MAX - 5, 1_000][draw.below(4)];
        Producer { id, epoch: 0, next, sent: Vec::new() }
    }

    fn next_batch(&mut self, draw: &mut Draw) -> Numbers {
        let count = 1 + draw.below(4) as i32;
        let next = Numbers { producer_id: self.id, epoch: self.epoch, first: self.next, count };
        let again = self.sent.len().checked_sub(1 + draw.below(REPEATED));
        let again = again.map_or(next, |index| self.sent[index]);
        match draw.below(100) {
            0..40 => next,
            40..65 => again,
            65..72 => Numbers { count: again.count + 1, ..again },
            72..79 => Numbers { first: again.next(), ..again },
            79..86 => {
                let past = Numbers { count: 1 + draw.below(3) as i32, ..next };
                Numbers { first: past.next(), ..next }
            }
            86..89 => Numbers { first: 0, ..next },
            89..93 => Numbers { epoch: self.epoch + 1, first: 0, ..next },
            93..96 => Numbers { epoch: self.epoch + 1, ..next },
            96..98 => Numbers { epoch: (self.epoch - 1).max(0), ..next },
            _ => {
                *self = Producer::new(draw);
                Numbers { producer_id: self.id, epoch: 0, first: self.next, count }
            }
        }
    }

    fn sent(&mut self, numbers: Numbers) {
        if !self.sent.contains(&numbers) {
            self.sent.push(numbers);
            (self.epoch, self.next) = (numbers.epoch, numbers.next());
        }
    }
}

/// Numbers that look random, the same for the same seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}
