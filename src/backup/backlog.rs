//! Reading backup files back, to send their lines again. Runs on the disk thread.
//!
//! # Invariants
//! - One process at a time reads the files of a directory: the one that has locked `~lock`.
//! - A chunk of a file is in memory, never a file. Progress is on disk before the next chunk of the file is
//!   read, so a process that is killed repeats one chunk of a topic at most.
//! - A stretch of a file is either lkfk's, by its journal, or somebody else's. Each of the two has a progress
//!   of its own, so that the others' lines, which `replay = true` passes over, are still found by "all".
//! - A file is removed when all of it is done with, under its lock; bytes that are no line, or that Kafka
//!   will never take, are copied to `TOPIC~bad` before that.
//! - A file whose lines name another topic than the file does was moved there by somebody, and is left alone.

use super::chunk::Chunk;
use super::dir::{self, BackupError, Directory, Locked};
use super::format::{LONGEST_FRONT, Writing, has_front_of_line};
use super::journal::{self, BEFORE, Journal, Listed, Progress};
use super::names::{JOURNALS, Kind, LOCK};
use super::repair::{repair, set_aside};
use super::scan::{Collected, LINES, Scan, Stretch, Window};
pub use super::scan::{Place, Which};
use crate::crash_points::crash_point;
use crate::sys::files::read_at;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Seconds after which the journal of a file that is gone is removed: an operator may put the file back.
const GONE_FOR: i64 = 86_400;
/// Bytes of the lock's file that are read and written.
const MOST_NOTED: usize = 1 << 16;

/// What waits in the files of a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Bytes that are to be replayed; 0 when all is done but a file's removal.
    pub bytes: u64,
    /// lkfk wrote lines of one of the files, or a person has named one so that it is sent. Otherwise they are
    /// strangers', and perhaps lie there by accident: nobody has said that there is such a topic.
    pub known: bool,
}

impl Waiting {
    fn add(&mut self, other: Waiting) {
        self.bytes += other.bytes;
        self.known |= other.known;
    }
}

/// The backup files of a directory, to be read.
pub struct Backlog {
    dir: Directory,
    which: Which,
    /// Longest key, headers and payload together, in bytes.
    longest: usize,
    lock: Option<File>,
    /// Files that are left alone, by inode number and name.
    left_alone: BTreeMap<u64, String>,
    /// Files of which it was looked whether they begin with lines that no journal knows, by inode number. They stand in
    /// the lock's file, so that each is told of once and not by each process that has the lock for a while.
    looked_at: HashSet<u64>,
    /// Names of those that do, and that nobody was told of.
    unclaimed: Vec<String>,
    /// Files that could not be looked at the last time, and why.
    troubles: Vec<BackupError>,
}

impl Backlog {
    /// Opens the directory. `longest` is what key, headers and payload of a message may take together.
    pub fn open(path: &Path, which: Which, longest: usize) -> Result<Backlog, BackupError> {
        let dir = Directory::open(path)?;
        Ok(Backlog {
            dir,
            which,
            longest,
            lock: None,
            left_alone: BTreeMap::new(),
            looked_at: HashSet::new(),
            unclaimed: Vec::new(),
            troubles: Vec::new(),
        })
    }

    /// Takes the lock, or sees to it that it is still held. False when another process has it.
    pub fn lock(&mut self) -> Result<bool, BackupError> {
        if let Some(lock) = &self.lock
            && self.dir.is_named(lock, LOCK)
        {
            return Ok(true);
        }
        self.lock = None;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.dir.fd, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(self.dir.error("cannot open", LOCK))?;
        match Locked::now(&file) {
            Ok(locked) => locked.keep(),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(errno) => return Err(self.dir.error("cannot lock", LOCK)(errno)),
        }
        self.looked_at = noted_numbers(&file);
        self.lock = Some(file);
        Ok(true)
    }

    /// Lets another process replay.
    pub fn unlock(&mut self) {
        self.lock = None;
    }

