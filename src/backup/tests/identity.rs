//! Whose lines a file holds, when inode numbers are used again or change, and when journals are lost.

use super::super::file_id::FileId;
use super::*;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

/// Where the journal of a file lies.
fn journal_of(scratch: &Scratch, name: &str) -> PathBuf {
    let inode = fs::metadata(scratch.0.join(name)).unwrap().ino();
    scratch.0.join(format!("~journal/{inode}"))
}

/// Makes the journal of a file that of another, as if that had got the number of the first one.
fn give_number(scratch: &Scratch, from: &str, to: &str) {
    let (old, new) = (journal_of(scratch, from), journal_of(scratch, to));
    let inode = fs::metadata(scratch.0.join(to)).unwrap().ino();
    fs::rename(old, &new).unwrap();
    File::options().write(true).open(new).unwrap().write_all_at(&inode.to_le_bytes(), 8).unwrap();
}

/// Makes the journal one of a file system that has no birth times, or of a version of lkfk that did not note them.
fn forget_birth(scratch: &Scratch, name: &str) {
    let journal = File::options().write(true).open(journal_of(scratch, name)).unwrap();
    journal.write_all_at(&[0; 48], 16).unwrap();
}

fn text_of(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    lines("t", numbers).text
}

/// A day after its file was removed, say.
#[test]
fn dsk_14_the_journal_of_a_removed_file_claims_nothing_of_an_operator_s_with_its_number() {
    for known_birth in [true, false] {
        let scratch = Scratch::new("reused");
        scratch.dir(1 << 20).append("t", &lines("t", 1..=6)).unwrap();
        fs::write(scratch.0.join("t~redo"), text_of(11..=16)).unwrap();
        give_number(&scratch, "t", "t~redo");
        if !known_birth {
            forget_birth(&scratch, "t~redo");
        }
        fs::remove_file(scratch.0.join("t")).unwrap();
        assert_eq!(drain(&mut scratch.backlog(Which::Own), "t"), numbers(11..=16));
        assert_eq!(scratch.names(), Vec::<String>::new());
    }
}

#[test]
fn dsk_14_a_new_file_s_lines_are_not_an_old_one_s_though_they_read_the_same() {
    let scratch = Scratch::new("reborn");
    scratch.dir(1 << 20).append("t", &lines("t", 1..=6)).unwrap();
    fs::write(scratch.0.join("t~1"), text_of(1..=6)).unwrap();
    if FileId::of(&File::open(scratch.0.join("t")).unwrap()).unwrap().born_ns.is_none() {
        eprintln!("the file system of {} has no birth times", scratch.0.display());
        return;
    }
    give_number(&scratch, "t", "t~1");
    fs::remove_file(scratch.0.join("t")).unwrap();
    assert_eq!(drain(&mut scratch.backlog(Which::Own), "t"), numbers([]));
    assert_eq!(scratch.text("t~1").into_bytes(), text_of(1..=6));
    // What is appended to it is lkfk's, and what was there is not.
    fs::rename(scratch.0.join("t~1"), scratch.0.join("t")).unwrap();
    scratch.dir(1 << 20).append("t", &lines("t", 7..=8)).unwrap();
    assert_eq!(drain(&mut scratch.backlog(Which::Own), "t"), numbers(7..=8));
    assert_eq!(scratch.text("t").into_bytes(), text_of(1..=8));
}

/// As an operator's `cat other > orders` does.
#[test]
fn dsk_14_a_file_that_was_written_anew_in_place_is_not_damage() {
    let scratch = Scratch::new("in-place");
    scratch.dir(1 << 20).append("t", &lines("t", 1..=6)).unwrap();
    fs::write(scratch.0.join("t"), text_of(11..=16)).unwrap();
    let mut own = scratch.backlog(Which::Own);
    assert_eq!(own.waiting(0).unwrap(), BTreeMap::new());
    assert_eq!(drain(&mut own, "t"), numbers([]));
    drop(own);
    assert_eq!(drain(&mut scratch.backlog(Which::All), "t"), numbers(11..=16));
    assert_eq!(scratch.names(), Vec::<String>::new());
}

#[test]
fn dsk_14_a_short_file_with_a_used_number_is_neither_cut_nor_set_aside() {
    for by_writer in [true, false] {
        let scratch = Scratch::new("short");
        scratch.dir(1 << 20).append("t", &lines("t", 1..=6)).unwrap();
        fs::write(scratch.0.join("u"), "half a li").unwrap();
        give_number(&scratch, "t", "u");
        forget_birth(&scratch, "u");
        fs::remove_file(scratch.0.join("t")).unwrap();
        if by_writer {
            scratch.dir(1 << 20).append("u", &lines("u", [7])).unwrap();
            assert!(scratch.text("u").starts_with("half a li\n2023-"));
        }
        let sent = drain(&mut scratch.backlog(Which::Own), "u");
        assert_eq!(sent, numbers(by_writer.then_some(7)));
        assert!(scratch.text("u").starts_with("half a li"));
        assert_eq!(scratch.names(), ["u"]);
    }
}

