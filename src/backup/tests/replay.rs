//! Files as they are read back: whose lines, how far, and what operators do meanwhile.

use super::super::journal::{Journal, Progress};
use super::*;
use crate::record::{Headers, HeadersBuf, Record};

const ORIGINAL: &str = "2016-03-01 10:20:30\tt\tk\toriginal \\t with\ttab\n";

#[test]
fn lines_of_others_are_never_replayed_as_lkfk_s_own() {
    let scratch = Scratch::new("others");
    std::fs::write(scratch.0.join("t"), ORIGINAL).unwrap();
    let mut dir = scratch.dir(1 << 20);
    dir.append("t", &lines("t", [1])).unwrap();
    // The very same line, written by a failed_cb.
    let mut copy = Vec::new();
    format::put(&mut copy, &Line::new(TIME, "t", Some(b"k"), Some(b"1")));
    dir.append_others("t", &copy).unwrap();
    dir.append("t", &lines("t", [2])).unwrap();
    let before = scratch.text("t");
    let mut backlog = scratch.backlog(Which::Own);
    assert_eq!(drain(&mut backlog, "t"), numbers([1, 2]));
    // The others' lines keep the file, and do not wait.
    assert_eq!(scratch.text("t"), before);
    assert_eq!(backlog.waiting(0).unwrap(), BTreeMap::new());
    dir.append("t", &lines("t", [3])).unwrap();
    assert_eq!(drain(&mut backlog, "t"), numbers([3]));
    drop(backlog);
    // "all" finds what was passed over, and nothing twice.
    let mut all = scratch.backlog(Which::All);
    assert_eq!(drain(&mut all, "t"), ["original \\t with\ttab", "1"]);
    assert!(scratch.names().is_empty());
}

#[test]
fn dsk_13_files_of_the_original_are_replayed_with_all() {
    let scratch = Scratch::new("original");
    let text: String =
        (0..10_000).map(|n| format!("2016-03-01 10:20:30\tt\tk{n}\t{n}\n")).collect();
    std::fs::write(scratch.0.join("t"), &text).unwrap();
    assert_eq!(scratch.backlog(Which::Own).waiting(0).unwrap(), BTreeMap::new());
    let mut backlog = scratch.backlog(Which::All);
    assert_eq!(backlog.waiting(0).unwrap()["t"].bytes, text.len() as u64);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    assert_eq!(chunk.get(7).unwrap().record.key, Some(&b"k7"[..]));
    assert_eq!(drain(&mut backlog, "t"), numbers(0..10_000));
    assert!(scratch.names().is_empty());
}

#[test]
fn messages_that_log_refused_are_replayed_with_all_alone() {
    let scratch = Scratch::new("refused");
    let mut dir = scratch.dir(1 << 20);
    let mut refused = LineBatch::default();
    refused.push_refused(&Line::new(TIME, "t", None, Some(b"a\tb\\")));
    dir.append("t", &lines("t", [1])).unwrap();
    dir.append("t", &refused).unwrap();
    assert_eq!(drain(&mut scratch.backlog(Which::Own), "t"), ["1"]);
    let mut all = scratch.backlog(Which::All);
    let chunk = all.read("t", &HashSet::new()).unwrap().unwrap();
    let record = chunk.get(0).unwrap().record;
    assert_eq!((record.key, record.payload), (None, Some(&b"a\tb\\"[..])));
}