    /// Topics of which something waits. Reads names, sizes and journals, and of each file no more lines than tell whose
    /// it is. `now_s` is the wall clock, in seconds.
    pub fn waiting(&mut self, now_s: i64) -> Result<BTreeMap<String, Waiting>, BackupError> {
        let files = self.dir.list().map_err(self.dir.error("cannot list", ""))?;
        let alive: HashSet<u64> = files.iter().map(|file| file.inode).collect();
        self.left_alone.retain(|inode, name| {
            files.iter().any(|file| file.inode == *inode && file.name == *name)
        });
        let looked_at = self.looked_at.clone();
        self.looked_at.retain(|inode| alive.contains(inode));
        let mut waiting = BTreeMap::<String, Waiting>::new();
        self.troubles.clear();
        for file in &files {
            match self.look_at(file) {
                Ok(Some(found)) => waiting.entry(file.topic.clone()).or_default().add(found),
                Ok(None) => {}
                // One file is no reason to leave all others where they are.
                Err(error) => self.troubles.push(error),
            }
        }
        if self.looked_at != looked_at
            && let Some(lock) = &self.lock
        {
            note_numbers(lock, &self.looked_at);
        }
        let error = self.dir.error("cannot look after", JOURNALS);
        for Listed { inode, gone_since, .. } in journal::list(&self.dir.fd).map_err(&error)? {
            let tended = match gone_since {
                _ if alive.contains(&inode) => Ok(()),
                None => Journal::file_is_gone(&self.dir.fd, inode),
                Some(since) if now_s - since > GONE_FOR => Journal::forget(&self.dir.fd, inode),
                Some(_) => Ok(()),
            };
            tended.map_err(&error)?;
        }
        Ok(waiting)
    }

    /// What waits in a file; `None` when there is nothing to do about it.
    fn look_at(&mut self, file: &dir::Entry) -> Result<Option<Waiting>, BackupError> {
        if file.kind == Kind::Bad || self.left_alone.contains_key(&file.inode) {
            return Ok(None);
        }
        let error = self.dir.error("cannot read the journal of", &file.name);
        let open = match self.dir.open_file(&file.name, false) {
            Ok(Some(open)) => open,
            Ok(None) => return Ok(None),
            // A stranger's: what is wrong with it does not matter.
            Err(_) if !self.may_hold_wanted(file).map_err(&error)? => return Ok(None),
            Err(error) => return Err(error),
        };
        let journal = Journal::open(&self.dir.fd, &open).map_err(&error)?;
        let progress = match &journal {
            Some(journal) => valid_progress(journal, &open, file.size).map_err(&error)?,
            None => Progress::default(),
        };
        let unknown = journal.as_ref().map_or(file.size, Journal::unknown);
        self.look_for_unclaimed(file, &open, unknown, &progress).map_err(&error)?;
        let known = match &journal {
            Some(journal) => journal.len().map_err(&error)? > 0,
            None => false,
        };
        let bytes = bytes_left(self.which(file.kind), file.size, journal.as_ref(), &progress);
        let known = known || file.kind == Kind::Redo;
        Ok(bytes.map_err(&error)?.map(|bytes| Waiting { bytes, known }))
    }

    /// False for a file in which no line is to be replayed, whatever it holds.
    fn may_hold_wanted(&self, file: &dir::Entry) -> Result<bool, Errno> {
        Ok(self.which(file.kind) == Which::All || Journal::is_there(&self.dir.fd, file.inode)?)
    }

    /// Whether a file begins with lines that lkfk may have written, though no journal says so: then they are not sent,
    /// and a person is to know.
    fn look_for_unclaimed(
        &mut self,
        file: &dir::Entry,
        open: &File,
        unknown: u64,
        progress: &Progress,
    ) -> Result<(), Errno> {
        let passed_over = self.which(file.kind) == Which::Own && progress.others < unknown;
        if passed_over && self.looked_at.insert(file.inode) {
            let mut front = [0; LONGEST_FRONT];
            let read = read_at(open, &mut front, 0)?;
            if has_front_of_line(&front[..read], &file.topic) {
                self.unclaimed.push(file.name.clone());
            }
        }
        Ok(())
    }

    /// Names of files that begin with lines which look like lkfk's and are in no journal, so that they are not sent:
    /// each is given once.
    pub fn take_unclaimed(&mut self) -> Vec<String> {
        self.unclaimed.sort();
        std::mem::take(&mut self.unclaimed)
    }

    /// The oldest lines of a topic that wait, but for those in `settled`; `None` when there are none, or when
    /// somebody writes to the file at this moment.
    pub fn read(
        &mut self,
        topic: &str,
        settled: &HashSet<Place>,
    ) -> Result<Option<Chunk>, BackupError> {
        let mut files = self.dir.list().map_err(self.dir.error("cannot list", ""))?;
        files.retain(|file| file.topic == topic);
        files.sort_by_key(|file| file.kind);
        for file in files {
            match self.look_at(&file) {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                // Its lines have no order against the topic's others. `waiting()` has said what is wrong with it.
                Err(_) if file.kind == Kind::Redo => continue,
                Err(error) => return Err(error),
            }
            let Some(open) = self.dir.open_file(&file.name, false)? else { continue };
            match Locked::now(&open) {
                Ok(locked) => locked.keep(),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(self.dir.error("cannot lock", &file.name)(errno)),
            }
            if !self.dir.is_named(&open, &file.name) {
                continue;
            }
            match self.read_locked(&file, open, settled)? {
                Found::Chunk(chunk) => return Ok(Some(*chunk)),
                Found::Nothing => {}
                Found::AnotherTopic => {
                    self.left_alone.insert(file.inode, file.name);
                }
            }
        }
        Ok(None)
    }

