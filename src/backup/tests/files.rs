//! Files as they are written, rotated, limited, and put right after a kill.

use super::*;

#[test]
fn t7_directory_and_files_are_made_for_the_owner_alone() {
    let scratch = Scratch::new("modes");
    let path = scratch.0.join("a/b");
    BackupDir::open(&path, limits(1 << 20)).unwrap().append("t", &lines("t", [1])).unwrap();
    let mut backlog = Backlog::open(&path, Which::Own, 1000).unwrap();
    assert!(backlog.lock().unwrap());
    let mode =
        |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(".."), mode("."), mode("t"), mode("~lock"), mode("~journal")),
        (0o700, 0o700, 0o600, 0o600, 0o700)
    );
    for journal in std::fs::read_dir(path.join("~journal")).unwrap() {
        let mode = journal.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn t6_links_and_things_that_are_no_files_are_refused() {
    let scratch = Scratch::new("links");
    let outside = scratch.0.join("outside");
    std::fs::write(&outside, b"untouched").unwrap();
    let backup = scratch.0.join("backup");
    let mut dir = BackupDir::open(&backup, limits(1 << 20)).unwrap();
    symlink(&outside, backup.join("soft")).unwrap();
    std::fs::hard_link(&outside, backup.join("hard")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        backup.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    for topic in ["soft", "hard", "fifo"] {
        assert!(dir.append(topic, &lines(topic, [1])).is_err(), "{topic}");
    }
    assert_eq!(std::fs::read(&outside).unwrap(), b"untouched");
    // Nor is a link in the place of the journals' directory followed.
    let elsewhere = scratch.0.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, backup.join("~journal")).unwrap();
    assert!(dir.append("t", &lines("t", [1])).is_err());
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}

proptest! {
    #[test]
    fn t5_names_that_are_no_topics_open_nothing(name in "[a./~\\x00]{0,8}") {
        prop_assume!(!crate::topic_name::is_valid(&name));
        let scratch = Scratch::new("names");
        let mut dir = BackupDir::open(&scratch.0.join("backup"), limits(1 << 20)).unwrap();
        prop_assert!(dir.append(&name, &lines("a", [1])).is_err());
        prop_assert_eq!(scratch.names(), ["backup"]);
        prop_assert_eq!(std::fs::read_dir(scratch.0.join("backup")).unwrap().count(), 0);
    }
}

#[test]
fn a_file_that_somebody_else_keeps_locked_is_an_error_and_not_a_wait() {
    let scratch = Scratch::new("locked");
    std::fs::write(scratch.0.join("t"), b"").unwrap();
    let other = std::fs::File::open(scratch.0.join("t")).unwrap();
    other.lock().unwrap();
    let mut dir = scratch.dir(1 << 20);
    assert!(dir.append("t", &lines("t", [1])).is_err());
    dir.append("another", &lines("another", [1])).unwrap();
    assert!(scratch.backlog(Which::All).read("t", &HashSet::new()).unwrap().is_none());
    other.unlock().unwrap();
    dir.append("t", &lines("t", [1])).unwrap();
}

#[test]
fn a_file_that_reached_its_size_is_rotated_and_numbers_go_up() {
    let scratch = Scratch::new("rotate");
    let one = lines("t", [1]).bytes() as u64;
    let mut dir = scratch.dir(2 * one);
    for number in 1..=7 {
        dir.append("t", &lines("t", [number])).unwrap();
    }
    assert_eq!(scratch.names(), ["t", "t~1", "t~2", "t~3"]);
    assert!(scratch.text("t~1").ends_with("\t2\n") && scratch.text("t").ends_with("\t7\n"));
    // Numbers that are free again behind the last one are not used before it.
    std::fs::remove_file(scratch.0.join("t~1")).unwrap();
    dir.append("t", &lines("t", [8])).unwrap();
    dir.append("t", &lines("t", [9])).unwrap();
    assert_eq!(scratch.names(), ["t", "t~2", "t~3", "t~4"]);
    assert_eq!(drain(&mut scratch.backlog(Which::Own), "t"), numbers(3..=9));
    assert!(scratch.names().is_empty());
}

#[test]
fn dsk_11_topics_whose_names_look_like_each_other_s_files_stay_apart() {
    let scratch = Scratch::new("apart");
    let topics = ["a", "a.1", "a.offset", "a.bad", "a-1", "a_1"];
    let mut dir = scratch.dir(40);
    for number in 1..=5 {
        for topic in topics {
            dir.append(topic, &lines(topic, [number])).unwrap();
        }
    }
    let mut backlog = scratch.backlog(Which::Own);
    let waiting: Vec<String> = backlog.waiting(0).unwrap().into_keys().collect();
    assert_eq!(
        waiting,
        BTreeMap::from_iter(topics.map(|t| (t, ()))).into_keys().collect::<Vec<_>>()
    );
    for topic in topics {
        assert_eq!(drain(&mut backlog, topic), numbers(1..=5), "{topic}");
    }
}

/// As the topic `lkfk-0` is, whose name the queues of an older version have.
#[test]
fn dsk_16_a_topic_whose_name_a_directory_has_gets_its_backup_and_has_it_sent() {
    let scratch = Scratch::new("directory");
    std::fs::create_dir(scratch.0.join("lkfk-0")).unwrap();
    let one = lines("lkfk-0", [1]).bytes() as u64;
    let mut dir = scratch.dir(2 * one);
    for number in 1..=5 {
        dir.append("lkfk-0", &lines("lkfk-0", [number])).unwrap();
    }
    assert_eq!(scratch.names(), ["lkfk-0", "lkfk-0~1", "lkfk-0~2", "lkfk-0~file"]);
    // The old queues are adopted, and their directory is removed.
    std::fs::remove_dir(scratch.0.join("lkfk-0")).unwrap();
    dir.append("lkfk-0", &lines("lkfk-0", [6])).unwrap();
    let mut backlog = scratch.backlog(Which::Own);
    assert!(backlog.waiting(0).unwrap().keys().eq(["lkfk-0"]));
    assert_eq!(drain(&mut backlog, "lkfk-0"), numbers(1..=6));
    assert_eq!(scratch.names(), Vec::<String>::new());
}

#[test]
fn dsk_16_directories_of_named_producers_are_no_topic_s_and_are_counted_for_themselves() {
    let scratch = Scratch::new("producers");
    let limits = Limits { file: 5_000, total: 20_000 };
    let billing = directory_of(&scratch.0, "billing");
    let mut named = BackupDir::open(&billing, limits).unwrap();
    while named.append("t", &lines("t", 1..=10)).is_ok() {}
    let mut dir = BackupDir::open(&scratch.0, limits).unwrap();
    dir.append("t", &lines("t", 21..=22)).unwrap();
    // What the queues of this user may be called in time.
    std::fs::create_dir(scratch.0.join("~queue-0")).unwrap();
    let mut backlog = scratch.backlog(Which::All);
    assert!(backlog.waiting(0).unwrap().keys().eq(["t"]));
    assert!(backlog.read("~p", &HashSet::new()).unwrap().is_none());
    assert_eq!(drain(&mut backlog, "t"), numbers(21..=22));
    // Each of them is replayed by whoever has its lock.
    let mut other = Backlog::open(&billing, Which::Own, 1000).unwrap();
    assert!(other.lock().unwrap());
    assert!(other.waiting(0).unwrap()["t"].bytes > 10_000);
    let modes = ["~p", "~p/billing"]
        .map(|name| scratch.0.join(name))
        .map(|path| std::fs::metadata(path).unwrap().permissions().mode() & 0o077);
    assert_eq!(modes, [0, 0]);
}

#[test]
fn dsk_07_a_file_that_was_moved_away_or_removed_is_made_anew() {
    let scratch = Scratch::new("moved");
    let mut dir = scratch.dir(1 << 20);
    dir.append("t", &lines("t", 1..=2)).unwrap();
    std::fs::rename(scratch.0.join("t"), scratch.0.join("kept")).unwrap();
    dir.append("t", &lines("t", [3])).unwrap();
    std::fs::remove_file(scratch.0.join("t")).unwrap();
    dir.append("t", &lines("t", [4])).unwrap();
    assert_eq!(scratch.text("kept").lines().count(), 2);
    assert!(scratch.text("t").ends_with("\t4\n"));
    assert_eq!(scratch.text("t").lines().count(), 1);
    assert_eq!(drain(&mut scratch.backlog(Which::Own), "t"), numbers([4]));
}

/// DSK-11, and an operator in between.
#[test]
fn workers_that_append_and_rotate_at_once_lose_and_mix_nothing() {
    const WORKERS: u64 = 4;
    const EACH: u64 = 2_000;
    let scratch = Scratch::new("workers");
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let mut dir = scratch.dir(20_000);
            scope.spawn(move || {
                for chunk in 0..EACH / 10 {
                    let first = worker * EACH + chunk * 10;
                    // A few others may hold the lock for a while on a loaded machine.
                    while dir.append("t", &lines("t", first..first + 10)).is_err() {}
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                let _ = std::fs::rename(scratch.0.join("t"), scratch.0.join("t~900000"));
                let _ = std::fs::rename(scratch.0.join("t~900000"), scratch.0.join("t~1"));
                std::thread::yield_now();
            }
        });
    });
    let mut seen = BTreeMap::new();
    for name in scratch.names() {
        for line in scratch.text(&name).lines() {
            let mut buffer = Vec::new();
            let line = line.as_bytes();
            let (topic, fields) = format::read(line, Writing::Escaped, 100, &mut buffer).unwrap();
            let payload = fields.line(topic, &buffer).record.payload.unwrap();
            let number = std::str::from_utf8(payload).unwrap();
            *seen.entry(number.parse::<u64>().unwrap()).or_insert(0) += 1;
        }
    }
    // The operator's second rename may have replaced a file that was called t~1: those lines are gone by
    // the operator's hand, and none is there twice or torn.
    assert!(seen.values().all(|count| *count == 1));
    assert!(seen.keys().all(|number| *number < WORKERS * EACH));
    let left = drain(&mut scratch.backlog(Which::Own), "t");
    assert_eq!(left.len(), seen.len());
}

