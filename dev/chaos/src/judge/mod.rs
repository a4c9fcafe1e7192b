//! The verdict: what log() took against what is in Kafka, as two readers saw it, and in the backup.
//!
//! A message that was taken must be in Kafka or in the backup; one that was refused, in neither; one whose
//! answer never came, anywhere or nowhere. Per worker and partition the first copies must be in the order in
//! which they were logged. Copies beyond the first are counted.
//!
//! Replay sends what is in the backup, and in the end must have sent all of it. What it sends comes late, and who
//! is killed while he does it repeats some: these messages count apart, and have no place in the order. Which they
//! are is no guess: each stands in a backup file that was removed since. All others are judged as if there
//! was no replay.
//!
//! A reader's line is `TOPIC TAB PARTITION TAB OFFSET TAB KEY TAB PAYLOAD`, the key empty or `null` when there is
//! none. A line of the backup is what lkfk's manual says; in a `~bad` file there may be halves of lines, too, which
//! a killed writer left. Other lines without end, or none at all, are findings and no
//! reason to stop.

mod payload;
#[cfg(test)]
mod tests;

use payload::Read;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

/// Findings of a kind that are shown.
const SHOWN: usize = 5;
/// Longest line that is read as one; no message of ours comes near it.
const LINE_BYTES: u64 = 64 * 1024;

/// What the answer to a request said of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Said {
    #[default]
    Nothing,
    Taken,
    Refused,
}

/// What is known of a message.
#[derive(Debug, Clone, Copy, Default)]
struct Message {
    said: Said,
    /// Copies seen by the reader that reads now.
    copies: u8,
    /// Copies seen by the one before.
    copies_before: u8,
    /// Lines in files that are there.
    in_backup: u8,
    /// Lines in files that were removed.
    replayed: u8,
    /// Of the first copy.
    partition: u32,
}

/// One process of nginx, from its start to its end.
#[derive(Debug)]
struct Worker {
    name: String,
    /// By sequence number.
    messages: Vec<Message>,
}

/// What is wrong with the records of one reader, or right: a number, and where the first ones are.
#[derive(Debug, Default)]
struct Column {
    reader: String,
    counts: HashMap<Kind, u64>,
    examples: HashMap<Kind, Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Read,
    Lost,
    Doubled,
    Reordered,
    Foreign,
    Damaged,
    RefusedPresent,
    UnknownPresent,
    InBackupOnly,
    InBoth,
    BackupTwice,
    BackupDamaged,
    Replayed,
    ReplayedAgain,
    MovedAside,
    HalfMovedAside,
    Differing,
}

/// Order of the table: what it is called, and whether it must be 0.
const ROWS: [(Kind, &str, Must); 17] = [
    (Kind::Read, "records read", Must::Nothing),
    (Kind::Lost, "lost", Must::BeNone),
    (Kind::Doubled, "duplicated", Must::BeNoneWhenStrict),
    (Kind::Reordered, "reordered", Must::BeNoneWhenStrict),
    (Kind::Foreign, "foreign", Must::BeNone),
    (Kind::Damaged, "damaged", Must::BeNone),
    (Kind::RefusedPresent, "refused, but there", Must::BeNone),
    (Kind::UnknownPresent, "no answer, but there", Must::Nothing),
    (Kind::Replayed, "sent from the backup", Must::Nothing),
    (Kind::ReplayedAgain, "  and there again", Must::NotExceedRepeats),
    (Kind::InBackupOnly, "in the backup only", Must::BeNoneWhenReplayed),
    (Kind::InBoth, "in the backup, too", Must::BeNoneWhenReplayed),
    (Kind::BackupTwice, "in the backup twice", Must::Nothing),
    (Kind::BackupDamaged, "no line of the backup", Must::BeNone),
    (Kind::MovedAside, "moved aside by replay", Must::BeNone),
    (Kind::HalfMovedAside, "halves of lines moved aside", Must::Nothing),
    (Kind::Differing, "seen otherwise by the other", Must::BeNone),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    Nothing,
    BeNone,
    BeNoneWhenStrict,
    BeNoneWhenReplayed,
    NotExceedRepeats,
}