#[test]
fn time_and_keys_come_back_as_log_took_them() {
    let scratch = Scratch::new("exact");
    let keys: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"\\N"), Some(b"\t\n\0\xff")];
    let mut some = LineBatch::default();
    for key in keys {
        some.push(&Line::new(TIME, "t", key, Some(b"\r\n\x0b")));
    }
    scratch.dir(1 << 20).append("t", &some).unwrap();
    let chunk = scratch.backlog(Which::Own).read("t", &HashSet::new()).unwrap().unwrap();
    for (index, key) in keys.into_iter().enumerate() {
        assert_eq!(chunk.get(index), Some(Line::new(TIME, "t", key, Some(b"\r\n\x0b"))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    /// With its journal to the millisecond; as a copy that a person wants sent, to the second.
    #[test]
    fn records_come_back_from_a_file_as_they_were(
        records in prop::collection::vec(
            (
                prop::option::of(any::<Vec<u8>>()),
                prop::option::of(any::<Vec<u8>>()),
                prop::collection::vec((any::<String>(), prop::option::of(any::<Vec<u8>>())), 0..3),
                prop_oneof![Just(TIME), any::<i64>()],
            ),
            1..9,
        ),
    ) {
        let scratch = Scratch::new("records");
        let blocks: Vec<Vec<u8>> = records
            .iter()
            .map(|(_, _, names_and_values, _)| {
                let mut headers = HeadersBuf::default();
                names_and_values.iter().for_each(|(name, value)| headers.push(name, value.as_deref()));
                headers.into_block()
            })
            .collect();
        let written: Vec<Line<'_>> = records
            .iter()
            .zip(&blocks)
            .map(|((key, payload, _, timestamp_ms), block)| Line {
                logged_ms: TIME,
                topic: "t",
                record: Record {
                    timestamp_ms: *timestamp_ms,
                    key: key.as_deref(),
                    headers: Headers::check(block).unwrap(),
                    payload: payload.as_deref(),
                },
            })
            .collect();
        let mut some = LineBatch::default();
        written.iter().for_each(|line| some.push(line));
        scratch.dir(1 << 20).append("t", &some).unwrap();
        std::fs::copy(scratch.0.join("t"), scratch.0.join("~copy")).unwrap();

        let mut backlog = scratch.backlog(Which::Own);
        let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
        let read: Vec<Line<'_>> = (0..chunk.len()).map(|index| chunk.get(index).unwrap()).collect();
        prop_assert_eq!(&read, &written);
        backlog.commit(&chunk, None, &[]).unwrap();

        std::fs::rename(scratch.0.join("~copy"), scratch.0.join("t~redo")).unwrap();
        let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
        let second = TIME - TIME % 1000;
        for (index, line) in written.iter().enumerate() {
            let own_time = line.record.timestamp_ms != TIME;
            let timestamp_ms = if own_time { line.record.timestamp_ms } else { second };
            let record = Record { timestamp_ms, ..line.record };
            prop_assert_eq!(chunk.get(index), Some(Line { logged_ms: second, topic: "t", record }));
        }
    }
}

#[test]
fn dsk_03_a_process_that_is_killed_repeats_its_last_chunk_at_most() {
    let scratch = Scratch::new("killed");
    scratch.dir(1 << 30).append("t", &lines("t", 0..10_000)).unwrap();
    let mut sent = Vec::new();
    let mut chunks = 0;
    // Killed after sending and before noting it, each second time.
    for round in 0.. {
        let mut backlog = scratch.backlog(Which::Own);
        let Some(chunk) = backlog.read("t", &HashSet::new()).unwrap() else { break };
        assert!(chunk.len() <= 4096);
        sent.extend(payloads(&chunk));
        if round % 2 == 1 {
            backlog.commit(&chunk, None, &[]).unwrap();
            chunks += 1;
        }
    }
    assert_eq!(chunks, 3);
    assert_eq!(sent.len(), 20_000);
    sent.dedup();
    let distinct: HashSet<&String> = sent.iter().collect();
    assert_eq!(distinct.len(), 10_000);
}

#[test]
fn dsk_03_a_torn_note_of_the_progress_leaves_the_one_before() {
    let scratch = Scratch::new("torn");
    scratch.dir(1 << 30).append("t", &lines("t", 0..10_000)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    for _ in 0..2 {
        let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
        backlog.commit(&chunk, None, &[]).unwrap();
    }
    let journal = std::fs::read_dir(scratch.0.join("~journal")).unwrap().next().unwrap().unwrap();
    let file = std::fs::File::options().write(true).open(journal.path()).unwrap();
    // The second progress lies in the first place.
    file.write_all_at(b"\xff\xff\xff", 72).unwrap();
    let chunk = scratch_again(&scratch, backlog).read("t", &HashSet::new()).unwrap().unwrap();
    assert_eq!(payloads(&chunk)[0], "4096");
}

fn scratch_again(scratch: &Scratch, backlog: Backlog) -> Backlog {
    drop(backlog);
    scratch.backlog(Which::Own)
}

#[test]
fn what_failed_stays_and_what_was_settled_behind_it_is_not_sent_again() {
    let scratch = Scratch::new("failed");
    scratch.dir(1 << 20).append("t", &lines("t", 0..10)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    // 3 and 7 failed, 5 will never be taken.
    assert_eq!(backlog.commit(&chunk, Some(3), &[5]).unwrap(), 1);
    let settled = [4, 5, 6, 8, 9].map(|index| chunk.place(index).unwrap());
    let settled: HashSet<Place> = settled.into_iter().collect();
    let chunk = backlog.read("t", &settled).unwrap().unwrap();
    assert_eq!(payloads(&chunk), numbers([3, 7]));
    assert!(settled.iter().all(|place| chunk.is_past(place)));
    backlog.commit(&chunk, None, &[]).unwrap();
    assert_eq!(scratch.names(), ["t~bad"]);
    assert!(scratch.text("t~bad").ends_with("\t5\n"));
}

#[test]
fn a_line_that_stands_where_a_settled_one_stood_is_sent() {
    let scratch = Scratch::new("settled-cut");
    for which in [Which::Own, Which::All] {
        let mut dir = scratch.dir(1 << 20);
        dir.append("t", &lines("t", 10..20)).unwrap();
        let mut backlog = scratch.backlog(which);
        let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
        backlog.commit(&chunk, Some(0), &[]).unwrap();
        let settled: HashSet<Place> = (1..10).map(|index| chunk.place(index).unwrap()).collect();
        drop(chunk);
        let cut = std::fs::File::options().write(true).open(scratch.0.join("t")).unwrap();
        cut.set_len(0).unwrap();
        dir.append("t", &lines("t", 20..30)).unwrap();
        let chunk = backlog.read("t", &settled).unwrap().unwrap();
        assert_eq!(payloads(&chunk), numbers(20..30));
        backlog.commit(&chunk, None, &[]).unwrap();
    }
    // Nor is a stranger's line.
    let others = |from: u64| -> String {
        (from..from + 5).map(|n| format!("2016-03-01 10:20:30\tt\tk\t{n}\n")).collect()
    };
    std::fs::write(scratch.0.join("t"), others(10)).unwrap();
    let mut backlog = scratch.backlog(Which::All);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    let settled: HashSet<Place> = (0..5).map(|index| chunk.place(index).unwrap()).collect();
    drop(chunk);
    assert!(backlog.read("t", &settled).unwrap().unwrap().is_empty());
    std::fs::write(scratch.0.join("t"), others(20)).unwrap();
    let chunk = backlog.read("t", &settled).unwrap().unwrap();
    assert_eq!(payloads(&chunk), numbers(20..25));
}

#[test]
fn what_is_moved_aside_does_not_go_on_a_line_that_a_killed_worker_left_unfinished() {
    let scratch = Scratch::new("unfinished-bad");
    std::fs::write(scratch.0.join("t~bad"), "half a li").unwrap();
    scratch.dir(1 << 20).append("t", &lines("t", 1..=2)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    assert_eq!(backlog.commit(&chunk, None, &[0]).unwrap(), 1);
    let bad = scratch.text("t~bad");
    let (half, line) = bad.split_once('\n').unwrap();
    assert_eq!(half, "half a li");
    assert!(line.ends_with("\t1\n") && line.matches('\n').count() == 1, "{line}");
}

#[test]
fn a_redo_file_that_cannot_be_looked_at_does_not_hold_up_its_topic_s_others() {
    let scratch = Scratch::new("redo-trouble");
    scratch.dir(1 << 20).append("t", &lines("t", 1..=2)).unwrap();
    std::fs::write(scratch.0.join("t~redo"), b"").unwrap();
    std::fs::hard_link(scratch.0.join("t~redo"), scratch.0.join("~second")).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    assert!(backlog.waiting(0).unwrap().keys().eq(["t"]));
    assert_eq!(backlog.troubles().len(), 1);
    assert_eq!(drain(&mut backlog, "t"), numbers(1..=2));
}

#[test]
fn dsk_06_lines_that_are_none_are_moved_aside_and_the_rest_goes_on() {
    let scratch = Scratch::new("poison");
    let good = |n: u64| format!("2016-03-01 10:20:30\tt\tk\t{n}\n");
    let long = "x".repeat(3_000_000);
    let large = format!("2016-03-01 10:20:30\tt\tk\t{}\n", "y".repeat(1_500_000));
    let text = [
        good(1),
        "no line\n".into(),
        "\n".into(),
        good(2),
        format!("{long}\n"),
        good(3),
        large,
        good(4),
        "half".into(),
    ]
    .concat();
    std::fs::write(scratch.0.join("t~1"), &text).unwrap();
    assert_eq!(drain(&mut scratch.backlog(Which::All), "t"), numbers(1..=4));
    assert_eq!(scratch.names(), ["t~bad"]);
    let bad = scratch.text("t~bad");
    assert!(bad.starts_with("no line\n\nxxx") && bad.ends_with("yyy\nhalf\n"));
    let x = bad.bytes().filter(|byte| *byte == b'x').count();
    assert_eq!(x, 3_000_000);
}

#[test]
fn half_a_line_at_the_end_of_the_file_in_use_waits_for_its_other_half() {
    let scratch = Scratch::new("growing");
    std::fs::write(scratch.0.join("t"), "2016-03-01 10:20:30\tt\tk\t1\n2016-").unwrap();
    let mut backlog = scratch.backlog(Which::All);
    assert_eq!(drain(&mut backlog, "t"), ["1"]);
    let mut file = std::fs::File::options().append(true).open(scratch.0.join("t")).unwrap();
    std::io::Write::write_all(&mut file, b"03-01 10:20:30\tt\tk\t2\n").unwrap();
    assert_eq!(drain(&mut backlog, "t"), ["2"]);
    assert!(scratch.names().is_empty());
}

#[test]
fn one_process_at_a_time_replays() {
    let scratch = Scratch::new("one");
    let mut first = scratch.backlog(Which::Own);
    let mut second = Backlog::open(&scratch.0, Which::Own, 1000).unwrap();
    assert!(!second.lock().unwrap());
    assert!(first.lock().unwrap());
    first.unlock();
    assert!(second.lock().unwrap());
    assert!(!first.lock().unwrap());
    // Somebody removed the lock's file: it is taken anew.
    std::fs::remove_file(scratch.0.join("~lock")).unwrap();
    assert!(first.lock().unwrap());
    assert!(!second.lock().unwrap());
}

#[test]
fn a_line_that_comes_while_the_last_one_is_sent_keeps_the_file() {
    let scratch = Scratch::new("late");
    let mut dir = scratch.dir(1 << 20);
    dir.append("t", &lines("t", [1])).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    dir.append("t", &lines("t", [2])).unwrap();
    backlog.commit(&chunk, None, &[]).unwrap();
    assert_eq!(drain(&mut backlog, "t"), ["2"]);
    assert!(scratch.names().is_empty());
    dir.append("t", &lines("t", [3])).unwrap();
    assert_eq!(drain(&mut backlog, "t"), ["3"]);
}

#[test]
fn dsk_07_a_file_that_was_moved_away_is_not_replayed_and_goes_on_when_it_is_back() {
    let scratch = Scratch::new("away");
    scratch.dir(1 << 30).append("t", &lines("t", 0..5000)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    assert_eq!(chunk.len(), 4096);
    std::fs::rename(scratch.0.join("t"), scratch.0.join("t.old")).unwrap();
    backlog.commit(&chunk, None, &[]).unwrap();
    for topic in ["t", "t.old"] {
        assert!(backlog.read(topic, &HashSet::new()).unwrap().is_none());
    }
    assert_eq!(backlog.left_alone().collect::<Vec<_>>(), ["t.old"]);
    assert_eq!(backlog.waiting(0).unwrap(), BTreeMap::new());
    std::fs::rename(scratch.0.join("t.old"), scratch.0.join("t")).unwrap();
    assert_eq!(backlog.waiting(0).unwrap().len(), 1);
    assert_eq!(drain(&mut backlog, "t"), numbers(4096..5000));
}

#[test]
fn dsk_07_copies_and_edited_files_are_not_lkfk_s_own() {
    let scratch = Scratch::new("copies");
    scratch.dir(1 << 20).append("t", &lines("t", 1..=3)).unwrap();
    std::fs::copy(scratch.0.join("t"), scratch.0.join("t~7")).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    assert_eq!(drain(&mut backlog, "t"), numbers(1..=3));
    assert_eq!(scratch.names(), ["t~7"]);
    // As an editor saves: a new file under the old name.
    scratch.dir(1 << 20).append("t", &lines("t", 4..=5)).unwrap();
    let edited = scratch.text("t").replace("\t4\n", "\tfour\n");
    std::fs::write(scratch.0.join("new"), edited).unwrap();
    std::fs::rename(scratch.0.join("new"), scratch.0.join("t")).unwrap();
    assert_eq!(drain(&mut backlog, "t"), numbers([]));
}

#[test]
fn a_file_that_a_person_wants_sent_is_sent_whoever_wrote_it_with_its_escapes_undone() {
    let scratch = Scratch::new("redo");
    let mut some = LineBatch::default();
    some.push(&Line::new(TIME, "t", None, Some(b"a\tb\\c")));
    some.push(&Line::new(TIME, "t", Some(b""), Some(b"d")));
    scratch.dir(1 << 20).append("t", &some).unwrap();
    // From another host, say.
    std::fs::copy(scratch.0.join("t"), scratch.0.join("t~redo")).unwrap();
    std::fs::remove_file(scratch.0.join("t")).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    assert!(backlog.waiting(0).unwrap()["t"].bytes > 0);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    let second = chunk.get(0).unwrap().record.timestamp_ms;
    assert_eq!(second, TIME - TIME % 1000);
    let first = chunk.get(0).unwrap();
    assert_eq!((first.record.key, first.record.payload), (None, Some(&b"a\tb\\c"[..])));
    assert_eq!(chunk.get(1).unwrap().record.key, Some(&b""[..]));
    backlog.commit(&chunk, None, &[1]).unwrap();
    assert_eq!(scratch.names(), ["t~bad"]);
    // The topic takes larger messages now.
    std::fs::rename(scratch.0.join("t~bad"), scratch.0.join("t~redo")).unwrap();
    assert_eq!(drain(&mut backlog, "t"), ["d"]);
    assert!(scratch.names().is_empty());
}

#[test]
fn dsk_07_a_file_that_was_emptied_or_removed_in_use_starts_anew() {
    let scratch = Scratch::new("emptied");
    let mut dir = scratch.dir(1 << 30);
    dir.append("t", &lines("t", 0..5000)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    backlog.commit(&chunk, None, &[]).unwrap();
    std::fs::File::options().write(true).open(scratch.0.join("t")).unwrap().set_len(0).unwrap();
    dir.append("t", &lines("t", 1..=2)).unwrap();
    assert_eq!(drain(&mut backlog, "t"), numbers(1..=2));

    dir.append("t", &lines("t", 3..=4)).unwrap();
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    std::fs::remove_file(scratch.0.join("t")).unwrap();
    backlog.commit(&chunk, None, &[]).unwrap();
    assert_eq!(std::fs::read_dir(scratch.0.join("~journal")).unwrap().count(), 0);
    // Most likely with the inode number of the one before.
    dir.append("t", &lines("t", 5..=6)).unwrap();
    assert_eq!(drain(&mut backlog, "t"), numbers(5..=6));
}

#[test]
fn a_journal_of_a_file_that_is_gone_says_nothing_of_a_new_one_with_its_number() {
    let scratch = Scratch::new("inode");
    let mut dir = scratch.dir(1 << 20);
    dir.append("t", &lines("t", 1..=3)).unwrap();
    let mut backlog = scratch.backlog(Which::All);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    backlog.commit(&chunk, Some(1), &[]).unwrap();
    // As if the number had been given to another file: same inode, other bytes.
    let text: String = (11..=15).map(|n| format!("2016-03-01 10:20:30\tt\tk\t{n}\n")).collect();
    let file = std::fs::File::options().write(true).open(scratch.0.join("t")).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
    drop(backlog);
    assert!(drain(&mut scratch.backlog(Which::Own), "t").is_empty());
    let left = scratch.text("t~bad").lines().count() + scratch.text("t").lines().count();
    assert!(left >= 5, "every byte is kept");
}

#[test]
fn journals_of_files_that_are_gone_are_removed_after_a_day() {
    let scratch = Scratch::new("orphans");
    scratch.dir(1 << 20).append("t", &lines("t", [1])).unwrap();
    std::fs::remove_file(scratch.0.join("t")).unwrap();
    let journals = || std::fs::read_dir(scratch.0.join("~journal")).unwrap().count();
    let mut backlog = scratch.backlog(Which::Own);
    let made = std::fs::metadata(scratch.0.join("~journal")).unwrap().modified().unwrap();
    let made = made.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    backlog.waiting(made + 80_000).unwrap();
    assert_eq!(journals(), 1);
    backlog.waiting(made + 90_000).unwrap();
    assert_eq!(journals(), 0);
}

#[test]
fn dsk_07_a_file_that_waited_for_days_goes_on_where_it_was_when_it_is_moved_away_and_back() {
    let scratch = Scratch::new("away");
    scratch.dir(1 << 20).append("t", &lines("t", 1..=4)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    backlog.commit(&chunk, Some(2), &[]).unwrap();
    let (here, away) = (scratch.0.join("t"), scratch.0.join("~away"));
    std::fs::rename(&here, &away).unwrap();
    let now = std::fs::metadata(&scratch.0).unwrap().modified().unwrap();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let hours_later = now.as_secs() as i64 + 86_000;
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for journal in std::fs::read_dir(scratch.0.join("~journal")).unwrap() {
        let journal = std::fs::File::options().write(true).open(journal.unwrap().path()).unwrap();
        journal.set_modified(old).unwrap();
    }
    for _ in 0..2 {
        assert!(backlog.waiting(hours_later).unwrap().is_empty());
    }
    std::fs::rename(&away, &here).unwrap();
    assert_eq!(drain(&mut backlog, "t"), numbers(3..=4));
}

#[test]
fn a_file_that_cannot_be_looked_at_does_not_hold_up_other_topics() {
    let scratch = Scratch::new("trouble");
    let mut dir = scratch.dir(1 << 20);
    for topic in ["a", "b"] {
        dir.append(topic, &lines(topic, 1..=2)).unwrap();
    }
    std::fs::hard_link(scratch.0.join("a"), scratch.0.join("~second")).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    // A stranger's has nothing that is wanted.
    std::fs::write(scratch.0.join("c"), b"").unwrap();
    std::fs::hard_link(scratch.0.join("c"), scratch.0.join("~third")).unwrap();
    assert!(backlog.waiting(0).unwrap().keys().eq(["b"]));
    assert_eq!(backlog.troubles().len(), 1);
    assert!(backlog.troubles()[0].to_string().contains("hard link"));
    assert_eq!(drain(&mut backlog, "b"), numbers(1..=2));
    std::fs::remove_file(scratch.0.join("~second")).unwrap();
    assert!(backlog.waiting(0).unwrap().keys().eq(["a"]));
    assert!(backlog.troubles().is_empty());
}

#[test]
fn dsk_07_what_is_written_to_a_file_that_was_cut_in_replay_is_not_taken_for_done() {
    let scratch = Scratch::new("cut-in-replay");
    let mut dir = scratch.dir(1 << 20);
    dir.append("t", &lines("t", 1..=50)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    std::fs::File::options().write(true).open(scratch.0.join("t")).unwrap().set_len(0).unwrap();
    dir.append("t", &lines("t", 101..=200)).unwrap();
    // Nor is what stands now where a refused line stood.
    assert_eq!(backlog.commit(&chunk, None, &[0]).unwrap(), 0);
    assert_eq!(drain(&mut backlog, "t"), numbers(101..=200));
    assert_eq!(scratch.names(), Vec::<String>::new());
}

#[test]
fn lines_have_entries_when_journals_are_made_or_removed_by_others() {
    let scratch = Scratch::new("other-journals");
    let mut first = scratch.dir(1 << 20);
    first.append_others("t", b"2016-03-01 10:20:30\tt\tk\tothers\n").unwrap();
    // Another worker makes the journal, and is killed in the middle of a line.
    scratch.dir(1 << 20).append("t", &lines("t", 1..=2)).unwrap();
    let size = std::fs::metadata(scratch.0.join("t")).unwrap().len();
    let file = std::fs::File::options().write(true).open(scratch.0.join("t")).unwrap();
    file.set_len(size - 3).unwrap();
    first.append("t", &lines("t", 3..=4)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    assert_eq!(drain(&mut backlog, "t"), numbers([1, 3, 4]));
    assert_eq!(scratch.text("t~bad").lines().count(), 1);
    // An operator removes them all.
    first.append("u", &lines("u", 1..=2)).unwrap();
    std::fs::remove_dir_all(scratch.0.join("~journal")).unwrap();
    first.append("u", &lines("u", 3..=4)).unwrap();
    assert_eq!(drain(&mut backlog, "u"), numbers(3..=4));
}

#[test]
fn dsk_09_ten_gigabytes_are_looked_at_and_begun_without_being_read() {
    let scratch = Scratch::new("large");
    let mut dir = scratch.dir(1 << 40);
    dir.append("t", &lines("t", 1..=3)).unwrap();
    // A hole: it takes no room, and reading it would take a minute.
    let file = std::fs::File::options().write(true).open(scratch.0.join("t")).unwrap();
    file.set_len(10 << 30).unwrap();
    dir.append("t", &lines("t", 4..=5)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    assert!(backlog.waiting(0).unwrap()["t"].bytes > 10 << 30);
    assert_eq!(drain(&mut backlog, "t"), numbers(1..=5));
    drop(backlog);
    let mut all = scratch.backlog(Which::All);
    let chunk = all.read("t", &HashSet::new()).unwrap().unwrap();
    assert!(chunk.is_empty() && !chunk.bad.is_empty());
    assert!(chunk.memory() < 4 << 20);
}

proptest! {
    /// A file and a journal that somebody wrote, or that a disk made up: read to the end, without a panic and
    /// without a byte that is neither sent, nor kept, nor set aside.
    #[test]
    fn dsk_04_any_file_and_any_journal_are_read_to_their_end(
        text in "(2024-01-01 00:00:00\tt\tk\t[ab]{0,9}\n|[\t\nxt]{0,9}){0,20}",
        entries in prop::collection::vec((0u64..300, any::<i64>(), any::<u32>(), any::<u32>()), 0..30),
        progress: [u64; 2],
        small: bool,
        all: bool,
    ) {
        let scratch = Scratch::new("hostile");
        std::fs::write(scratch.0.join("t~1"), &text).unwrap();
        let directory = super::super::dir::Directory::open(&scratch.0).unwrap();
        let inode = directory.stat("t~1").unwrap().st_ino;
        let file = std::fs::File::open(scratch.0.join("t~1")).unwrap();
        let mut journal = Journal::open_or_make(&directory.fd, &file).unwrap();
        let place = |at: u64| if small { at % 300 } else { at };
        let [own, others] = progress.map(place);
        let inside_bad = own % 2 == 0;
        journal.set_progress(Progress { own, others, inside_bad, before: 0 }).unwrap();
        let path = scratch.0.join(format!("~journal/{inode}"));
        let mut raw = std::fs::read(&path).unwrap();
        for (offset, time, len, check) in entries {
            raw.extend_from_slice(&offset.to_le_bytes());
            raw.extend_from_slice(&time.to_le_bytes());
            raw.extend_from_slice(&if small { len % 64 } else { len }.to_le_bytes());
            raw.extend_from_slice(&check.to_le_bytes());
        }
        std::fs::write(&path, raw).unwrap();
        let which = if all { Which::All } else { Which::Own };
        let mut backlog = scratch.backlog(which);
        let mut chunks = 0;
        let mut sent = 0;
        while let Some(chunk) = backlog.read("t", &HashSet::new()).unwrap() {
            backlog.commit(&chunk, None, &[]).unwrap();
            sent += chunk.len();
            chunks += 1;
            prop_assert!(chunks < 100, "no end");
        }
        let kept = scratch.text("t~1").len() + scratch.text("t~bad").len();
        prop_assert!(all || sent == 0);
        prop_assert!(sent > 0 || kept >= text.len() || text.is_empty(), "{kept} of {}", text.len());
    }
}

/// The file is finished and removed again and again while lines are appended to it.
#[test]
fn lines_that_come_while_their_file_is_removed_are_not_lost() {
    const EACH: u64 = 3_000;
    let scratch = Scratch::new("removed");
    let done = std::sync::atomic::AtomicU32::new(0);
    let mut sent = Vec::new();
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (mut dir, done) = (scratch.dir(300), &done);
            scope.spawn(move || {
                for number in worker * EACH..(worker + 1) * EACH {
                    while dir.append("t", &lines("t", [number])).is_err() {}
                }
                done.fetch_add(1, std::sync::atomic::Ordering::Release);
            });
        }
        let mut backlog = scratch.backlog(Which::Own);
        loop {
            let over = done.load(std::sync::atomic::Ordering::Acquire) == 3;
            sent.extend(drain(&mut backlog, "t"));
            if over && backlog.waiting(0).unwrap().is_empty() {
                break;
            }
        }
    });
    sent.sort_by_key(|number| number.parse::<u64>().unwrap());
    let wrong = sent.iter().zip(numbers(0..3 * EACH)).position(|(is, should)| *is != should);
    assert_eq!((sent.len() as u64, wrong), (3 * EACH, None));
    assert_eq!(scratch.names(), [""; 0]);
}
