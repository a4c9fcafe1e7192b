//! Appending to the backup files, and rotating them. Runs on the disk thread; at exit, on the driver's.
//!
//! # Invariants
//! - A chunk of whole lines is appended under the file's lock, after a look whether the name is still the
//!   file's: it may have been rotated, moved away or removed meanwhile. When the disk takes only a part of
//!   the chunk, file and journal are cut back to where they were.
//! - No file is open between two chunks, so that the space of one that is removed is free at once.
//! - What a killed writer left half done is repaired (`repair.rs`) before anything is appended, so that no line
//!   ever begins in the middle of another. Half a line of somebody else's is ended with a line feed.
//! - A file is rotated by renaming it under its lock, to a name that did not exist.

use super::dir::{BackupError, Directory, Locked};
use super::journal::{ENTRY_LEN, Entry, Journal, LONGEST_LINE};
use super::line_batch::LineBatch;
use super::names::{self, Kind};
use super::repair::{cut_back, ends_within_a_line, repair};
use crate::sys::files::errno;
use crate::{rename, topic_name};
use rustix::fs::{self, FileType};
use rustix::io::Errno;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// What is appended between two counts of all files is at most this part of the directory's limit.
const UNCOUNTED: u64 = 1024;
/// How often a file may be rotated or moved away between opening and locking it.
const RACES: u32 = 100;

/// How large backup files may become.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A file, in bytes; one chunk of lines may be larger.
    pub file: u64,
    /// All of them with their journals, in bytes. Several workers may pass it by what they append at the
    /// same moment.
    pub total: u64,
}

/// Who wrote what is appended.
enum Text<'a> {
    /// lkfk.
    Own(&'a LineBatch),
    /// A user's `failed_cb`.
    Others(&'a [u8]),
}

impl Text<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Text::Own(lines) => &lines.text,
            Text::Others(text) => text,
        }
    }

    /// What it takes on disk, its journal included.
    fn cost(&self) -> u64 {
        let entries = if let Text::Own(lines) = self { lines.marks.len() } else { 0 };
        (self.bytes().len() + entries * ENTRY_LEN) as u64
    }
}

/// The directory of the backup files, to be written to.
pub struct BackupDir {
    pub(super) dir: Directory,
    limits: Limits,
    /// Bytes of all files when they were last counted, and what was appended here since then.
    counted: u64,
    since: u64,
}

impl BackupDir {
    /// Opens the directory, making it and its parents when missing (mode 0700), and looks whether a file
    /// can be made in it.
    pub fn open(path: &Path, limits: Limits) -> Result<BackupDir, BackupError> {
        let dir = Directory::open(path)?;
        // Counted before the first append.
        Ok(BackupDir { dir, limits, counted: u64::MAX, since: 0 })
    }

    /// Path of the directory, for messages.
    pub fn path(&self) -> &Path {
        &self.dir.path
    }

    /// The limits it was opened with.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Appends lkfk's lines to the file of `topic`: all of them or none.
    pub fn append(&mut self, topic: &str, lines: &LineBatch) -> Result<(), BackupError> {
        self.append_text(topic, &Text::Own(lines))
    }

    /// Appends what a user wrote: all of it or nothing.
    pub fn append_others(&mut self, topic: &str, text: &[u8]) -> Result<(), BackupError> {
        self.append_text(topic, &Text::Others(text))
    }

    fn append_text(&mut self, topic: &str, text: &Text<'_>) -> Result<(), BackupError> {
        let name = self.current_name(topic)?;
        let name = name.as_str();
        let path = self.dir.path.join(name);
        let len = text.bytes().len() as u64;
        if len > LONGEST_LINE as u64 {
            return Err(BackupError::Unsafe { path, reason: "too much text at a time" });
        }
        self.make_room(text.cost())?;
        for _ in 0..RACES {
            let Some(file) = self.dir.open_file(name, true)? else {
                return Err(self.dir.error("cannot make", name)(Errno::NOENT));
            };
            let _locked = Locked::wait(&file).map_err(self.dir.error("cannot lock", name))?;
            // It may have been rotated, moved away or removed while we waited for the lock.
            if !self.dir.is_named(&file, name) {
                continue;
            }
            let mut journal = Journal::open_or_make(&self.dir.fd, &file)
                .map_err(self.dir.error("cannot make the journal of", name))?;
            let size = repair(&self.dir, name, &file, Some(&mut journal))?;
            if size > 0 && size + len > self.limits.file && rotate(&self.dir, topic, name) {
                continue;
            }
            write_whole(&self.dir, name, size, &file, &mut journal, text)?;
            self.since += text.cost();
            return Ok(());
        }
        Err(BackupError::Unsafe { path, reason: "is replaced faster than it is opened" })
    }