/// What kind of run it was.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// What the partitions hold.
    records: u64,
    /// No doubles, and nothing out of order.
    strict: bool,
    /// Copies that replay may have made; `None` when there was no replay.
    repeats: Option<u64>,
}

/// Where a line of the backup was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    There,
    Aside,
    Removed,
}

/// `chaos judge RUN LEDGER BACKUP-DIRECTORY REMOVED RECORDS strict|lenient REPEATS READER=FILE...`: REMOVED has
/// the lines of files that were removed from the backup; RECORDS is what the partitions hold; REPEATS how many
/// copies replay may have made, `off` when there is none. Prints the verdict; the exit code is 1 when it is a bad
/// one.
pub fn main(arguments: &[&str]) -> Result<ExitCode, String> {
    let [run, ledger, backup, removed, records, strictness, repeats, readers @ ..] = arguments
    else {
        return Err("chaos judge: too few arguments".to_owned());
    };
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("not a number: {text}"));
    let rules = Rules {
        records: number(records)?,
        strict: *strictness == "strict",
        repeats: if *repeats == "off" { None } else { Some(number(repeats)?) },
    };
    let mut judge = Judge::new(run);
    let read = |path: &str| File::open(path).map_err(|error| format!("{path}: {error}"));
    let failed = |path: &str| {
        let path = path.to_owned();
        move |error: io::Error| format!("{path}: {error}")
    };
    judge.read_ledger(BufReader::new(read(ledger)?)).map_err(failed(ledger))?;
    let mut backup_findings = Column::default();
    judge.read_backup(Path::new(backup), &mut backup_findings).map_err(failed(backup))?;
    each_line(BufReader::new(read(removed)?), |line| {
        judge.read_backup_line("a removed file", Place::Removed, line, &mut backup_findings);
    })
    .map_err(failed(removed))?;
    let mut columns = Vec::new();
    for (index, reader) in readers.iter().enumerate() {
        let (name, path) =
            reader.split_once('=').ok_or_else(|| format!("not NAME=FILE: {reader}"))?;
        let column = judge.read_records(name, BufReader::new(read(path)?)).map_err(failed(path))?;
        columns.push(judge.finish(column, index > 0));
    }
    for (kind, count) in &backup_findings.counts {
        columns.iter_mut().for_each(|column| *column.counts.entry(*kind).or_default() += count);
    }
    if let Some(first) = columns.first_mut() {
        first.examples.extend(backup_findings.examples);
    }
    let (text, good) = report(&columns, rules);
    println!("{text}");
    Ok(ExitCode::from(u8::from(!good)))
}

struct Judge {
    run: String,
    by_name: HashMap<String, usize>,
    workers: Vec<Worker>,
}

impl Judge {
    fn new(run: &str) -> Judge {
        Judge { run: run.to_owned(), by_name: HashMap::new(), workers: Vec::new() }
    }