    /// Why files could not be looked at the last time; they wait.
    pub fn troubles(&self) -> &[BackupError] {
        &self.troubles
    }

    /// Names of files that are left alone, since their lines are of other topics.
    pub fn left_alone(&self) -> impl Iterator<Item = &str> {
        self.left_alone.values().map(String::as_str)
    }

    /// Reads a chunk of a file, whose lock is let go of with the chunk at the latest.
    fn read_locked(
        &self,
        entry: &dir::Entry,
        file: File,
        settled: &HashSet<Place>,
    ) -> Result<Found, BackupError> {
        let error = self.dir.error("cannot read", &entry.name);
        let which = self.which(entry.kind);
        let inode = fs::fstat(&file).map_err(&error)?.st_ino;
        let mut journal = Journal::open(&self.dir.fd, &file).map_err(&error)?;
        let size = repair(&self.dir, &entry.name, &file, journal.as_mut())?;
        let (begin, entries) = match &journal {
            None => (Progress::default(), Vec::new()),
            Some(journal) => {
                let progress = valid_progress(journal, &file, size).map_err(&error)?;
                let from = start(which, &progress);
                let first = journal.first_that(|entry| entry.end() > from).map_err(&error)?;
                (progress, journal.entries(first, LINES).map_err(&error)?)
            }
        };
        let mut scan = Scan {
            which,
            others_writing: match entry.kind {
                Kind::Redo => Writing::Escaped,
                _ => Writing::Raw,
            },
            topic: &entry.topic,
            longest: self.longest,
            growing: matches!(entry.kind, Kind::Current | Kind::Displaced),
            inode,
            settled,
            size,
            more_entries: entries.len() == LINES,
            window: Window { file: &file, bytes: Vec::new(), at: 0 },
            at: start(which, &begin),
            progress: begin,
            collected: Collected::default(),
        };
        let same_topic = scan.run(&entries).map_err(&error)?;
        if !same_topic {
            return Ok(Found::AnotherTopic);
        }
        let Scan { progress: end, collected, .. } = scan;
        let Collected { messages, bytes, bad, why_bad } = collected;
        let end =
            Progress { before: before(&file, end.own.max(end.others)).map_err(&error)?, ..end };
        let finished = end.own == size && end.others == size;
        let moved_on = (end.own, end.others) != (begin.own, begin.others);
        if !moved_on && messages.is_empty() && !finished {
            return Ok(Found::Nothing);
        }
        // Writers may go on; what was read does not change.
        fs::flock(&file, fs::FlockOperation::Unlock).map_err(&error)?;
        let (topic, name) = (entry.topic.clone(), entry.name.clone());
        let chunk = Chunk { topic, name, file, inode, messages, bytes, bad, why_bad, begin, end };
        Ok(Found::Chunk(Box::new(chunk)))
    }

    /// What is replayed of a file: a person wants all of a `~redo` file sent.
    fn which(&self, kind: Kind) -> Which {
        if kind == Kind::Redo { Which::All } else { self.which }
    }

    /// Notes what became of a chunk: all its messages but those from number `open` on are done with (or are
    /// remembered by the caller). `refused` are those that Kafka will never take, wherever they stand; they
    /// are moved aside with the bad lines; returns how many lines were. Removes the file when nothing of it is
    /// left.
    pub fn commit(
        &mut self,
        chunk: &Chunk,
        open: Option<usize>,
        refused: &[usize],
    ) -> Result<usize, BackupError> {
        crash_point("chunk replayed");
        let dir = &self.dir;
        let error = dir.error("cannot note the progress of", &chunk.name);
        let locked = Locked::wait(&chunk.file).map_err(&error)?;
        let stat = fs::fstat(&chunk.file).map_err(&error)?;
        let furthest = chunk.end.own.max(chunk.end.others);
        if before(&chunk.file, furthest).map_err(&error)? != chunk.end.before {
            // Cut by the operator meanwhile: what stands there now begins anew.
            return Ok(0);
        }
        let stop = open.and_then(|index| chunk.messages.get(index)).map(|open| open.line.from);
        let mut bad: Vec<Stretch> =
            refused.iter().map(|index| chunk.messages[*index].line).collect();
        bad.extend(chunk.bad.iter().filter(|bad| stop.is_none_or(|stop| bad.from < stop)));
        bad.sort_by_key(|bad| bad.from);
        let moved = bad.len();
        let mut merged: Vec<Stretch> = Vec::new();
        for stretch in bad {
            match merged.last_mut() {
                Some(last) if last.from + last.len == stretch.from => last.len += stretch.len,
                _ => merged.push(stretch),
            }
        }
        for stretch in merged {
            set_aside(dir, &chunk.name, &chunk.file, stretch.from, stretch.len)?;
        }
        let mut done = chunk.end;
        if let Some(stop) = stop {
            done.own = chunk.begin.own.max(done.own.min(stop));
            done.others = chunk.begin.others.max(done.others.min(stop));
            done.inside_bad &= chunk.end.others <= stop;
        }
        if stat.st_nlink == 0 {
            // Removed by the operator.
            Journal::forget(&dir.fd, chunk.inode).map_err(&error)?;
            return Ok(moved);
        }
        done.before = before(&chunk.file, done.own.max(done.others)).map_err(&error)?;
        let mut journal = Journal::open_or_make(&dir.fd, &chunk.file).map_err(&error)?;
        journal.set_progress(done).map_err(&error)?;
        drop(locked);
        crash_point("progress noted");
        if done.own == done.others && done.own == stat.st_size as u64 {
            self.remove(chunk, done.own).map_err(&error)?;
        }
        Ok(moved)
    }

