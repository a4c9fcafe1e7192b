//! Two producers on two clusters in one process, for `dev/clusters.sh`. Takes a directory and the addresses of the
//! clusters `one` and `two`, then a command a line:
//!
//! - `measure SECONDS`: logs to both and prints how long messages for `one` took from log() to acknowledgement.
//! - `log COUNT`: logs so many to `two` and prints how many were taken.
//! - `drain`: waits until nothing waits any more.
//!
//! Each command is answered with a line. At the end of its input it stops as a worker does.

#![allow(clippy::disallowed_methods, reason = "a program that measures")]

use lkfk::internals::config::{Config, Value};
use lkfk::internals::queue::Flags;
use lkfk::internals::queue::layout::NO_PARTITION;
use lkfk::internals::record::Record;
use lkfk::internals::worker::{self, Entry, Handle};
use std::io::BufRead;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time between two messages that are waited for.
const EVERY: Duration = Duration::from_millis(5);
/// Messages for the other cluster in that time.
const OTHERS: usize = 5;

struct Producer {
    name: &'static str,
    handle: &'static Handle,
    logged: usize,
}

impl Producer {
    fn start(name: &'static str, directory: &Path, brokers: &str) -> Producer {
        let text = |text: &str| Value::Text(text.as_bytes().to_vec());
        let path = |name: &str| text(directory.join(name).to_str().expect("a path that is text"));
        std::fs::create_dir_all(directory.join("queue")).expect("a directory");
        let entries = [
            ("metadata_broker_list", text(brokers)),
            ("queue_path", path("queue")),
            ("backpath", path("backup")),
            ("instance", text("clusters")),
            ("request_required_acks", Value::Int(-1)),
            ("queue_buffering_max_ms", Value::Int(1)),
            ("message_timeout_ms", Value::Int(600_000)),
        ];
        let entries = entries.map(|(key, value)| (key.to_owned(), value));
        let config = Config::parse(&entries, "/nowhere").expect("a configuration");
        let handle = worker::start(name, config).expect("a producer");
        Producer { name, handle, logged: 0 }
    }

    /// Logs a message of its own; false when it was refused.
    fn log(&mut self) -> bool {
        let topic = self.handle.topic(b"clusters").expect("a topic").into();
        let payload = format!("{} {} {}", self.name, std::process::id(), self.logged);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis() as i64;
        let record = Record::new(now, None, Some(payload.as_bytes()));
        let entry = Entry {
            topic,
            partition: NO_PARTITION,
            flags: Flags::NONE,
            logged_ms: record.timestamp_ms,
            record,
        };
        let taken = self.handle.push(&entry).is_ok();
        self.logged += usize::from(taken);
        taken
    }

    fn waiting(&self) -> u64 {
        self.handle.waiting()
    }

    /// Waits until all that was logged is acknowledged.
    fn drain(&self) {
        let flush = |producer: &mut worker::Producer| producer.flush();
        let position = worker::with(self.handle, flush).expect("it runs");
        let is_done = |producer: &mut worker::Producer| producer.is_done(position);
        while !worker::with(self.handle, is_done).expect("it runs") {
            sleep(Duration::from_micros(20));
        }
    }
}

/// How long messages for `one` took, in microseconds, in their order.
fn measure(one: &mut Producer, two: &mut Producer, limit: Duration) -> Vec<u128> {
    let mut took = Vec::new();
    let end = Instant::now() + limit;
    while Instant::now() < end {
        let began = Instant::now();
        (0..OTHERS).for_each(|_| {
            two.log();
        });
        let from = Instant::now();
        if one.log() {
            one.drain();
            took.push(from.elapsed().as_micros());
        }
        sleep(EVERY.saturating_sub(began.elapsed()));
    }
    took.sort_unstable();
    took
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, first, second] = &arguments[..] else {
        panic!("usage: two_clusters DIRECTORY BROKERS BROKERS")
    };
    let directory = Path::new(directory);
    let mut one = Producer::start("one", directory, first);
    let with_one = threads();
    let mut two = Producer::start("two", directory, second);
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("commands");
        let (command, number) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: u64 = number.parse().expect("a number");
        match command {
            "measure" => {
                let took = measure(&mut one, &mut two, Duration::from_secs(number));
                let quantile = |part: usize| took.get(took.len() * part / 100).unwrap_or(&0);
                println!(
                    "messages={} p50={} p99={} threads={} threads_with_one={with_one}",
                    took.len(),
                    quantile(50),
                    quantile(99),
                    threads()
                );
            }
            "log" => {
                let taken = (0..number).filter(|_| two.log()).count();
                println!("taken={taken} waiting={}", two.waiting());
            }
            "drain" => {
                [&one, &two].into_iter().for_each(Producer::drain);
                println!("one={} two={}", one.logged, two.logged);
            }
            _ => panic!("no command {command}"),
        }
    }
}
