//! One producer against one lying broker: the real driver with its thread, queue and backup, started in a
//! directory of its own, and at the end what must hold after every lie.

use crate::support::broker::{Arrived, Broker, Lie, scram};
use crate::support::memory;
use lkfk::internals::config::{Config, Value};
use lkfk::internals::driver::Driver;
use lkfk::internals::queue::layout::NO_PARTITION;
use lkfk::internals::queue::{Flags, Writer};
use lkfk::internals::record::Record;
use lkfk::internals::report_kind::Level;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What a lie may take, beyond the queue.
const MEMORY: isize = 8 << 20;
/// Longest log line, in bytes.
const LINE: usize = 512;
/// How long everything may take to arrive. Nothing in a case waits longer than a second by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Memory is counted for the whole process, so one case runs at a time.
static ALONE: Mutex<()> = Mutex::new(());
static CASES: AtomicUsize = AtomicUsize::new(0);

/// A running producer and its broker.
pub struct Case {
    driver: Driver,
    writer: Writer,
    pub broker: Broker,
    directory: PathBuf,
    memory_at_start: isize,
    /// What it may take.
    memory: isize,
    /// Payloads by topic, in the order they were logged.
    logged: Vec<(String, Vec<u8>)>,
    lines: Vec<String>,
    _alone: MutexGuard<'static, ()>,
}

/// What was left when all was done.
pub struct Seen {
    /// The driver's log lines.
    pub lines: Vec<String>,
    /// Everything the broker took.
    pub arrived: Vec<Arrived>,
    /// Payloads in the backup.
    pub backed_up: Vec<Vec<u8>>,
    pub connections: usize,
    /// The most of them at one time.
    pub most_open: usize,
    /// The most memory it took at one time.
    pub peak: isize,
}

/// A case in which the broker speaks the newest versions that go by topic names.
pub fn case(lies: Vec<Lie>) -> Case {
    Case::start((12, 12), lies, &[])
}

impl Case {
    pub fn start(versions: (i16, i16), lies: Vec<Lie>, options: &[(&str, i64)]) -> Case {
        let options = options.iter().map(|(key, value)| (*key, Value::Int(*value)));
        Case::start_with(|| Broker::start(versions, lies), options.collect(), |_| {})
    }

    /// A case in which `prepare` leaves something in the directory of the queues before the start.
    pub fn after(lies: Vec<Lie>, prepare: impl FnOnce(&Path)) -> Case {
        let options = vec![("request_required_acks", Value::Int(-1))];
        Case::start_with(|| Broker::start((12, 12), lies), options, prepare)
    }

    /// A case in which messages have numbers, which a lost answer does not double.
    pub fn idempotent(versions: (i16, i16), lies: Vec<Lie>) -> Case {
        Case::start(versions, lies, &[("request_required_acks", -1)])
    }

    /// A case in which the broker wants authentication, and gets it right.
    pub fn with_sasl(mechanism: &str, lies: Vec<Lie>) -> Case {
        let text = |text: &str| Value::Text(text.as_bytes().to_vec());
        let options = [
            ("security_protocol", "sasl_plaintext"),
            ("sasl_mechanisms", mechanism),
            ("sasl_username", scram::USER),
            ("sasl_password", scram::PASSWORD),
        ];
        let options = options.map(|(key, value)| (key, text(value)));
        let more = [
            ("insecure_plain", Value::Bool(true)),
            ("socket_connection_setup_timeout_ms", Value::Int(2_000)),
        ];
        let options = options.into_iter().chain(more).collect();
        Case::start_with(|| Broker::with_sasl((12, 12), lies), options, |_| {})
    }