/// Also in the moment in which several of them make the file.
#[test]
fn workers_alone_keep_every_line() {
    for round in 0..20 {
        let scratch = Scratch::new("alone");
        let together = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (mut dir, together) = (scratch.dir(5_000 * (round + 1)), &together);
                scope.spawn(move || {
                    together.wait();
                    for chunk in 0..20 {
                        let first = worker * 200 + chunk * 10;
                        while dir.append("t", &lines("t", first..first + 10)).is_err() {}
                    }
                });
            }
        });
        let mut all = drain(&mut scratch.backlog(Which::Own), "t");
        all.sort_by_key(|number| number.parse::<u64>().unwrap());
        let wrong = all.iter().zip(numbers(0..800)).position(|(is, should)| *is != should);
        assert_eq!((all.len(), wrong), (800, None));
    }
}

#[test]
fn dsk_12_above_the_limit_of_all_files_nothing_is_added_until_there_is_room() {
    let scratch = Scratch::new("total");
    let total = 20_000;
    let mut dir = BackupDir::open(&scratch.0, Limits { file: 5_000, total }).unwrap();
    let mut count = 0;
    let error = loop {
        match dir.append("t", &lines("t", [count])) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BackupError::Full { limit: 20_000, .. }), "{error}");
    let used = |path: &Path| -> u64 {
        std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap())
            .filter(|meta| meta.is_file())
            .map(|meta| meta.len())
            .sum()
    };
    let bytes = used(&scratch.0) + used(&scratch.0.join("~journal"));
    assert!(bytes <= total && bytes > total - 200, "{bytes}");
    // Another worker sees it as well, another topic has no more room.
    let mut other = BackupDir::open(&scratch.0, Limits { file: 5_000, total }).unwrap();
    assert!(other.append("u", &lines("u", 1..=10)).is_err());
    let mut backlog = scratch.backlog(Which::Own);
    assert_eq!(drain(&mut backlog, "t"), numbers(0..count));
    dir.append("t", &lines("t", [count])).unwrap();
    other.append("u", &lines("u", [1])).unwrap();
}