#[test]
fn dsk_14_journals_of_versions_that_noted_no_birth_are_read() {
    let scratch = Scratch::new("old-journal");
    let mut dir = scratch.dir(1 << 20);
    dir.append("t", &lines("t", 1..=6)).unwrap();
    forget_birth(&scratch, "t");
    dir.append("t", &lines("t", 7..=8)).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    let chunk = backlog.read("t", &HashSet::new()).unwrap().unwrap();
    assert_eq!(payloads(&chunk), numbers(1..=8));
    backlog.commit(&chunk, Some(4), &[]).unwrap();
    dir.append("t", &lines("t", [9])).unwrap();
    assert_eq!(drain(&mut backlog, "t"), numbers(5..=9));
}

/// As on a file system whose inode numbers change at each mount: the journal is there, under another number.
#[test]
fn dsk_14_lines_that_look_like_lkfk_s_and_have_no_journal_are_told_of_once() {
    let scratch = Scratch::new("unclaimed");
    let mut dir = scratch.dir(1 << 20);
    for topic in ["lost", "mixed", "wanted", "t~bad", "whole"] {
        let topic = topic.split('~').next().unwrap();
        dir.append(topic, &lines(topic, 1..=3)).unwrap();
    }
    for name in ["lost", "mixed", "wanted"] {
        let journal = journal_of(&scratch, name);
        fs::rename(&journal, journal.with_file_name("1")).unwrap();
    }
    fs::rename(scratch.0.join("wanted"), scratch.0.join("wanted~redo")).unwrap();
    fs::copy(scratch.0.join("t"), scratch.0.join("t~bad")).unwrap();
    // Behind lines that nobody knows there are new ones.
    dir.append("mixed", &lines("mixed", 4..=5)).unwrap();
    dir.append_others("callback", b"2016-03-01 10:20:30\tcallback\tk\tof a failed_cb\n").unwrap();
    fs::write(scratch.0.join("README.txt"), "2016-03-01 10:20:30\tREADME\tk\tnot its topic\n")
        .unwrap();
    fs::write(scratch.0.join("binary"), [0; 500]).unwrap();

    let mut backlog = scratch.backlog(Which::Own);
    backlog.waiting(0).unwrap();
    assert_eq!(backlog.take_unclaimed(), ["lost", "mixed"]);
    backlog.waiting(0).unwrap();
    assert_eq!(backlog.take_unclaimed(), Vec::<String>::new());
    assert_eq!(drain(&mut backlog, "mixed"), numbers(4..=5));
    drop(backlog);
    // Nor by the next process that has the lock, but for what has come since.
    fs::copy(scratch.0.join("lost"), scratch.0.join("lost~1")).unwrap();
    let mut next = scratch.backlog(Which::Own);
    next.waiting(0).unwrap();
    assert_eq!(next.take_unclaimed(), ["lost~1"]);
    drop(next);
    // All of them are sent with "all", so that there is nothing to be told.
    let mut all = scratch.backlog(Which::All);
    all.waiting(0).unwrap();
    assert_eq!(all.take_unclaimed(), Vec::<String>::new());
    assert_eq!(drain(&mut all, "mixed"), numbers(1..=3));
}

/// Nobody is asked about topics for the sake of a file that lies in `backpath` by accident.
#[test]
fn dsk_17_files_of_strangers_are_told_from_lkfk_s_and_from_those_that_a_person_wants_sent() {
    let scratch = Scratch::new("strangers");
    let mut dir = scratch.dir(1 << 20);
    dir.append("own", &lines("own", 1..=3)).unwrap();
    dir.append("mixed", &lines("mixed", [1])).unwrap();
    fs::write(scratch.0.join("mixed~1"), "of somebody else\n").unwrap();
    fs::write(scratch.0.join("wanted~redo"), text_of(1..=3)).unwrap();
    for stray in ["README.txt", "x.gz", "orders"] {
        fs::write(scratch.0.join(stray), "2016-03-01 10:20:30\torders\tk\tv\n").unwrap();
    }
    dir.append_others("callback", b"2016-03-01 10:20:30\tcallback\tk\tof a failed_cb\n").unwrap();
    let mut all = scratch.backlog(Which::All);
    let waiting = all.waiting(0).unwrap();
    let known: Vec<&str> =
        waiting.iter().filter(|(_, waiting)| waiting.known).map(|(topic, _)| &**topic).collect();
    assert_eq!(known, ["mixed", "own", "wanted"]);
    let strangers: Vec<&str> =
        waiting.iter().filter(|(_, waiting)| !waiting.known).map(|(topic, _)| &**topic).collect();
    assert_eq!(strangers, ["README.txt", "callback", "orders", "x.gz"]);
}
