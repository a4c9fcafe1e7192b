//! Watches the directory of queue files: writes down when each was taken over by another process than the one
//! that made it, and when it was gone.
//!
//! A file's name is INSTANCE-PID-START.queue; who holds its lock is in /proc/locks. A line of the output is
//! `MILLISECONDS adopted|gone PID`, with the wall clock and the owner's pid.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const EVERY: Duration = Duration::from_millis(20);

/// `chaos watch QUEUE-DIRECTORY FILE`: until it is killed.
pub fn main(arguments: &[&str]) -> Result<ExitCode, String> {
    let [directory, file] = arguments else {
        return Err("chaos watch: takes a directory and a file".to_owned());
    };
    let mut out = fs::File::create(file).map_err(|error| format!("{file}: {error}"))?;
    let mut adopted: HashMap<u32, bool> = HashMap::new();
    loop {
        let queues = queues(directory).unwrap_or_default();
        let holders = fs::read_to_string("/proc/locks").map(|locks| holders(&locks));
        let mut news = String::new();
        adopted.retain(|pid, _| {
            let there = queues.iter().any(|queue| queue.0 == *pid);
            if !there {
                news += &format!("{} gone {pid}\n", now_ms());
            }
            there
        });
        for (pid, inode) in queues {
            let known = adopted.entry(pid).or_default();
            let holder = holders.as_ref().ok().and_then(|holders| holders.get(&inode));
            if !*known && holder.is_some_and(|holder| *holder != pid) {
                *known = true;
                news += &format!("{} adopted {pid}\n", now_ms());
            }
        }
        out.write_all(news.as_bytes()).map_err(|error| format!("{file}: {error}"))?;
        sleep(EVERY);
    }
}

/// Owner and inode of each queue file.
fn queues(directory: &str) -> io::Result<Vec<(u32, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner);
        // It may be gone by now.
        if let (Some(pid), Ok(meta)) = (owner, entry.metadata()) {
            found.push((pid, meta.ino()));
        }
    }
    Ok(found)
}

fn owner(name: &str) -> Option<u32> {
    name.strip_suffix(".queue")?.split('-').nth(1)?.parse().ok()
}

/// Inode to pid of the flock(2) locks: "1: FLOCK  ADVISORY  WRITE 815 fe:00:4711 0 EOF".
fn holders(locks: &str) -> HashMap<u64, u32> {
    let holder = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words[..] else { return None };
        Some((place.rsplit(':').next()?.parse().ok()?, pid.parse().ok()?))
    };
    locks.lines().filter_map(holder).collect()
}

/// Wall clock, milliseconds since 1970.
pub fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_queue_is_in_its_name() {
        assert_eq!(owner("0a1b2c3d-815-19ab.queue"), Some(815));
        assert_eq!(owner("0a1b2c3d-815-19ab.queue.damaged"), None);
        assert_eq!(owner("other"), None);
    }

    #[test]
    fn the_holder_of_a_lock_is_found_by_the_file() {
        let locks = "1: FLOCK  ADVISORY  WRITE 815 00:1b:16683 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 816 00:1b:16684 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 817 00:1b:16565 0 EOF\n";
        assert_eq!(holders(locks), HashMap::from([(16683, 815)]));
    }
}