/// A removed file keeps its space for as long as somebody has it open.
#[test]
fn dsk_15_no_file_is_held_open_once_its_lines_are_written_or_sent() {
    let scratch = Scratch::new("descriptors");
    let mut dir = scratch.dir(1 << 20);
    let topics = ["removed", "replayed", "rotated"];
    for topic in topics {
        dir.append(topic, &lines(topic, 1..=3)).unwrap();
        dir.append_others(topic, b"of a failed_cb\n").unwrap();
    }
    let mut backlog = scratch.backlog(Which::Own);
    let chunk = backlog.read("replayed", &HashSet::new()).unwrap().unwrap();
    backlog.commit(&chunk, None, &[]).unwrap();
    drop(chunk);
    backlog.waiting(0).unwrap();
    let open: Vec<PathBuf> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.starts_with(&scratch.0))
        .collect();
    let files = open.iter().filter(|path| {
        let below = path.strip_prefix(&scratch.0).unwrap();
        topics.iter().any(|topic| below.starts_with(topic)) || below.starts_with("~journal")
    });
    assert_eq!(files.collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

#[test]
fn half_a_line_of_somebody_else_is_ended_before_the_next_one() {
    let scratch = Scratch::new("half");
    std::fs::write(scratch.0.join("t"), b"whole\nhal").unwrap();
    scratch.dir(1 << 20).append("t", &lines("t", [1])).unwrap();
    assert!(scratch.text("t").starts_with("whole\nhal\n2023-"));
    assert_eq!(drain(&mut scratch.backlog(Which::Own), "t"), numbers([1]));
    assert!(scratch.text("t").starts_with("whole\nhal\n2023-"));
}

/// A writer was killed in the middle of a write.
#[test]
fn dsk_04_lines_cut_at_every_byte_cost_themselves_and_are_kept_aside() {
    let three: Vec<usize> = (1..=3).map(|n| lines("t", [n]).bytes()).collect();
    let whole = three.iter().sum::<usize>();
    for cut in 0..=whole {
        for by_writer in [true, false] {
            let scratch = Scratch::new("cut");
            let mut dir = scratch.dir(1 << 20);
            dir.append("t", &lines("t", [0])).unwrap();
            let before = scratch.text("t").len();
            dir.append("t", &lines("t", 1..=3)).unwrap();
            let text = scratch.text("t");
            let file = std::fs::File::options().write(true).open(scratch.0.join("t")).unwrap();
            file.set_len((before + cut) as u64).unwrap();
            let lines_left = three.iter().scan(0, |sum, len| {
                *sum += len;
                Some(*sum)
            });
            let ends: Vec<usize> = lines_left.collect();
            let kept = ends.iter().filter(|end| **end <= cut).count() as u64;
            let torn = cut - ends.iter().filter(|end| **end <= cut).max().unwrap_or(&0);
            let mut expected = numbers(0..=kept);
            if by_writer {
                scratch.dir(1 << 20).append("t", &lines("t", [9])).unwrap();
                expected.push("9".into());
            }
            assert_eq!(drain(&mut scratch.backlog(Which::Own), "t"), expected, "cut at {cut}");
            let bad = scratch.text("t~bad");
            if torn == 0 {
                assert_eq!(bad, "");
            } else {
                let half = &text[before + cut - torn..before + cut];
                assert_eq!(bad, format!("{half}\n"), "cut at {cut}");
            }
            assert!(!scratch.0.join("t").exists());
        }
    }
}

proptest! {
    #[test]
    fn dsk_04_a_flipped_bit_costs_the_line_that_it_is_in(at in 0usize..400, bit in 0u8..8) {
        let scratch = Scratch::new("flip");
        let mut dir = scratch.dir(1 << 20);
        dir.append("t", &lines("t", 100..=119)).unwrap();
        let file = std::fs::File::options().read(true).write(true).open(scratch.0.join("t")).unwrap();
        let line = lines("t", [100]).bytes();
        let at = at % (20 * line);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << bit)], at as u64).unwrap();
        let hit = 100 + (at / line) as u64;
        let mut backlog = scratch.backlog(Which::Own);
        prop_assert_eq!(drain(&mut backlog, "t"), numbers((100..=119).filter(|n| *n != hit)));
        prop_assert!(std::fs::read(scratch.0.join("t~bad")).unwrap().len() >= line);
        prop_assert_eq!(scratch.names(), ["t~bad"]);
    }
}