    /// Removes a file that has not grown since, unless somebody is about to write to it.
    fn remove(&self, chunk: &Chunk, size: u64) -> Result<(), Errno> {
        let locked = match Locked::now(&chunk.file) {
            Err(Errno::WOULDBLOCK) => return Ok(()),
            locked => locked?,
        };
        let unchanged = fs::fstat(&chunk.file)?.st_size as u64 == size;
        if unchanged && self.dir.is_named(&chunk.file, &chunk.name) {
            fs::unlinkat(&self.dir.fd, &chunk.name, AtFlags::empty())?;
            crash_point("backup file removed");
            Journal::forget(&self.dir.fd, chunk.inode)?;
        }
        drop(locked);
        Ok(())
    }
}

/// Bytes of a file that are to be replayed; `None` when there are none, and 0 when all is done but its removal.
fn bytes_left(
    which: Which,
    size: u64,
    journal: Option<&Journal>,
    progress: &Progress,
) -> Result<Option<u64>, Errno> {
    if journal.is_some() && progress.own == size && progress.others == size {
        return Ok(Some(0));
    }
    let left = match (which, journal) {
        (Which::All, _) => size.saturating_sub(progress.own.min(progress.others)),
        (Which::Own, None) => 0,
        (Which::Own, Some(journal)) => {
            let count = journal.len()?;
            let last = journal.entries(count.saturating_sub(1), 1)?;
            let end = last.first().map_or(0, journal::Entry::end).min(size);
            end.saturating_sub(progress.own)
        }
    };
    Ok((left > 0).then_some(left))
}

/// Numbers that stand in a file, one a line. What is no number, or was cut, is left out.
fn noted_numbers(file: &File) -> HashSet<u64> {
    let mut text = vec![0; MOST_NOTED];
    let read = read_at(file, &mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..read]);
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok()).collect()
}

/// Writes numbers for [`noted_numbers`]. When the disk does not take them a file is told of again, and no more than
/// that.
fn note_numbers(file: &File, numbers: &HashSet<u64>) {
    let text: String = numbers.iter().map(|number| format!("{number}\n")).collect();
    let text = &text.as_bytes()[..text.len().min(MOST_NOTED)];
    let _ = file.set_len(0).and_then(|()| file.write_all_at(text, 0));
}

/// Where reading goes on.
fn start(which: Which, progress: &Progress) -> u64 {
    match which {
        Which::Own => progress.own,
        Which::All => progress.own.min(progress.others),
    }
}

enum Found {
    Chunk(Box<Chunk>),
    Nothing,
    AnotherTopic,
}

/// The progress in a journal, if it is this file's: a file that was cut, or another one with the same inode
/// number, is at its beginning.
fn valid_progress(journal: &Journal, file: &File, size: u64) -> Result<Progress, Errno> {
    let progress = journal.progress()?;
    let furthest = progress.own.max(progress.others);
    if furthest > size || before(file, furthest)? != progress.before {
        return Ok(Progress::default());
    }
    Ok(progress)
}

/// Checksum of the last bytes before `end`.
fn before(file: &File, end: u64) -> Result<u32, Errno> {
    let from = end.saturating_sub(BEFORE);
    let mut bytes = [0; BEFORE as usize];
    let read = read_at(file, &mut bytes[..(end - from) as usize], from)?;
    Ok(crc32c::crc32c(&bytes[..read]))
}
