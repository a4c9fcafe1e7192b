//! A worker dies at each of the named points, also while it recovers what another one left, and the next
//! one finds everything: what `log()` accepted is in Kafka or in the backup, and what was never published is
//! nowhere. (RNG-02, RNG-03, NGX-12; `cargo test --features crash_points --test crash_points`.)
//!
//! The worker is this test program itself, started again with a part to play; the real driver with its queue,
//! and a broker that runs in here.

#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

#[allow(dead_code, reason = "the broker tells hardly any lies here, and nothing is counted")]
mod support {
    pub mod broker;
    pub mod memory;
}

use lkfk::internals::config::{Config, Value};
use lkfk::internals::crash_points::POINTS;
use lkfk::internals::driver::Driver;
use lkfk::internals::protocol::header::ApiKey;
use lkfk::internals::queue::Flags;
use lkfk::internals::queue::layout::NO_PARTITION;
use lkfk::internals::record::Record;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use support::broker::{Broker, Lie, Reply};

const SIGKILL: i32 = 9;
/// Messages of a worker, to these topics in turn.
const MESSAGES: usize = 600;
const TOPICS: [&str; 3] = ["a", "b", "c"];
/// A port where nobody listens.
const NOBODY: u16 = 1;
const PATIENCE: Duration = Duration::from_secs(20);

/// Numbered, of different lengths, and each byte follows from the number: half a message is none.
fn payload(worker: usize, number: usize) -> Vec<u8> {
    let mut payload = format!("{worker}.{number}:").into_bytes();
    payload.extend((0..number * 37 % 900).map(|at| b'a' + ((at + number) % 26) as u8));
    payload
}

/// The numbers of a payload, if it is one.
fn numbers(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = std::str::from_utf8(bytes.split(|byte| *byte == b':').next()?).ok()?;
    let (worker, number) = head.split_once('.')?;
    let (worker, number) = (worker.parse().ok()?, number.parse().ok()?);
    (payload(worker, number) == bytes).then_some((worker, number))
}

// ------------------------------------------------------------------------------------------ the worker

/// What a worker is told, in its environment.
const PART: &str = "LKFK_CRASH_TEST";