    fn worker(&mut self, name: &str) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.workers.len();
        self.workers.push(Worker { name: name.to_owned(), messages: Vec::new() });
        self.by_name.insert(name.to_owned(), index);
        index
    }

    fn message(&mut self, worker: usize, seq: u64) -> &mut Message {
        let messages = &mut self.workers[worker].messages;
        if messages.len() <= seq as usize {
            messages.resize(seq as usize + 1, Message::default());
        }
        &mut messages[seq as usize]
    }

    fn read_ledger(&mut self, ledger: impl BufRead) -> io::Result<()> {
        for line in ledger.lines() {
            let line = line?;
            let words: Vec<&str> = line.split(' ').collect();
            let wrong = || io::Error::other(format!("not a line of a ledger: {line}"));
            let [name, first, marks] = words[..] else { return Err(wrong()) };
            let first: u64 = first.parse().map_err(|_| wrong())?;
            let worker = self.worker(name);
            for (seq, mark) in (first..).zip(marks.bytes()) {
                let said = if mark == b'y' { Said::Taken } else { Said::Refused };
                self.message(worker, seq).said = said;
            }
        }
        Ok(())
    }

    /// All files of topics; what is lkfk's own has a name that begins with `~`, or is a directory.
    fn read_backup(&mut self, directory: &Path, findings: &mut Column) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('~') || entry.file_type()?.is_dir() {
                continue;
            }
            let place = if name.ends_with("~bad") { Place::Aside } else { Place::There };
            let read = File::open(entry.path()).and_then(|file| {
                each_line(BufReader::new(file), |line| {
                    self.read_backup_line(&name, place, line, findings);
                })
            });
            read.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        }
        Ok(())
    }

    fn read_backup_line(&mut self, file: &str, place: Place, line: &str, findings: &mut Column) {
        let columns: Vec<&str> = line.split('\t').collect();
        let read = match columns[..] {
            [_, topic, key, payload] => {
                let key = if key == "\\N" { "" } else { key };
                payload::read(&self.run, topic, key, payload)
            }
            _ => Read::Foreign,
        };
        let shown = || format!("{file}: {}", start(line));
        let Read::Message { worker, seq } = read else {
            let aside = place == Place::Aside;
            findings.note(if aside { Kind::HalfMovedAside } else { Kind::BackupDamaged }, shown);
            return;
        };
        let worker = self.worker(worker);
        let message = self.message(worker, seq);
        match place {
            Place::There => message.in_backup = message.in_backup.saturating_add(1),
            Place::Removed => message.replayed = message.replayed.saturating_add(1),
            // Where nobody sends it from: if it is not in Kafka, it is lost.
            Place::Aside => return findings.note(Kind::MovedAside, shown),
        }
        if message.in_backup.saturating_add(message.replayed) > 1 {
            findings.note(Kind::BackupTwice, shown);
        }
    }

    fn read_records(&mut self, reader: &str, records: impl BufRead) -> io::Result<Column> {
        let mut column = Column { reader: reader.to_owned(), ..Column::default() };
        // The last one of a worker in a partition of a topic; and where messages with copies stand, since a
        // copy may be in another partition, with an order of its own there.
        let mut last: HashMap<(String, u32, usize), u64> = HashMap::new();
        let mut places: HashMap<(usize, u64), Vec<u32>> = HashMap::new();
        each_line(records, |line| {
            column.note(Kind::Read, String::new);
            let Some((topic, partition, offset, key, payload)) = record(line) else {
                column.note(Kind::Foreign, || start(line).to_owned());
                return;
            };
            let place = || format!("{topic}/{partition}@{offset}");
            let (name, seq) = match payload::read(&self.run, topic, key, payload) {
                Read::Message { worker, seq } => (worker, seq),
                Read::Damaged => {
                    column.note(Kind::Damaged, || format!("{} {}", place(), start(payload)));
                    return;
                }
                Read::Foreign => {
                    column.note(Kind::Foreign, || format!("{} {}", place(), start(payload)));
                    return;
                }
            };
            let worker = self.worker(name);
            let message = self.message(worker, seq);
            message.copies = message.copies.saturating_add(1);
            if message.replayed > 0 {
                if message.copies > 1 {
                    column.note(Kind::ReplayedAgain, || format!("{name}:{seq} {}", place()));
                }
                return;
            }
            if message.copies == 1 {
                message.partition = partition;
            } else {
                let first = message.partition;
                column.note(Kind::Doubled, || format!("{name}:{seq} {}", place()));
                let partitions = places.entry((worker, seq)).or_insert_with(|| vec![first]);
                if partitions.contains(&partition) {
                    return;
                }
                partitions.push(partition);
            }
            let last = last.entry((topic.to_owned(), partition, worker)).or_default();
            if seq < *last {
                column.note(Kind::Reordered, || format!("{name}:{seq} after {last} {}", place()));
            }
            *last = seq.max(*last);
        })?;
        Ok(column)
    }

    /// What follows from all that the reader saw; its copies make way for the next one's.
    fn finish(&mut self, mut column: Column, is_second: bool) -> Column {
        for worker in &mut self.workers {
            let name = &worker.name;
            for (seq, message) in worker.messages.iter_mut().enumerate() {
                let (there, kept) = (message.copies > 0, message.in_backup > 0);
                let replayed = message.replayed > 0;
                let found = match (message.said, there, kept) {
                    (Said::Taken, false, false) => Some(Kind::Lost),
                    (Said::Refused, _, _) if there || kept || replayed => {
                        Some(Kind::RefusedPresent)
                    }
                    (Said::Nothing, _, _) if there || kept => Some(Kind::UnknownPresent),
                    _ => None,
                };
                let backup = match (there, kept) {
                    (true, true) => Some(Kind::InBoth),
                    (false, true) => Some(Kind::InBackupOnly),
                    _ => None,
                };
                let differs = is_second && message.copies != message.copies_before;
                let differs = differs.then_some(Kind::Differing);
                let replayed = (there && replayed).then_some(Kind::Replayed);
                for kind in [found, backup, differs, replayed].into_iter().flatten() {
                    column.note(kind, || format!("{name}:{seq}"));
                }
                message.copies_before = std::mem::take(&mut message.copies);
            }
        }
        column
    }
}

