//! Verdicts on made-up runs.

use super::*;

const RUN: &str = "r1";

/// Of a run without replay.
fn rules(records: u64, strict: bool) -> Rules {
    Rules { records, strict, repeats: None }
}

fn line(topic: &str, partition: u32, worker: &str, seq: u64) -> String {
    let payload = payload::write(RUN, worker, seq, topic, "k1", "xxx");
    format!("{topic}\t{partition}\t0\tk1\t{payload}\n")
}

fn judged(ledger: &str, backup: &[String], readers: &[&[String]]) -> Vec<Column> {
    let mut judge = Judge::new(RUN);
    judge.read_ledger(ledger.as_bytes()).unwrap();
    let mut findings = Column::default();
    for line in backup {
        judge.read_backup_line("t", Place::There, line.trim_end(), &mut findings);
    }
    let mut columns = Vec::new();
    for (index, lines) in readers.iter().enumerate() {
        let column = judge.read_records("reader", lines.concat().as_bytes()).unwrap();
        columns.push(judge.finish(column, index > 0));
    }
    columns
}

/// All rows that are not 0, except for the number of records.
fn findings(column: &Column) -> Vec<(Kind, u64)> {
    let kinds = ROWS.iter().map(|(kind, ..)| (*kind, column.count(*kind)));
    kinds.filter(|(kind, count)| *count > 0 && *kind != Kind::Read).collect()
}

fn seen(ledger: &str, lines: &[String]) -> Vec<(Kind, u64)> {
    findings(&judged(ledger, &[], &[lines])[0])
}

#[test]
fn what_was_taken_and_is_there_once_and_in_order_is_well() {
    let lines = [line("t", 0, "1-1", 1), line("t", 1, "1-1", 3), line("t", 0, "1-1", 2)];
    assert_eq!(seen("1-1 1 yyy\n", &lines), []);
    let columns = judged("1-1 1 yyy\n", &[], &[&lines, &lines]);
    assert!(report(&columns, rules(3, true)).1);
}

#[test]
fn a_taken_message_that_is_nowhere_is_lost() {
    let columns = judged("1-1 1 yyy\n", &[], &[&[line("t", 0, "1-1", 1), line("t", 0, "1-1", 3)]]);
    assert_eq!(findings(&columns[0]), [(Kind::Lost, 1)]);
    assert_eq!(columns[0].examples[&Kind::Lost], ["1-1:2"]);
    assert!(!report(&columns, rules(2, false)).1);
}

#[test]
fn copies_are_doubles_and_no_matter_of_order() {
    let (one, two) = (line("t", 0, "1-1", 1), line("t", 0, "1-1", 2));
    let lines = [one.clone(), two.clone(), one.clone(), two, one];
    assert_eq!(seen("1-1 1 yy\n", &lines), [(Kind::Doubled, 3)]);
    let columns = judged("1-1 1 yy\n", &[], &[&lines]);
    assert!(report(&columns, rules(5, false)).1);
    assert!(!report(&columns, rules(5, true)).1);
}

#[test]
fn order_counts_per_worker_topic_and_partition() {
    let mixed = [line("t", 0, "1-1", 2), line("t", 0, "2-1", 1), line("u", 0, "1-1", 1)];
    assert_eq!(seen("1-1 1 yy\n2-1 1 y\n", &mixed), []);
    let swapped = [line("t", 0, "1-1", 2), line("t", 0, "1-1", 1)];
    assert_eq!(seen("1-1 1 yy\n", &swapped), [(Kind::Reordered, 1)]);
}

#[test]
fn a_copy_in_another_partition_counts_in_the_order_there_whichever_is_read_first() {
    let here = [line("t", 0, "1-1", 2), line("t", 0, "1-1", 1)];
    let there = [line("t", 1, "1-1", 1), line("t", 1, "1-1", 2)];
    let found = [(Kind::Doubled, 2), (Kind::Reordered, 1)];
    assert_eq!(seen("1-1 1 yy\n", &[here.clone(), there.clone()].concat()), found);
    assert_eq!(seen("1-1 1 yy\n", &[there, here].concat()), found);
}

#[test]
fn what_was_refused_must_not_be_there_and_what_is_unknown_may() {
    let lines = [line("t", 0, "1-1", 1), line("t", 0, "1-1", 2)];
    assert_eq!(seen("1-1 1 yn\n", &lines), [(Kind::RefusedPresent, 1)]);
    assert_eq!(seen("1-1 1 y\n", &lines), [(Kind::UnknownPresent, 1)]);
}

#[test]
fn what_is_in_the_backup_is_not_lost() {
    let payload = |seq| payload::write(RUN, "1-1", seq, "t", "k1", "xxx");
    let kept = |seq| format!("2026-01-01 00:00:00\tt\tk1\t{}\n", payload(seq));
    let columns = judged(
        "1-1 1 yyy\n",
        &[kept(1), kept(2)],
        &[&[line("t", 0, "1-1", 2), line("t", 0, "1-1", 3)]],
    );
    assert_eq!(findings(&columns[0]), [(Kind::InBackupOnly, 1), (Kind::InBoth, 1)]);
    assert!(report(&columns, rules(2, true)).1);
}

