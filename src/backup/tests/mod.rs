//! Backup files as operators, disks and other workers find and treat them.

mod files;
mod identity;
mod model;
mod replay;

use super::backlog::{Place, Which};
use super::format::{self, Line, Writing};
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A directory that goes with the test.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("lkfk-backup-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn dir(&self, file: u64) -> BackupDir {
        BackupDir::open(&self.0, limits(file)).unwrap()
    }

    fn backlog(&self, which: Which) -> Backlog {
        let mut backlog = Backlog::open(&self.0, which, 1_000_000).unwrap();
        // Another test that starts a process leaves that a copy of a descriptor, and so of the lock, for a moment.
        for _ in 0..1_000 {
            if backlog.lock().unwrap() {
                return backlog;
            }
            #[allow(clippy::disallowed_methods, reason = "a process is waited for")]
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("another process has the lock");
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8(std::fs::read(self.0.join(name)).unwrap_or_default()).unwrap()
    }

    /// Names of the backup files, journals and lock left out.
    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('~')).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn limits(file: u64) -> Limits {
    Limits { file, total: 1 << 40 }
}

const TIME: i64 = 1_700_000_000_123;

/// Lines of messages whose payloads are these numbers.
pub(super) fn lines(topic: &str, numbers: impl IntoIterator<Item = u64>) -> LineBatch {
    let mut lines = LineBatch::default();
    for number in numbers {
        let payload = number.to_string();
        let payload = payload.as_bytes();
        lines.push(&Line::new(TIME, topic, Some(b"k"), Some(payload)));
    }
    lines
}

fn payloads(chunk: &Chunk) -> Vec<String> {
    (0..chunk.len())
        .map(|index| {
            let payload = chunk.get(index).unwrap().record.payload.unwrap();
            String::from_utf8_lossy(payload).into_owned()
        })
        .collect()
}

/// Reads and commits until nothing is left of the topic.
fn drain(backlog: &mut Backlog, topic: &str) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(chunk) = backlog.read(topic, &HashSet::new()).unwrap() {
        all.extend(payloads(&chunk));
        backlog.commit(&chunk, None, &[]).unwrap();
    }
    all
}

fn numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}