/// The part of the worker; without being told it is none. Logs `messages`, and notes in `accepted.N` which
/// were accepted; then waits until all is done and so many queues are left, its own among them, or leaves the
/// rest to its exit.
#[test]
fn part_of_the_worker() {
    let Ok(told) = std::env::var(PART) else { return };
    let told: Vec<&str> = told.split('|').collect();
    let [directory, port, manner, worker, messages, waits] = told[..] else { panic!("{told:?}") };
    let directory = Path::new(directory);
    let [worker, messages, waits] =
        [worker, messages, waits].map(|number| number.parse::<usize>().unwrap());
    let config = Config::parse(&options(directory, port, manner), "/nowhere").unwrap();
    let mut accepted = File::create(directory.join(format!("accepted.{worker}"))).unwrap();
    let (driver, mut writer) = Driver::start(config, "", "crash").unwrap();
    let mut number = 0;
    let deadline = Instant::now() + PATIENCE;
    while number < messages {
        let topic = writer.topic(TOPICS[number % TOPICS.len()]).unwrap();
        let payload = payload(worker, number);
        let record = Record::new(0, None, Some(&payload));
        match writer.push(topic, NO_PARTITION, 0, &record, Flags::NONE) {
            Ok(signal) => {
                writeln!(accepted, "{number}").unwrap();
                number += 1;
                if signal {
                    driver.shared().signal();
                }
            }
            Err(full) => {
                assert!(Instant::now() < deadline, "{full}");
                driver.flush(writer.tail());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let queues = |directory: &Path| {
        let below = std::fs::read_dir(directory.join("queue")).unwrap().next().unwrap().unwrap();
        std::fs::read_dir(below.path()).unwrap().count()
    };
    // What is in the backup is to be sent again, where there is somebody to send it to.
    let replays = manner == format!("{:?}", Manner::Replaying) && port != NOBODY.to_string();
    let is_replayed = || !replays || backups(directory).is_empty();
    driver.flush(writer.tail());
    while waits > 0
        && !(driver.is_done(writer.tail()) && queues(directory) <= waits && is_replayed())
    {
        if Instant::now() > deadline {
            let lines: Vec<_> = std::iter::from_fn(|| driver.shared().log.take()).collect();
            panic!("{} queues left: {lines:?}", queues(directory));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!({
        driver.begin_stop(Duration::from_millis(20));
        driver.wait(|| None)
    });
    let restarts = &driver.shared().stats.driver_restarts;
    let restarts = restarts.load(std::sync::atomic::Ordering::Relaxed);
    let panics = std::env::var_os("LKFK_PANIC_AT").is_some();
    assert!(restarts == 0 || panics, "{restarts} restarts");
}

/// How workers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Without numbers: what was on its way may be there twice.
    Plain,
    /// With numbers: nothing is there twice.
    Idempotent,
    /// Without numbers; what is in the backup is sent again.
    Replaying,
}

/// The topics' backup files.
fn backups(directory: &Path) -> Vec<PathBuf> {
    let files = TOPICS.iter().map(|topic| directory.join("backup").join(topic));
    files.filter(|file| file.exists()).collect()
}

fn options(directory: &Path, port: &str, manner: &str) -> Vec<(String, Value)> {
    let is = |other: Manner| manner == format!("{other:?}");
    let path = |name: &str| Value::Text(directory.join(name).display().to_string().into_bytes());
    let entries = [
        ("metadata_broker_list", Value::Text(format!("127.0.0.1:{port}").into_bytes())),
        ("queue_path", path("queue")),
        ("backpath", path("backup")),
        ("replay", Value::Bool(is(Manner::Replaying))),
        ("replay_rate", Value::Int(0)),
        ("request_required_acks", Value::Int(if is(Manner::Idempotent) { -1 } else { 1 })),
        // Less than all messages together, so that the queue comes round.
        ("queue_buffering_max_kbytes", Value::Int(128)),
        ("message_max_bytes", Value::Int(2_000)),
        ("queue_buffering_max_ms", Value::Int(1)),
        ("message_timeout_ms", Value::Int(if port == "1" { 30 } else { 10_000 })),
        ("batch_num_messages", Value::Int(7)),
        ("reconnect_backoff_ms", Value::Int(1)),
        ("retry_backoff_ms", Value::Int(1)),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

// ----------------------------------------------------------------------------------------- the witness

/// Some workers that had one directory after another.
struct Scene {
    manner: Manner,
    directory: PathBuf,
    broker: Broker,
    workers: usize,
    /// Deaths in the middle of a chunk of the backup.
    cut_lines: usize,
}

impl Scene {
    fn new(name: &str) -> Scene {
        Scene::with(Manner::Plain, name)
    }

    fn with(manner: Manner, name: &str) -> Scene {
        let name = format!("lkfk-crash-{}-{}", std::process::id(), name.replace(' ', "-"));
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(directory.join("queue")).unwrap();
        let broker = Broker::start((12, 12), Vec::new());
        Scene { manner, directory, broker, workers: 0, cut_lines: 0 }
    }

    /// The next worker.
    fn command(&mut self, messages: usize, reaches_broker: bool, waits: usize) -> Command {
        let port = if reaches_broker { self.broker.port() } else { NOBODY };
        let directory = self.directory.display();
        let (manner, worker) = (self.manner, self.workers);
        let told = format!("{directory}|{port}|{manner:?}|{worker}|{messages}|{waits}");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["part_of_the_worker", "--exact", "--nocapture"]).env(PART, told);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.workers += 1;
        command
    }

    /// Lets a worker log and wait for the end of it, or not; it dies at the n-th passage of a point.
    fn worker(
        &mut self,
        messages: usize,
        reaches_broker: bool,
        waits: bool,
        dies: Option<(&str, u64)>,
    ) -> ExitStatus {
        let mut command = self.command(messages, reaches_broker, usize::from(waits));
        if let Some((point, passage)) = dies {
            command.env("LKFK_CRASH_AT", format!("{point}:{passage}"));
        }
        let output = command.output().unwrap();
        let killed = output.status.signal() == Some(SIGKILL);
        assert!(
            output.status.success() || killed && dies.is_some(),
            "{dies:?}: {} {}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        self.cut_lines += usize::from(killed && dies.is_some_and(|(p, _)| p.starts_with("half")));
        output.status
    }

    /// A last worker recovers what is left; then nothing may be missing. Returns how many arrived twice.
    fn judge(mut self, story: &str) -> usize {
        self.worker(0, true, true, None);
        let mut found: HashMap<(usize, usize), usize> = HashMap::new();
        for record in self.broker.arrived() {
            let numbers = numbers(&record.payload).expect("whole messages");
            *found.entry(numbers).or_default() += 1;
        }
        let mut damaged = 0;
        for file in backups(&self.directory) {
            let lines = std::fs::read(file).unwrap();
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match line.rsplit(|byte| *byte == b'\t').next().and_then(numbers) {
                    Some(numbers) => *found.entry(numbers).or_default() += 1,
                    None => damaged += 1,
                }
            }
        }
        // Half a line stays behind where a worker died in it; its message comes again.
        assert!(damaged <= self.cut_lines, "{story}: {damaged} damaged lines");
        let mut accepted = 0;
        for worker in 0..self.workers {
            let file = self.directory.join(format!("accepted.{worker}"));
            let text = std::fs::read_to_string(file).unwrap_or_default();
            for number in text.lines().map(|line| line.parse().unwrap()) {
                assert!(found.contains_key(&(worker, number)), "{story}: lost {worker}.{number}");
                accepted += 1;
            }
        }
        // Who died between the acceptance and the note of it left one message more.
        assert!(found.len() <= accepted + self.workers, "{story}: {} of {accepted}", found.len());
        let _ = std::fs::remove_dir_all(&self.directory);
        found.values().filter(|times| **times > 1).count()
    }
}

/// Passages to die at: the first ones, and some on the way.
const PASSAGES: [u64; 4] = [1, 2, 20, 150];

/// Whether it died; at the first passage it must, or the point is not where it should be.
fn died(status: ExitStatus, point: &str, passage: u64) -> bool {
    let died = status.signal() == Some(SIGKILL);
    assert!(died || passage > 1, "{point} is never passed");
    died
}

fn points(chosen: impl Fn(&str) -> bool) -> impl Iterator<Item = &'static str> {
    POINTS.iter().copied().filter(move |point| chosen(point))
}

fn is_backup(point: &str) -> bool {
    ["chunk to be written", "half a chunk written", "chunk written", "spilled"].contains(&point)
}

fn is_adoption(point: &str) -> bool {
    point.starts_with("adopted")
}

/// Passed while batches get their numbers and go out.
fn is_stamping(point: &str) -> bool {
    point.starts_with("batch ") || point == "record half stamped"
}

/// Passed only with numbers, or by a worker that exits.
fn is_about_numbers(point: &str) -> bool {
    is_stamping(point) || point.ends_with("carried over") || point == "rest written"
}

fn is_replay(point: &str) -> bool {
    ["chunk replayed", "progress noted", "backup file removed"].contains(&point)
}

#[test]
fn rng_02_a_worker_that_dies_while_it_logs_and_sends_loses_nothing() {
    let mut deaths = 0;
    let elsewhere = [is_backup, is_adoption, is_about_numbers, is_replay];
    for point in points(|point| !elsewhere.iter().any(|is| is(point))) {
        for passage in PASSAGES {
            let story = format!("{point} {passage}");
            let mut scene = Scene::new(&story);
            let status = scene.worker(MESSAGES, true, true, Some((point, passage)));
            deaths += usize::from(died(status, point, passage));
            scene.judge(&story);
        }
    }
    assert!(deaths >= 20, "{deaths}");
}

#[test]
fn rng_02_a_worker_that_dies_while_it_writes_to_the_backup_loses_nothing() {
    for point in points(is_backup) {
        for passage in PASSAGES {
            let story = format!("{point} {passage} spill");
            let mut scene = Scene::new(&story);
            let status = scene.worker(MESSAGES, false, true, Some((point, passage)));
            died(status, point, passage);
            scene.judge(&story);
        }
    }
}

#[test]
fn rng_02_a_worker_that_dies_while_it_exits_loses_nothing() {
    for point in
        ["half a chunk written", "chunk written", "rest written", "slot done", "slots released"]
    {
        for passage in [1, 2, 3] {
            let story = format!("{point} {passage} exit");
            let mut scene = Scene::new(&story);
            // Few enough for the queue, and nobody to send them to.
            let status = scene.worker(60, false, false, Some((point, passage)));
            died(status, point, passage);
            scene.judge(&story);
        }
    }
}

#[test]
fn rng_02_who_dies_while_it_recovers_leaves_everything_to_the_next_one() {
    for point in points(|point| is_adoption(point) || point.starts_with("slot")) {
        for passage in [1, 2, 20] {
            let story = format!("{point} {passage} recovery");
            let mut scene = Scene::new(&story);
            // Dies with a queue full of what nobody took.
            assert!(died(scene.worker(MESSAGES, false, true, Some(("slot copied", 61))), "", 1));
            // Two die one after the other in the recovery of it, which logs a little too.
            for _ in 0..2 {
                scene.worker(30, true, true, Some((point, passage)));
            }
            scene.judge(&story);
        }
    }
}

#[test]
fn rng_02_who_dies_while_it_writes_what_it_recovered_to_the_backup_loses_nothing() {
    for point in ["half a chunk written", "spilled", "adopted file to be removed"] {
        let story = format!("{point} recovery spill");
        let mut scene = Scene::new(&story);
        assert!(died(scene.worker(MESSAGES, false, true, Some(("slot copied", 61))), "", 1));
        for passage in [1, 2] {
            scene.worker(30, false, true, Some((point, passage)));
        }
        scene.judge(&story);
    }
}

/// Its last worker may wait for the broker for this: then there are no more queues but its own.
const WAITS: bool = true;

#[test]
fn rng_02_with_numbers_a_worker_that_dies_while_it_sends_doubles_nothing() {
    for point in points(|point| is_stamping(point) || point.starts_with("slot")) {
        for passage in PASSAGES {
            let story = format!("{point} {passage} numbers");
            let mut scene = Scene::with(Manner::Idempotent, &story);
            let status = scene.worker(MESSAGES, true, WAITS, Some((point, passage)));
            died(status, point, passage);
            assert_eq!(scene.judge(&story), 0, "{story}: doubles");
        }
    }
}

#[test]
fn rng_02_with_numbers_who_dies_while_it_repeats_a_dead_worker_s_batches_doubles_nothing() {
    for point in points(|point| is_adoption(point) || is_stamping(point)) {
        for passage in [1, 2, 20] {
            let story = format!("{point} {passage} repetition");
            let mut scene = Scene::with(Manner::Idempotent, &story);
            // Dies with batches on their way.
            assert!(died(scene.worker(MESSAGES, true, WAITS, Some(("batch sent", 7))), "", 1));
            for _ in 0..2 {
                scene.worker(30, true, WAITS, Some((point, passage)));
            }
            assert_eq!(scene.judge(&story), 0, "{story}: doubles");
        }
    }
}

#[test]
fn rng_02_with_numbers_a_worker_that_dies_while_it_exits_doubles_nothing() {
    for point in points(|point| point.ends_with("carried over")) {
        // All but the first are passed once.
        let passages: &[u64] = if point.starts_with("half of a batch") { &[1, 2, 3] } else { &[1] };
        for &passage in passages {
            let story = format!("{point} {passage} exit with numbers");
            let mut scene = Scene::with(Manner::Idempotent, &story);
            // The broker takes what it gets, and says nothing.
            let silent = Lie::bytes(ApiKey::Produce, |_| Reply::Nothing).but_append();
            scene.broker.tell(vec![silent.times(usize::MAX)]);
            let status = scene.worker(300, true, !WAITS, Some((point, passage)));
            died(status, point, passage);
            scene.broker.tell_the_truth();
            assert_eq!(scene.judge(&story), 0, "{story}: doubles");
        }
    }
}

#[test]
fn dsk_03_who_dies_while_it_sends_the_backup_again_loses_nothing() {
    for point in points(is_replay) {
        for passage in [1, 2, 3] {
            let story = format!("{point} {passage} replay");
            let mut scene = Scene::with(Manner::Replaying, &story);
            scene.worker(MESSAGES, false, WAITS, None);
            let status = scene.worker(0, true, WAITS, Some((point, passage)));
            died(status, point, passage);
            scene.worker(0, true, WAITS, Some((point, passage)));
            // Two died: a chunk each, which here is what a topic has.
            let doubles = scene.judge(&story);
            assert!(doubles <= 2 * MESSAGES / TOPICS.len(), "{story}: {doubles} doubles");
        }
    }
}

#[test]
fn rng_03_four_workers_share_three_orphans_and_send_nothing_twice() {
    for round in 0..5 {
        let story = format!("orphans {round}");
        let mut scene = Scene::new(&story);
        // None of it was ever on its way, so that a double is one of the adopters'.
        for _ in 0..3 {
            let mut command = scene.command(100, false, 1);
            let status = command.env("LKFK_CRASH_AT", "slot copied:61").output().unwrap().status;
            assert!(died(status, "slot copied", 1));
        }
        // The three died one after the other: what the second and third found of the first they may have
        // given to the backup, but not to the broker.
        let adopters: Vec<_> =
            (0..4).map(|_| scene.command(30, true, 4).spawn().unwrap()).collect();
        for adopter in adopters {
            let output = adopter.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        assert_eq!(scene.judge(&story), 0, "{story}: doubles");
    }
}

#[test]
fn ngx_12_a_driver_that_panics_starts_over_and_loses_nothing() {
    // What is passed on the driver's thread while it works.
    for (point, reaches_broker) in [
        ("slot done", true),
        ("slots released", true),
        ("chunk written", false),
        ("spilled", false),
        ("slot done", false),
    ] {
        for passage in [1, 2, 20] {
            let story = format!("{point} {passage} panic {reaches_broker}");
            let mut scene = Scene::new(&story);
            let mut command = scene.command(MESSAGES, reaches_broker, 1);
            let output =
                command.env("LKFK_PANIC_AT", format!("{point}:{passage}")).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{story}: {said}");
            assert!(passage > 1 || said.contains("told to panic"), "{story}: {said}");
            scene.judge(&story);
        }
    }
}