impl Column {
    fn note(&mut self, kind: Kind, what: impl FnOnce() -> String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= SHOWN as u64 {
            self.examples.entry(kind).or_default().push(what());
        }
    }

    fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }
}

/// The table, the first findings that must not be, and whether there are none.
fn report(columns: &[Column], rules: Rules) -> (String, bool) {
    let Rules { records, strict, repeats } = rules;
    let (mut text, mut details, mut good) = (String::new(), String::new(), !columns.is_empty());
    let mut row = |name: &str, cells: Vec<String>, remark: &str| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>14}")).collect();
        let _ = writeln!(text, "{}", format!("  {name:<28}{cells}  {remark}").trim_end());
    };
    row("", columns.iter().map(|column| column.reader.clone()).collect(), "");
    for (kind, name, must) in ROWS {
        let counts: Vec<u64> = columns.iter().map(|column| column.count(kind)).collect();
        let bad = match must {
            Must::Nothing if kind == Kind::Read => counts.iter().any(|count| *count != records),
            Must::Nothing => false,
            Must::BeNone => counts.iter().any(|count| *count > 0),
            Must::BeNoneWhenStrict => strict && counts.iter().any(|count| *count > 0),
            Must::BeNoneWhenReplayed => repeats.is_some() && counts.iter().any(|count| *count > 0),
            Must::NotExceedRepeats => {
                strict && counts.iter().any(|count| *count > repeats.unwrap_or(0))
            }
        };
        let remark = match (bad, kind) {
            (true, Kind::Read) => format!("WRONG: the partitions hold {records}"),
            (true, Kind::ReplayedAgain) => {
                format!("WRONG: at most {} may be", repeats.unwrap_or(0))
            }
            (true, _) => "WRONG".to_owned(),
            (false, _) => String::new(),
        };
        good &= !bad;
        row(name, counts.iter().map(u64::to_string).collect(), &remark);
        for column in columns.iter().filter(|_| bad) {
            for example in
                column.examples.get(&kind).into_iter().flatten().filter(|text| !text.is_empty())
            {
                let _ = writeln!(details, "  {name}, {}: {example}", column.reader);
            }
        }
    }
    (text + &details, good)
}

fn record(line: &str) -> Option<(&str, u32, u64, &str, &str)> {
    let mut columns = line.splitn(5, '\t');
    let mut column = || columns.next();
    let (topic, partition, offset) = (column()?, column()?.parse().ok()?, column()?.parse().ok()?);
    let key = column()?;
    Some((topic, partition, offset, if key == "null" { "" } else { key }, column()?))
}

/// Calls `line` with each line; bytes that are no text are replaced, which no check lets pass.
fn each_line(mut from: impl BufRead, mut line: impl FnMut(&str)) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if io::Read::take(&mut from, LINE_BYTES).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        // A line that was torn off has no end, and then an honest judge does not give it one.
        if bytes.pop_if(|last| *last == b'\n').is_none() {
            bytes.extend_from_slice(b" (no end of line)");
        }
        line(&String::from_utf8_lossy(&bytes));
    }
}

fn start(text: &str) -> &str {
    match text.char_indices().nth(100) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