    /// Name of the file that a topic's lines are appended to. A directory may have the topic's: a person's, or that of
    /// the queues of a version that called it `lkfk-UID`.
    fn current_name(&self, topic: &str) -> Result<String, BackupError> {
        if !topic_name::is_valid(topic) {
            let path = self.dir.path.join(topic);
            return Err(BackupError::Unsafe { path, reason: "not a topic name" });
        }
        let is_directory = self
            .dir
            .stat(topic)
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let kind = if is_directory { Kind::Displaced } else { Kind::Current };
        let error = self.dir.error("cannot name the file of", topic);
        names::name(topic, kind).ok_or_else(|| error(Errno::NAMETOOLONG))
    }

    /// Sees to it that `len` more bytes fit into the directory's limit. The files are counted anew once a part of the
    /// limit was appended that even many workers together do not pass it by, and at each append when little is left.
    fn make_room(&mut self, len: u64) -> Result<(), BackupError> {
        let Limits { total: limit, .. } = self.limits;
        let sum = self.counted.saturating_add(self.since).saturating_add(len);
        if self.since < limit / UNCOUNTED && sum < limit / 8 * 7 {
            return Ok(());
        }
        self.counted = self.dir.total().map_err(self.dir.error("cannot list", ""))?;
        self.since = 0;
        if self.counted.saturating_add(len) > limit {
            return Err(BackupError::Full { path: self.dir.path.clone(), limit });
        }
        Ok(())
    }
}

/// Gives the file `name` of a topic, which is locked, the name of a rotated one. False when that is not possible:
/// then the file goes on growing, up to the limit of the directory.
fn rotate(dir: &Directory, topic: &str, name: &str) -> bool {
    let Ok(files) = dir.list() else { return false };
    let numbers = files
        .iter()
        .filter(|file| file.topic == topic)
        .filter_map(|file| if let Kind::Rotated(number) = file.kind { Some(number) } else { None });
    let next = numbers.max().unwrap_or(0).checked_add(1);
    let Some(rotated) = next.and_then(|next| names::name(topic, Kind::Rotated(next))) else {
        return false;
    };
    rename::to_new_name(&dir.fd, name, &rotated).is_ok()
}

/// Appends all of `text` to a locked file of `size` bytes, entries first, or leaves file and journal as they
/// were.
fn write_whole(
    dir: &Directory,
    name: &str,
    size: u64,
    file: &File,
    journal: &mut Journal,
    text: &Text<'_>,
) -> Result<(), BackupError> {
    let half_line = ends_within_a_line(file, size).map_err(dir.error("cannot read", name))?;
    let begin = size + u64::from(half_line);
    let count = journal.len().map_err(dir.error("cannot read the journal of", name))?;
    if let Text::Own(lines) = text {
        let error = dir.error("cannot append to the journal of", name);
        journal.append(entries_of(lines, begin)).map_err(error)?;
    }
    crate::crash_points::crash_point("chunk to be written");
    #[cfg(feature = "crash_points")]
    if crate::crash_points::is_next("half a chunk written") {
        let _ = (&*file).write_all(&text.bytes()[..text.bytes().len() / 2]);
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    let mut written = 0;
    let end_line = if half_line { write_all(file, b"\n", &mut written) } else { Ok(()) };
    if let Err(errno) = end_line.and_then(|()| write_all(file, text.bytes(), &mut written)) {
        let errno = take_back(file, written, errno);
        // What stays claimed is taken back by the next writer.
        let _ = journal.truncate(count);
        return Err(dir.error("cannot append to", name)(errno));
    }
    crate::crash_points::crash_point("chunk written");
    // A script, or the original module in a worker that is exiting, may have appended without the
    // lock: then the lines stand further down than their entries say.
    if let Text::Own(lines) = text {
        let end = fs::tell(file).map_err(dir.error("cannot tell the end of", name))?;
        let begun = end.saturating_sub(lines.text.len() as u64);
        if begun != begin {
            let error = dir.error("cannot mend the journal of", name);
            journal.truncate(count).map_err(&error)?;
            journal.append(entries_of(lines, begun)).map_err(&error)?;
        }
    }
    Ok(())
}

/// Appends `bytes`, and adds to `written` how many of them the file took.
fn write_all(mut file: &File, mut bytes: &[u8], written: &mut u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => {
                *written += count as u64;
                bytes = &bytes[count..];
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(error)),
        }
    }
    Ok(())
}

/// Cuts off the last `written` bytes, which are ours, after an append failed for the reason `errno`; returns what is
/// worse. What others appended meanwhile without the lock stays, before ours or behind them.
fn take_back(file: &File, written: u64, errno: Errno) -> Errno {
    if written == 0 {
        return errno;
    }
    match (fs::tell(file), fs::fstat(file)) {
        (Ok(end), Ok(stat)) if stat.st_size as u64 == end => {
            cut_back(file, end.saturating_sub(written), errno)
        }
        (Ok(_), Ok(_)) => errno,
        (Err(worse), _) | (_, Err(worse)) => worse,
    }
}

