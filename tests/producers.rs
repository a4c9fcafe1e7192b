//! The producers of a process: by name, each by itself, and ended together.
//!
//! Where a test is about the process it is played by this test program, started again with a part.

#![allow(clippy::disallowed_methods, reason = "processes are started, and end themselves")]

use lkfk::internals::config::{Config, Value};
use lkfk::internals::ffi::records::lkfk_record;
use lkfk::internals::ffi::{API, codes};
use lkfk::internals::queue::Flags;
use lkfk::internals::queue::layout::NO_PARTITION;
use lkfk::internals::record::Record;
use lkfk::internals::stats;
use lkfk::internals::worker::{self, Entry, Handle, InitError, Refusal};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What a child is told, in its environment: its part and its directory.
const PART: &str = "LKFK_PRODUCERS_TEST";

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path =
            std::env::temp_dir().join(format!("lkfk-producers-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Nobody can be delivered to, so that what is logged ends in the backup.
fn entries(directory: &Path) -> Vec<(String, Value)> {
    let text = |text: &str| Value::Text(text.as_bytes().to_vec());
    let path = |name| text(directory.join(name).to_str().unwrap());
    std::fs::create_dir_all(directory.join("queue")).unwrap();
    [
        ("metadata_broker_list", text("127.0.0.1:1")),
        ("queue_path", path("queue")),
        ("backpath", path("backup")),
        ("queue_buffering_max_kbytes", Value::Int(64)),
        ("message_max_bytes", Value::Int(1000)),
        ("exit_timeout_ms", Value::Int(0)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn config(directory: &Path) -> Config {
    Config::parse(&entries(directory), "/nowhere").unwrap()
}

fn log(handle: &Handle, topic: &str, payload: &str) -> Result<(), Refusal> {
    let topic = handle.topic(topic.as_bytes())?.into();
    let record = Record::new(0, None, Some(payload.as_bytes()));
    handle.push(&Entry {
        topic,
        partition: NO_PARTITION,
        flags: Flags::NONE,
        logged_ms: record.timestamp_ms,
        record,
    })
}

/// Payloads in the backup file of a topic, wherever below `directory` it lies.
fn backed_up(directory: &Path, topic: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(backed_up(&entry.path(), topic));
        } else if entry.file_name() == topic {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            found.extend(text.lines().map(|line| line.rsplit('\t').next().unwrap().to_owned()));
        }
    }
    found
}

fn queues(directory: &Path) -> usize {
    let below = std::fs::read_dir(directory.join("queue")).unwrap().map(Result::unwrap);
    below.map(|entry| std::fs::read_dir(entry.path()).unwrap().count()).sum()
}

/// What this process has of the producers below `directory`: mappings, descriptors; and its threads.
fn held(directory: &Path) -> [usize; 3] {
    let directory = directory.to_str().unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let links = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    [
        maps.lines().filter(|line| line.contains(directory)).count(),
        links.filter(|path| path.to_string_lossy().contains(directory)).count(),
        std::fs::read_dir("/proc/self/task").unwrap().count(),
    ]
}

#[test]
fn a_name_has_one_producer_and_one_configuration() {
    let scratch = Scratch::new("name");
    let first = worker::start("name.one", config(&scratch.0)).unwrap();
    let second = worker::start("name.one", config(&scratch.0)).unwrap();
    assert!(std::ptr::eq(first, second));
    assert!(std::ptr::eq(first, worker::find("name.one").unwrap()));
    let mut other = config(&scratch.0);
    other.delivery.send_key = false;
    assert!(matches!(worker::start("name.one", other), Err(InitError::Different)));
    assert!(matches!(worker::start("name/one", config(&scratch.0)), Err(InitError::Name)));
    assert!(matches!(worker::start("", config(&scratch.0)), Err(InitError::Name)));
    let tag = worker::with(first, |producer| producer.tag());
    assert_eq!(tag.as_deref(), Some("[lkfk name.one] "));
    worker::close(first);
    assert!(worker::find("name.one").is_none());
}

#[test]
fn closing_one_producer_ends_that_one_and_no_other() {
    let scratch = ["a", "b"].map(|name| Scratch::new(&format!("close-{name}")));
    let [a, b] = ["close.a", "close.b"].map(|name| {
        let at = usize::from(name.ends_with('b'));
        worker::start(name, config(&scratch[at].0)).unwrap()
    });
    log(a, "t", "to a").unwrap();
    log(b, "t", "to b").unwrap();
    worker::close(a);
    assert_eq!(log(a, "t", "late"), Err(Refusal::Closed));
    assert_eq!((a.tail(), a.waiting()), (0, 0));
    assert!(a.shared().is_none() && worker::with(a, |_| ()).is_none());
    assert_eq!(backed_up(&scratch[0].0, "t"), ["to a"]);
    assert_eq!((queues(&scratch[0].0), queues(&scratch[1].0)), (0, 1));
    assert_eq!(log(b, "t", "to b again"), Ok(()));

    // The name is free again; who kept the old handle is told that it is closed.
    let again = worker::start("close.a", config(&scratch[0].0)).unwrap();
    assert!(!std::ptr::eq(again, a));
    log(again, "t", "to the second a").unwrap();
    assert_eq!(log(a, "t", "late"), Err(Refusal::Closed));
    worker::close(a);
    worker::close(again);
    worker::close(b);
    assert_eq!(backed_up(&scratch[0].0, "t"), ["to a", "to the second a"]);
    assert_eq!(backed_up(&scratch[1].0, "t"), ["to b", "to b again"]);
}

/// A record for the C ABI; the pointers are good for as long as the slices are.
fn c_record(topic: i32, headers: &[u8], payload: &[u8]) -> lkfk_record {
    lkfk_record {
        topic: topic.try_into().unwrap(),
        partition: NO_PARTITION,
        flags: 0,
        timestamp_ms: -1,
        key: std::ptr::null(),
        key_len: 0,
        headers: headers.as_ptr().cast(),
        headers_len: headers.len(),
        payload: payload.as_ptr().cast(),
        payload_len: payload.len(),
    }
}

#[test]
fn each_call_of_the_c_abi_means_the_producer_that_it_names_and_says_when_that_is_closed() {
    let scratch = ["c", "d"].map(|name| Scratch::new(&format!("abi-{name}")));
    let [c, d] = [0, 1].map(|at| {
        let name = ["abi.c", "abi.d"][at];
        worker::start(name, config(&scratch[at].0)).unwrap().address()
    });
    let rejected = stats::ROWS.iter().position(|row| row.name == "rejected_cnt").unwrap() as u32;
    let (mut line, mut level) = ([0; 64], 0);
    // SAFETY: the handles are the registry's, and each pointer is to a local that is as long as is said.
    unsafe {
        let stat = |handle, index| {
            (API.stat)(handle, 0);
            (API.stat)(handle, index)
        };
        let topic = (API.topic)(c, c"topic".as_ptr(), 5);
        let refused = c_record(topic, &[2, 2, 0xff, 0], b"refused");
        assert_eq!((API.push_record)(c, &refused), codes::BAD_HEADER_NAME);
        assert_eq!((API.push_record)(c, &c_record(topic, &[0], b"")), codes::BAD_HEADERS);
        assert_eq!((API.push_record)(c, &c_record(topic, &[], b"taken")), codes::OK);
        assert_eq!([0, rejected].map(|index| stat(c, index)), [1, 2]);
        assert_eq!([0, rejected].map(|index| stat(d, index)), [0, 0]);
        (API.close)(c);
        assert_eq!((API.push_record)(c, &c_record(topic, &[], b"late")), codes::CLOSED);
        let (topic, text) = (topic as u32, c"late".as_ptr());
        assert_eq!((API.push)(c, topic, NO_PARTITION, text, 4, text, 4), codes::CLOSED);
        assert_eq!((API.topic)(c, text, 4), codes::CLOSED);
        assert_eq!((API.next_line)(c, line.as_mut_ptr(), line.len(), &mut level), -1);
        assert_eq!([0, rejected].map(|index| stat(c, index)), [0, 0]);
        // Nothing ends the process: the VM that goes is one of several.
        assert_eq!((API.leave)(d), 0);
        assert!((API.topic)(d, text, 4) >= 0);
        (API.close)(d);
        assert_eq!((API.topic)(d, text, 4), codes::CLOSED);
    }
    assert_eq!(backed_up(&scratch[0].0, "topic"), ["taken"]);
}

/// Plays a part when it is told one; otherwise it is no test.
#[test]
fn part_of_a_process() {
    let Ok(told) = std::env::var(PART) else { return };
    let (part, directory) = told.split_once('|').unwrap();
    let directory = Path::new(directory);
    match part {
        "exit" => {
            let default = worker::init(&entries(&directory.join("default")), "/nowhere").unwrap();
            let named = worker::start("named", config(&directory.join("named"))).unwrap();
            for number in 0..300 {
                log(default, "t", &number.to_string()).unwrap_or_else(|full| panic!("{full}"));
                log(named, "t", &number.to_string()).unwrap_or_else(|full| panic!("{full}"));
            }
            std::process::exit(0);
        }
        "close" => {
            let before = held(directory);
            for number in 0..100 {
                let started = worker::start(&format!("n{number}"), config(directory)).unwrap();
                log(started, "t", &number.to_string()).unwrap();
                worker::close(started);
            }
            // Threads that were told to end may take their time.
            let patience = Instant::now() + Duration::from_secs(20);
            while held(directory) != before && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(held(directory), before);
        }
        other => panic!("no part {other}"),
    }
}

fn play(part: &str, directory: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "part_of_a_process", "--nocapture"]);
    let output = child.env(PART, format!("{part}|{}", directory.display())).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn flt_08_the_end_of_the_process_ends_all_producers_whatever_brings_it_about() {
    let scratch = Scratch::new("exit");
    play("exit", &scratch.0);
    for name in ["default", "named"] {
        let directory = scratch.0.join(name);
        let all: Vec<String> = (0..300).map(|number| number.to_string()).collect();
        assert_eq!(backed_up(&directory, "t"), all, "{name}");
        assert_eq!(queues(&directory), 0, "{name}");
    }
}

#[test]
fn a_producer_that_was_closed_leaves_nothing_but_its_handle() {
    let scratch = Scratch::new("leak");
    play("close", &scratch.0);
    assert_eq!(backed_up(&scratch.0, "t").len(), 100);
    assert_eq!(queues(&scratch.0), 0);
    assert_eq!(size_of::<Handle>(), size_of::<usize>());
}