    fn start_with(
        broker: impl FnOnce() -> Broker,
        options: Vec<(&str, Value)>,
        prepare: impl FnOnce(&Path),
    ) -> Case {
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        memory::leave_out_this_thread();
        let number = CASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("lkfk-hostile-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let broker = broker();
        let text = |text: String| Value::Text(text.into_bytes());
        let path = |name: &str| text(directory.join(name).display().to_string());
        let mut entries = vec![
            ("metadata_broker_list", text(format!("127.0.0.1:{}", broker.port()))),
            ("queue_path", path("queue")),
            ("backpath", path("backup")),
            ("replay", Value::Bool(false)),
            ("queue_buffering_max_kbytes", Value::Int(1024)),
            ("message_max_bytes", Value::Int(100_000)),
            ("queue_buffering_max_ms", Value::Int(1)),
            ("message_timeout_ms", Value::Int(60_000)),
            ("request_timeout_ms", Value::Int(300)),
            ("socket_connection_setup_timeout_ms", Value::Int(300)),
            ("retry_backoff_ms", Value::Int(1)),
            ("retry_backoff_max_ms", Value::Int(2)),
            ("reconnect_backoff_ms", Value::Int(1)),
            ("reconnect_backoff_max_ms", Value::Int(2)),
            ("message_send_max_retries", Value::Int(1_000_000)),
            ("conn_retry_limit", Value::Int(1_000_000)),
        ];
        entries.extend(options);
        let entries: Vec<_> =
            entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let config = Config::parse(&entries, "/nowhere").unwrap();
        std::fs::create_dir_all(directory.join("queue")).unwrap();
        prepare(&directory.join("queue"));
        let memory_at_start = memory::start();
        let (driver, writer) = Driver::start(config, "", "hostile").unwrap();
        let (logged, lines) = (Vec::new(), Vec::new());
        let memory = MEMORY;
        Case {
            driver,
            writer,
            broker,
            directory,
            memory_at_start,
            memory,
            logged,
            lines,
            _alone: alone,
        }
    }

    /// It may take so many bytes.
    pub fn with_memory(self, memory: isize) -> Case {
        Case { memory, ..self }
    }

    /// A message that another worker logged to "t", and that is to arrive.
    pub fn expect(&mut self, payload: &[u8]) {
        self.logged.push(("t".to_owned(), payload.to_vec()));
    }

    /// Names of the files with queues.
    pub fn queue_files(&self) -> Vec<String> {
        let below =
            std::fs::read_dir(self.directory.join("queue")).unwrap().next().unwrap().unwrap();
        let files = std::fs::read_dir(below.path()).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Logs so many messages to "t".
    pub fn log(&mut self, count: usize) {
        for _ in 0..count {
            self.log_to("t");
        }
    }

    /// Logs one message.
    pub fn log_to(&mut self, topic: &str) {
        self.log_without_hurry(topic);
        self.driver.flush(self.writer.tail());
    }

    /// Logs one message, which lingers.
    pub fn log_without_hurry(&mut self, topic: &str) {
        let payload = format!("{topic} {}", self.logged.len()).into_bytes();
        let id = self.writer.topic(topic).unwrap();
        let record = Record::new(0, Some(&payload), Some(&payload));
        if self.writer.push(id, NO_PARTITION, 0, &record, Flags::NONE).unwrap() {
            self.driver.shared().signal();
        }
        self.logged.push((topic.to_owned(), payload));
    }

    fn take_lines(&mut self) {
        while let Some((level, line)) = self.driver.shared().log.take() {
            assert!(level != Level::Error || !line.contains("fault"), "{line}");
            assert!(!line.contains("internal fault") && !line.contains("panic"), "{line}");
            assert!(!line.contains(scram::PASSWORD), "{line}");
            assert!(line.len() <= LINE, "{} bytes: {line}", line.len());
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(!line.ends_with(' ') && !line.contains("//"), "{line:?}");
            self.lines.push(line);
        }
    }

    /// True when the log has had a line with this.
    pub fn has_said(&self, part: &str) -> bool {
        self.lines.iter().any(|line| line.contains(part))
    }

    /// Waits until `happened`, which is asked each millisecond.
    pub fn wait_until(&mut self, what: &str, mut happened: impl FnMut(&Case) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !happened(self) {
            self.take_lines();
            assert!(self.broker.is_sound(), "the broker failed");
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}: {:?}", self.lines);
            std::thread::sleep(Duration::from_millis(1));
        }
        self.take_lines();
    }

    /// Waits until every message is somewhere, ends the producer, and checks what must hold always:
    /// nothing faulted, nothing foreign arrived, and nothing is lost. Messages may have gone to the backup
    /// only when `backup` says so.
    fn end(mut self, backup: bool) -> Seen {
        self.wait_until("all delivered", |case| case.driver.is_done(case.writer.tail()));
        self.wait_until("a lie told", |case| !case.broker.owes_a_lie());
        assert!(self.broker.is_sound(), "the broker failed");
        let restarts = &self.driver.shared().stats.driver_restarts;
        assert_eq!(restarts.load(Ordering::Relaxed), 0);
        let peak = memory::peak_since(self.memory_at_start);
        assert!(peak <= self.memory, "took {peak} bytes: {:?}", self.lines);
        assert!(
            {
                self.driver.begin_stop(Duration::from_secs(1));
                self.driver.wait(|| None)
            },
            "the driver does not end"
        );
        self.take_lines();

        let arrived = self.broker.arrived();
        let backed_up = self.backed_up();
        let mut found: BTreeMap<(&str, &[u8]), usize> = BTreeMap::new();
        for record in &arrived {
            assert_eq!(record.key.as_deref(), Some(&record.payload[..]));
            *found.entry((&record.topic, &record.payload)).or_default() += 1;
        }
        for (topic, payload) in &backed_up {
            *found.entry((topic, payload)).or_default() += 1;
        }
        for (topic, payload) in &self.logged {
            let name = String::from_utf8_lossy(payload);
            assert!(
                found.contains_key(&(&topic[..], &payload[..])),
                "lost {name}: {:?}",
                self.lines
            );
        }
        let logged = |(topic, payload): &(&str, &[u8])| {
            self.logged.iter().any(|(t, p)| t == topic && p == payload)
        };
        assert!(found.keys().all(logged), "something foreign arrived");
        assert!(backup || backed_up.is_empty(), "given up: {:?}", self.lines);
        let (connections, most_open) = (self.broker.connections(), self.broker.most_open());
        let _ = std::fs::remove_dir_all(&self.directory);
        let backed_up = backed_up.into_iter().map(|(_, payload)| payload).collect();
        let lines = std::mem::take(&mut self.lines);
        Seen { lines, arrived, backed_up, connections, most_open, peak }
    }

    /// Goes on logging until every lie was told: to topics that are new, so that their metadata is asked
    /// for.
    pub fn log_until_all_is_told(&mut self) {
        let mut topics = 0;
        let mut left = self.broker.lies_left();
        while left > 0 {
            self.log_to(&format!("t{topics}"));
            topics += 1;
            self.wait_until("a lie told", |case| {
                let now = case.broker.lies_left();
                now < left || case.driver.is_done(case.writer.tail())
            });
            left = self.broker.lies_left();
        }
    }

    /// Everything arrives in the end.
    pub fn delivers(self) -> Seen {
        self.end(false)
    }

    /// Everything arrives or is in the backup.
    pub fn keeps(self) -> Seen {
        self.end(true)
    }

    /// Topic and payload of each line in the backup files.
    fn backed_up(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        for file in std::fs::read_dir(self.directory.join("backup")).unwrap() {
            let path = file.unwrap().path();
            if !path.is_file() {
                continue;
            }
            for line in std::fs::read(path).unwrap().split_inclusive(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\n").expect("whole lines");
                let columns: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
                let [_, topic, _, payload] = columns[..] else { panic!("{line:?}") };
                all.push((String::from_utf8(topic.to_vec()).unwrap(), payload.to_vec()));
            }
        }
        all
    }
}

impl Seen {
    /// One of the lines says this.
    #[track_caller]
    pub fn says(&self, part: &str) -> &Seen {
        assert!(
            self.lines.iter().any(|line| line.contains(part)),
            "{part:?} not in {:?}",
            self.lines
        );
        self
    }

    /// How often the message with this number arrived.
    pub fn times(&self, number: usize) -> usize {
        let end = format!(" {number}").into_bytes();
        self.arrived.iter().filter(|record| record.payload.ends_with(&end)).count()
    }
}
