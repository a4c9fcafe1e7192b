//! Keeps the lines of backup files that are removed: what they had is the evidence of which messages went through
//! the backup, and so may come late.
//!
//! A file is opened when it is first seen, and read when it has no name any more: what it has then is what it had
//! at its end, whatever was cut off it before. One that comes and goes between two looks is missed, which makes
//! the judge sterner and never milder.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const EVERY: Duration = Duration::from_millis(10);

/// `chaos keep BACKUP-DIRECTORY FILE TOPIC...`: until SIGTERM.
pub fn main(arguments: &[&str]) -> Result<ExitCode, String> {
    let [directory, file, topics @ ..] = arguments else {
        return Err("chaos keep: takes a directory, a file and topics".to_owned());
    };
    let out = File::create(file).map_err(|error| format!("{file}: {error}"))?;
    let mut keeper = Keeper { open: HashMap::new(), out };
    let kept = crate::run(async {
        let mut end = signal(SignalKind::terminate())?;
        let mut tick = tokio::time::interval(EVERY);
        loop {
            let over = tokio::select! {
                _ = tick.tick() => false,
                _ = end.recv() => true,
            };
            keeper.look(Path::new(directory), topics)?;
            if over {
                return Ok(ExitCode::SUCCESS);
            }
        }
    })?;
    kept.map_err(|error: io::Error| format!("chaos keep: {error}"))
}

struct Keeper {
    /// By inode number, which nobody else gets while the file is open.
    open: HashMap<u64, File>,
    out: File,
}

impl Keeper {
    fn look(&mut self, directory: &Path, topics: &[&str]) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            // It may be gone by now.
            if !name.to_str().is_some_and(|name| is_replayed(name, topics)) {
                continue;
            }
            let Ok(file) = File::open(entry.path()) else { continue };
            self.open.entry(file.metadata()?.ino()).or_insert(file);
        }
        let mut gone = Vec::new();
        for (inode, file) in &self.open {
            if file.metadata()?.nlink() == 0 {
                gone.push(*inode);
            }
        }
        for inode in gone {
            let Some(mut file) = self.open.remove(&inode) else { continue };
            file.rewind()?;
            io::copy(&mut file, &mut self.out)?;
        }
        Ok(())
    }
}

/// Whether it is a topic's file, or a rotated one.
fn is_replayed(name: &str, topics: &[&str]) -> bool {
    let (topic, number) = name.split_once('~').unwrap_or((name, "1"));
    topics.contains(&topic) && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_a_file_had_when_it_was_removed_is_kept_once() {
        let directory = std::env::temp_dir().join(format!("chaos-keep-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let out = directory.join("out");
        let mut keeper = Keeper { open: HashMap::new(), out: File::create(&out).unwrap() };
        let path = directory.join("t");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"1\n2\n").unwrap();
        fs::write(directory.join("t~bad"), b"bad\n").unwrap();
        fs::write(directory.join("other"), b"other\n").unwrap();
        keeper.look(&directory, &["t"]).unwrap();
        file.set_len(2).unwrap();
        fs::rename(&path, directory.join("t~1")).unwrap();
        fs::write(&path, b"4\n").unwrap();
        keeper.look(&directory, &["t"]).unwrap();
        // Behind the two that are left.
        file.seek(io::SeekFrom::End(0)).unwrap();
        file.write_all(b"3\n").unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"");
        for name in ["t~1", "t~bad", "other"] {
            fs::remove_file(directory.join(name)).unwrap();
        }
        keeper.look(&directory, &["t"]).unwrap();
        keeper.look(&directory, &["t"]).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"1\n3\n");
        fs::remove_dir_all(&directory).unwrap();
    }
}