fn entries_of(lines: &LineBatch, begin: u64) -> impl Iterator<Item = Entry> + '_ {
    let mut at = 0;
    lines.marks.iter().map(move |mark| {
        let line = &lines.text[at..at + mark.len as usize];
        let entry = Entry::new(begin + at as u64, mark.logged_ms, mark.refused, line);
        at += line.len();
        entry
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, limits, lines};
    use super::*;
    use std::process::Command;

    #[test]
    fn dsk_01_a_write_that_does_not_fit_leaves_no_half_line() {
        let scratch = Scratch::new("limit");
        let dir = Directory::open(&scratch.0).unwrap();
        // A sealed memfd takes no byte beyond its size: a disk that is full, without one.
        let full = fs::memfd_create("full", fs::MemfdFlags::ALLOW_SEALING).unwrap();
        let full = File::from(full);
        rustix::io::write(&full, b"first\n").unwrap();
        fs::fcntl_add_seals(&full, fs::SealFlags::GROW).unwrap();
        let mut journal = Journal::open_or_make(&dir.fd, &full).unwrap();
        let lines = lines("t", 1..=2);
        let written = write_whole(&dir, "t", 6, &full, &mut journal, &Text::Own(&lines));
        assert!(written.is_err());
        assert_eq!(fs::fstat(&full).unwrap().st_size, 6);
        assert_eq!(journal.len(), Ok(0));
    }

    #[test]
    fn what_a_script_appended_without_the_lock_stays_when_a_write_fails() {
        let full = fs::memfd_create("full", fs::MemfdFlags::ALLOW_SEALING).unwrap();
        let full = File::from(full);
        let scratch = Scratch::new("unlocked-full");
        let dir = Directory::open(&scratch.0).unwrap();
        let mut journal = Journal::open_or_make(&dir.fd, &full).unwrap();
        // After the size was looked at, and before the write.
        rustix::io::write(&full, b"a script's line\n").unwrap();
        full.set_len(20).unwrap();
        fs::fcntl_add_seals(&full, fs::SealFlags::GROW).unwrap();
        let lines = lines("t", 1..=2);
        let written = write_whole(&dir, "t", 0, &full, &mut journal, &Text::Own(&lines));
        assert!(written.is_err());
        let mut text = [0; 16];
        assert_eq!(rustix::io::pread(&full, &mut text, 0), Ok(16));
        assert_eq!(&text, b"a script's line\n");
        assert_eq!(journal.len(), Ok(0));
    }

    #[test]
    fn lines_behind_what_a_script_appended_without_the_lock_are_found_again() {
        let scratch = Scratch::new("unlocked");
        let dir = Directory::open(&scratch.0).unwrap();
        let file = dir.open_file("t", true).unwrap().unwrap();
        let mut journal = Journal::open_or_make(&dir.fd, &file).unwrap();
        // After the size was looked at, and before the write.
        std::fs::write(scratch.0.join("t"), b"a script's line\n").unwrap();
        let lines = lines("t", 1..=2);
        write_whole(&dir, "t", 0, &file, &mut journal, &Text::Own(&lines)).unwrap();
        let text = std::fs::read(scratch.0.join("t")).unwrap();
        let entries = journal.entries(0, 9).unwrap();
        assert_eq!(entries.len(), 2);
        for entry in entries {
            assert!(entry.matches(&text[entry.offset as usize..entry.end() as usize]));
        }
    }

    /// Runs as a process of its own: the limit is the process's, as is the signal.
    #[test]
    fn dsk_01_a_short_write_leaves_file_and_journal_as_they_were() {
        const DIR: &str = "LKFK_SHORT_WRITE_DIR";
        const LIMIT: u64 = 100_000;
        let name =
            "backup::writer::tests::dsk_01_a_short_write_leaves_file_and_journal_as_they_were";
        let Some(path) = std::env::var_os(DIR) else {
            let scratch = Scratch::new("short");
            let exe = std::env::current_exe().unwrap();
            let child = Command::new(exe).args(["--exact", name]).env(DIR, &scratch.0).output();
            let child = child.unwrap();
            assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
            assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
            return;
        };
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let limit = rustix::process::Rlimit { current: Some(LIMIT), maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        let path = Path::new(&path);
        let mut dir = BackupDir::open(path, limits(1 << 30)).unwrap();
        dir.append("t", &lines("t", 1..=10)).unwrap();
        let before = std::fs::read(path.join("t")).unwrap();
        // The first part of this is written before the limit stops it.
        assert!(dir.append("t", &lines("t", 11..=20_000)).is_err());
        assert_eq!(std::fs::read(path.join("t")).unwrap(), before);
        dir.append("t", &lines("t", 11..=12)).unwrap();
        let file = File::open(path.join("t")).unwrap();
        let journal = Journal::open(&dir.dir.fd, &file).unwrap().unwrap();
        assert_eq!(journal.len(), Ok(12));
        let text = std::fs::read(path.join("t")).unwrap();
        for entry in journal.entries(0, 12).unwrap() {
            assert!(entry.matches(&text[entry.offset as usize..entry.end() as usize]));
        }
    }
}
