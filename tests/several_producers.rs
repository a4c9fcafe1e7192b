//! Several producers in one process, each with a broker, a queue and a backup of its own: they share the driver thread
//! and, on one file system, the disk thread, and none of them holds up another.

#![allow(clippy::disallowed_methods, reason = "things take their time")]

#[allow(dead_code, reason = "the broker tells no lies here, and nothing is counted")]
mod support {
    pub mod broker;
    pub mod memory;
}

use lkfk::internals::config::{Config, Value};
use lkfk::internals::driver::Driver;
use lkfk::internals::queue::layout::NO_PARTITION;
use lkfk::internals::queue::{Flags, PushError, Writer, layout};
use lkfk::internals::record::Record;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use support::broker::Broker;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// Threads are those of the whole process, so one scene is on at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A running producer.
struct Producer {
    driver: Driver,
    writer: Writer,
    name: &'static str,
    logged: usize,
}

struct Scene {
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn new() -> Scene {
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Scene { directory: tempfile::tempdir().unwrap(), _alone: alone }
    }

    fn queues(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name).join("queue")
    }

    fn producer(&self, name: &'static str, port: u16) -> Producer {
        std::fs::create_dir_all(self.queues(name)).unwrap();
        let text = |text: String| Value::Text(text.into_bytes());
        let path = |path: &Path| text(path.display().to_string());
        let entries = [
            ("metadata_broker_list", text(format!("127.0.0.1:{port}"))),
            ("queue_path", path(&self.queues(name))),
            ("backpath", path(&self.directory.path().join(name).join("backup"))),
            ("queue_buffering_max_kbytes", Value::Int(1024)),
            ("message_max_bytes", Value::Int(10_000)),
            ("queue_buffering_max_ms", Value::Int(60_000)),
            ("message_timeout_ms", Value::Int(600_000)),
            ("reconnect_backoff_max_ms", Value::Int(100)),
        ];
        let entries = entries.map(|(key, value)| (key.to_owned(), value));
        let config = Config::parse(&entries, "/nowhere").unwrap();
        let (driver, writer) = Driver::start(config, "", "several").unwrap();
        Producer { driver, writer, name, logged: 0 }
    }
}

impl Producer {
    fn log(&mut self, count: usize) {
        let topic = self.writer.topic("topic").unwrap();
        for _ in 0..count {
            let payload = format!("{} {}", self.name, self.logged);
            if push(&mut self.writer, topic, payload.as_bytes()).unwrap() {
                self.driver.shared().signal();
            }
            self.logged += 1;
        }
    }

    /// Sends what was logged, and waits until the broker has all of it, and nothing of others.
    fn deliver(&self, broker: &Broker) {
        self.driver.flush(self.writer.tail());
        let own = |payload: &[u8]| payload.starts_with(self.name.as_bytes());
        eventually(|| broker.arrived_count() >= self.logged);
        assert!(broker.arrived().iter().all(|arrived| own(&arrived.payload)));
        assert_eq!(broker.arrived_count(), self.logged);
        eventually(|| self.driver.is_done(self.writer.tail()));
    }

    fn restarts(&self) -> u64 {
        self.driver.shared().stats.driver_restarts.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        assert!(
            {
                self.driver.begin_stop(Duration::from_secs(5));
                self.driver.wait(|| None)
            },
            "{} does not end",
            self.name
        );
    }
}

fn push(writer: &mut Writer, topic: u16, payload: &[u8]) -> Result<bool, PushError> {
    writer.push(topic, NO_PARTITION, 0, &Record::new(0, None, Some(payload)), Flags::NONE)
}

fn eventually(mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happens() {
        assert!(Instant::now() < deadline, "not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Threads of this process that have this name.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let comms = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    // One may have ended meanwhile.
    comms.filter(|comm| comm.as_ref().is_ok_and(|comm| comm.trim_end() == name)).count()
}

fn honest() -> Broker {
    Broker::start((12, 12), Vec::new())
}

#[test]
fn producers_share_their_threads_which_end_with_the_last_of_them() {
    let scene = Scene::new();
    let brokers = [honest(), honest(), honest()];
    for _ in 0..2 {
        let names = ["one", "two", "three"];
        let mut producers: Vec<Producer> = names
            .iter()
            .zip(&brokers)
            .map(|(name, broker)| scene.producer(name, broker.port()))
            .collect();
        let before = brokers.each_ref().map(Broker::arrived_count);
        for ((producer, broker), before) in producers.iter_mut().zip(&brokers).zip(before) {
            producer.logged = before;
            producer.log(100);
            producer.deliver(broker);
        }
        assert_eq!((threads("lkfk"), threads("lkfk-disk")), (1, 1));
        producers.iter().for_each(Producer::stop);
        eventually(|| (threads("lkfk"), threads("lkfk-disk")) == (0, 0));
    }
}

#[test]
fn a_producer_whose_cluster_is_down_holds_up_no_other_and_ends_alone() {
    let scene = Scene::new();
    let (broker, gone) = (honest(), honest().port());
    let mut up = scene.producer("up", broker.port());
    let mut down = scene.producer("down", gone);
    down.log(100);
    for _ in 0..20 {
        up.log(10);
        up.deliver(&broker);
    }
    assert!(!down.driver.is_done(down.writer.tail()));
    {
        down.driver.begin_stop(Duration::ZERO);
        down.driver.wait(|| None)
    };
    let backup = std::fs::read_to_string(scene.directory.path().join("down/backup/topic")).unwrap();
    assert_eq!(backup.lines().count(), 100);
    up.log(10);
    up.deliver(&broker);
    assert_eq!(threads("lkfk"), 1);
    up.stop();
}

#[test]
fn a_fault_in_one_producer_restarts_that_one_alone() {
    let scene = Scene::new();
    let brokers = [honest(), honest()];
    let mut good = scene.producer("good", brokers[0].port());
    let mut bad = scene.producer("bad", brokers[1].port());
    good.log(10);
    bad.log(10);
    let read = |producer: &Producer| {
        producer.driver.shared().stats.metadata_requests_sent.load(Ordering::Relaxed)
    };
    eventually(|| read(&bad) > 0);
    // Somebody writes into the queue file under the producer, which has read its records already.
    let directory = std::fs::read_dir(scene.queues("bad")).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
    let file = File::options().write(true).open(file).unwrap();
    let data = layout::Areas::of(1024 * 1024).data;
    file.write_all_at(&[0xff; 4096], data as u64).unwrap();
    bad.driver.flush(bad.writer.tail());
    eventually(|| bad.restarts() > 0);
    good.log(10);
    good.deliver(&brokers[0]);
    assert_eq!(good.restarts(), 0);
    // What cannot be read is reported, and what comes after it is delivered.
    let mut lines = Vec::new();
    eventually(|| {
        lines.extend(std::iter::from_fn(|| bad.driver.shared().log.take()));
        lines.iter().any(|(_, line)| line.contains("messages are lost"))
    });
    bad.logged = brokers[1].arrived_count();
    bad.log(10);
    bad.deliver(&brokers[1]);
    good.stop();
    bad.stop();
}