/// The lines are whole; what the journal says of one of them is not.
#[test]
fn dsk_04_a_damaged_journal_moves_no_line_and_cuts_no_file() {
    let scratch = Scratch::new("journal");
    scratch.dir(1 << 20).append("t", &lines("t", 100..=119)).unwrap();
    let before = scratch.text("t");
    let journal = std::fs::read_dir(scratch.0.join("~journal")).unwrap().next().unwrap().unwrap();
    let file = std::fs::File::options().write(true).open(journal.path()).unwrap();
    // The length of the eleventh entry.
    file.write_all_at(&[0xff, 0xff, 0xff], 160 + 10 * 24 + 16).unwrap();
    scratch.dir(1 << 20).append("t", &lines("t", [120])).unwrap();
    let mut after = before.clone().into_bytes();
    after.extend_from_slice(&lines("t", [120]).text);
    assert_eq!(scratch.text("t").into_bytes(), after);
    let sent = drain(&mut scratch.backlog(Which::Own), "t");
    assert!(sent.len() >= 11 && sent.last().unwrap() == "120", "{sent:?}");
    // What is nobody's now is still there for "all".
    let mut all = scratch.backlog(Which::All);
    let mut everything = [sent, drain(&mut all, "t")].concat();
    everything.sort();
    assert_eq!(everything, numbers(100..=120));
}