/// Verdict on records, of which those in `removed` had stood in backup files.
fn replayed(ledger: &str, removed: &[u64], lines: &[String], repeats: u64) -> (Column, bool) {
    let mut judge = Judge::new(RUN);
    judge.read_ledger(ledger.as_bytes()).unwrap();
    let mut found = Column::default();
    for seq in removed {
        judge.read_backup_line("r", Place::Removed, &kept(*seq), &mut found);
    }
    assert_eq!(found.count(Kind::BackupDamaged), 0);
    let column = judge.read_records("reader", lines.concat().as_bytes()).unwrap();
    let columns = [judge.finish(column, false)];
    let rules = Rules { records: lines.len() as u64, strict: true, repeats: Some(repeats) };
    let good = report(&columns, rules).1;
    let [column] = columns;
    (column, good)
}

fn kept(seq: u64) -> String {
    format!("2026-01-01 00:00:00\tt\tk1\t{}", payload::write(RUN, "1-1", seq, "t", "k1", "xxx"))
}

#[test]
fn what_was_replayed_may_come_late_and_all_else_may_not() {
    let lines: Vec<String> = [3, 4, 1, 2].map(|seq| line("t", 0, "1-1", seq)).into();
    let (column, good) = replayed("1-1 1 yyyy\n", &[1, 2], &lines, 0);
    assert_eq!(findings(&column), [(Kind::Replayed, 2)]);
    assert!(good);
    let (column, good) = replayed("1-1 1 yyyy\n", &[1], &lines, 0);
    assert_eq!(findings(&column), [(Kind::Reordered, 1), (Kind::Replayed, 1)]);
    assert!(!good);
    // It is no excuse for those around it.
    let lines: Vec<String> = [1, 4, 2, 3].map(|seq| line("t", 0, "1-1", seq)).into();
    let (column, good) = replayed("1-1 1 yyyy\n", &[1, 2], &lines, 0);
    assert_eq!(findings(&column), [(Kind::Reordered, 1), (Kind::Replayed, 2)]);
    assert!(!good);
}

#[test]
fn replay_may_repeat_so_many_and_nobody_else_any() {
    let lines: Vec<String> = [2, 1, 1].map(|seq| line("t", 0, "1-1", seq)).into();
    let (column, good) = replayed("1-1 1 yy\n", &[1], &lines, 1);
    assert_eq!(findings(&column), [(Kind::Replayed, 1), (Kind::ReplayedAgain, 1)]);
    assert!(good);
    assert!(!replayed("1-1 1 yy\n", &[1], &lines, 0).1);
    let lines: Vec<String> = [1, 2, 2].map(|seq| line("t", 0, "1-1", seq)).into();
    assert!(!replayed("1-1 1 yy\n", &[1], &lines, 1).1);
}

#[test]
fn a_removed_file_whose_messages_are_not_in_kafka_has_lost_them() {
    let (column, good) = replayed("1-1 1 yy\n", &[1], &[line("t", 0, "1-1", 2)], 0);
    assert_eq!(findings(&column), [(Kind::Lost, 1)]);
    assert!(!good);
}

#[test]
fn what_was_moved_aside_or_left_behind_is_no_good_end_of_a_replay() {
    let mut judge = Judge::new(RUN);
    judge.read_ledger("1-1 1 y\n".as_bytes()).unwrap();
    let mut found = Column::default();
    judge.read_backup_line("t~bad", Place::Aside, &kept(1), &mut found);
    assert_eq!(found.count(Kind::MovedAside), 1);
    let column = judge.read_records("reader", &b""[..]).unwrap();
    assert_eq!(findings(&judge.finish(column, false)), [(Kind::Lost, 1)]);
    let columns = judged("1-1 1 y\n", &[kept(1)], &[&[]]);
    assert_eq!(findings(&columns[0]), [(Kind::InBackupOnly, 1)]);
    assert!(report(&columns, rules(0, true)).1);
    assert!(!report(&columns, Rules { repeats: Some(0), ..rules(0, true) }).1);
}

#[test]
fn a_torn_line_of_the_backup_is_a_finding() {
    let mut judge = Judge::new(RUN);
    let mut found = Column::default();
    let torn = "2026-01-01 00:00:00\tt\tk1\tr1 1-1 1 t";
    judge.read_backup_line("t", Place::There, torn, &mut found);
    judge.read_backup_line("a removed file", Place::Removed, torn, &mut found);
    assert_eq!(found.count(Kind::BackupDamaged), 2);
    judge.read_backup_line("t~bad", Place::Aside, torn, &mut found);
    assert_eq!((found.count(Kind::BackupDamaged), found.count(Kind::HalfMovedAside)), (2, 1));
}

#[test]
fn damaged_and_foreign_records_are_told_apart() {
    let damaged = line("t", 0, "1-1", 1).replace("xxx", "xyx");
    let foreign = line("t", 0, "1-1", 1).replace("r1 ", "r2 ");
    let lines = [damaged, foreign, "Error: something\n".to_owned()];
    assert_eq!(seen("", &lines), [(Kind::Foreign, 2), (Kind::Damaged, 1)]);
}

#[test]
fn readers_that_differ_or_read_too_little_give_no_good_verdict() {
    let (one, two) = (line("t", 0, "1-1", 1), line("t", 0, "1-1", 2));
    let columns =
        judged("1-1 1 yy\n", &[], &[&[one.clone(), two.clone()], &[one.clone(), two.clone(), two]]);
    assert_eq!(columns[1].count(Kind::Differing), 1);
    assert!(!report(&columns, rules(2, false)).1);
    let columns = judged("1-1 1 y\n", &[], &[std::slice::from_ref(&one)]);
    assert!(report(&columns, rules(1, true)).1);
    assert!(!report(&columns, rules(2, true)).1);
    assert!(!report(&[], rules(0, true)).1);
}
