//! Single behaviours.

use super::*;
use crate::record::Headers;
use std::collections::VecDeque;
use std::os::unix::fs::{PermissionsExt, symlink};

const LOTS: u64 = 1_000_000;

#[test]
fn records_come_out_as_they_went_in() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let mut reader = Reader::new(&queue);
    let (a, b) = (writer.topic("a").unwrap(), writer.topic("b").unwrap());
    assert_eq!(writer.topic("a"), Ok(a));
    push(&mut writer, a, 7, None, b"").unwrap();
    push(&mut writer, b, 8, Some(b""), b"\0\n\xff").unwrap();
    push(&mut writer, a, 9, Some(b"key"), &[b'x'; 5_000]).unwrap();
    let slot = reader.read().unwrap().unwrap();
    assert_eq!(
        (slot.logged_ms, slot.record.key, slot.record.payload.unwrap()),
        (7, None, &b""[..])
    );
    let slot = reader.read().unwrap().unwrap();
    assert_eq!(
        (slot.logged_ms, slot.record.key, slot.record.payload.unwrap()),
        (8, Some(&b""[..]), &b"\0\n\xff"[..])
    );
    let slot = reader.read().unwrap().unwrap();
    assert_eq!(
        (slot.record.key, slot.record.payload.unwrap()),
        (Some(&b"key"[..]), &[b'x'; 5_000][..])
    );
    assert_eq!(reader.read(), Ok(None));
    assert_eq!(reader.read_count(), Some(3));
    assert_eq!(reader.topic(a).unwrap(), "a");
    assert_eq!(reader.topic(b).unwrap(), "b");
    assert_eq!(reader.topic(2), None);
}

#[test]
fn headers_null_payloads_flags_and_a_time_of_its_own_come_out_as_they_went_in() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let mut headers = HeadersBuf::default();
    headers.push("trace", Some(b"4711"));
    headers.push("empty", None);
    let block = headers.into_block();
    let with_headers =
        Record { headers: Headers::check(&block).unwrap(), ..Record::new(7, None, Some(b"x")) };
    let records = [
        (with_headers, Flags::NO_LINGER, 3),
        (Record::new(7, Some(b"key"), None), Flags::AWAITED, layout::ASK_PARTITION),
        (Record::new(-5, None, Some(b"")), Flags::NO_LINGER | Flags::AWAITED, layout::NO_PARTITION),
        (Record { timestamp_ms: 8, payload: None, ..with_headers }, Flags::NONE, 0),
    ];
    for (record, flags, partition) in records {
        writer.push(topic, partition, 7, &record, flags).unwrap();
        let slot = reader.read().unwrap().unwrap();
        assert_eq!((slot.record, slot.flags, slot.partition), (record, flags, partition));
        assert_eq!(slot.logged_ms, 7);
        assert_eq!(slot.bytes_in_queue() as u64, writer.tail() - slot.position);
    }
    let names: Vec<_> = with_headers.headers.iter().collect();
    assert_eq!(names, [("trace", Some(&b"4711"[..])), ("empty", None)]);
}

#[test]
fn the_usual_slot_is_never_larger_than_in_version_2_and_headers_count_towards_the_limit() {
    for bytes in 0..5_000 {
        let before = (layout::v2::SLOT_HEADER + bytes).next_multiple_of(8);
        assert!(layout::slot_len(bytes, false) <= before, "{bytes}");
    }
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, LOTS, 100);
    let topic = writer.topic("t").unwrap();
    let mut block = HeadersBuf::default();
    block.push("h", Some(&[0; 40]));
    let block = block.into_block();
    let headers = Headers::check(&block).unwrap();
    let mut push = |payload: &[u8]| {
        let record = Record { headers, ..Record::new(0, Some(b"key"), Some(payload)) };
        writer.push(topic, 0, 0, &record, Flags::NONE)
    };
    let room = 100 - block.len() - 3;
    assert_eq!(push(&vec![0; room + 1]), Err(PushError::TooLarge));
    assert!(push(&vec![0; room]).is_ok());
}

#[test]
fn a_record_keeps_its_slot_until_it_is_done_and_slots_are_freed_in_any_order() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, 3, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    for payload in [b"1", b"2", b"3"] {
        push(&mut writer, topic, 0, None, payload).unwrap();
    }
    assert_eq!(push(&mut writer, topic, 0, None, b"4"), Err(PushError::TooManyMessages));
    let taken = drain(&mut reader).unwrap();
    reader.done(taken[1].0);
    reader.release();
    assert_eq!(queue.waiting(), 2);
    assert_eq!(reader.head(), taken[0].0);
    assert_eq!(reader.get(taken[0].0).unwrap().record.payload, Some(&b"1"[..]));
    push(&mut writer, topic, 0, None, b"4").unwrap();
    reader.done(taken[0].0);
    reader.release();
    assert_eq!(reader.head(), taken[2].0);
    assert_eq!(reader.get(taken[2].0).unwrap().record.payload, Some(&b"3"[..]));
}

#[test]
fn a_full_queue_refuses_and_takes_again_once_space_is_free() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let mut count = 0;
    while push(&mut writer, topic, 0, None, &[7; 1_000]).is_ok() {
        count += 1;
    }
    assert_eq!(push(&mut writer, topic, 0, None, &[7; 1_000]), Err(PushError::NoSpace));
    // Nothing is wasted between segments that follow each other.
    assert_eq!(count as u64, reader.capacity() / 1_056);
    let taken = drain(&mut reader).unwrap();
    assert_eq!(taken.len(), count);
    // Space comes back a segment at a time, when the oldest one holds nothing any more.
    let in_first =
        taken.iter().filter(|slot| slot.0 < queue.map().division().segment_len()).count();
    for slot in &taken[1..in_first] {
        reader.done(slot.0);
    }
    reader.release();
    assert_eq!(push(&mut writer, topic, 0, None, &[7; 1_000]), Err(PushError::NoSpace));
    reader.done(taken[0].0);
    reader.release();
    for _ in 0..3 {
        push(&mut writer, topic, 0, None, &[8; 1_000]).unwrap();
    }
    assert_eq!(push(&mut writer, topic, 0, None, &[8; 1_000]), Err(PushError::NoSpace));
    assert!(drain(&mut reader).unwrap().iter().all(|slot| slot.3 == [8; 1_000]));
}

#[test]
fn records_of_every_size_fit_or_are_refused_as_too_large() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, LOTS, usize::MAX);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let quarter = layout::MIN_DATA_LEN as usize / 4;
    for size in [0, 1, 7, 8, 9, quarter - 1, quarter] {
        push(&mut writer, topic, 0, None, &vec![1; size]).unwrap();
        let taken = drain(&mut reader).unwrap();
        assert_eq!(taken[0].3.len(), size);
        reader.done(taken[0].0);
        reader.release();
    }
    for (key, payload) in [(0, quarter + 1), (1, quarter), (quarter + 1, 0)] {
        let refused = push(&mut writer, topic, 0, Some(&vec![1; key]), &vec![1; payload]);
        assert_eq!(refused, Err(PushError::TooLarge));
    }
}

#[test]
fn what_little_waits_lies_at_the_start_of_the_file_also_after_a_backlog() {
    let scratch = Scratch::new();
    let queue = Queue::create(scratch.dir(), OWNER, "1", 8 << 20, 0).unwrap();
    let segment_len = queue.map().division().segment_len() as usize;
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    // Records kept waiting, and how far into the data area they may lie then.
    for (waiting, segments) in [(0, 2), (2_000, 10), (0, 2), (10_000, 40), (300, 4)] {
        let mut held = VecDeque::new();
        let mut farthest = 0;
        for n in 0..30_000 {
            push(&mut writer, topic, 0, None, &[1; 400]).unwrap();
            let slot = reader.read().unwrap().unwrap();
            let at = slot.record.payload.unwrap().as_ptr() as usize - queue.map().data() as usize;
            held.push_back(slot.position);
            while held.len() > waiting {
                reader.done(held.pop_front().unwrap());
            }
            reader.release();
            if n > 20_000 {
                farthest = farthest.max(at);
            }
        }
        assert!(farthest < segments * segment_len, "{waiting}: {farthest}");
        held.into_iter().for_each(|position| reader.done(position));
        reader.release();
    }
}

#[test]
fn filling_and_draining_with_mixed_sizes_never_sticks() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, LOTS, usize::MAX);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let quarter = reader.capacity() as usize / 4;
    let payload = vec![1; quarter];
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % below
    };
    let mut held = Vec::new();
    for round in 0..10_000 {
        let most = [100, 1_000, 5_000, quarter + 1][round % 4];
        let full = loop {
            if let Err(error) = push(&mut writer, topic, 0, None, &payload[..next(most)]) {
                break error;
            }
        };
        assert_eq!(full, PushError::NoSpace);
        while let Some(slot) = reader.read().unwrap() {
            held.push(slot.position);
        }
        // Most of them, or all, in any order.
        let kept = if round % 3 == 0 { next(20).min(held.len()) } else { 0 };
        while held.len() > kept {
            let slot = held.swap_remove(next(held.len()));
            reader.done(slot);
        }
        reader.release();
        if held.is_empty() {
            push(&mut writer, topic, 0, None, &payload).unwrap();
            held.push(reader.read().unwrap().unwrap().position);
        }
    }
}

#[test]
fn a_large_record_fits_an_empty_queue_wherever_the_writer_stands() {
    let scratch = Scratch::new();
    let queue = Queue::create(scratch.dir(), OWNER, "1", 4 << 20, 0).unwrap();
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    for size in (0..200).map(|i| if i % 2 == 0 { 1 << 20 } else { 40_000 * (i % 7) }) {
        push(&mut writer, topic, 0, None, &vec![1; size]).unwrap();
        let taken = drain(&mut reader).unwrap();
        assert_eq!(taken[0].3.len(), size);
        reader.done(taken[0].0);
        reader.release();
    }
}

#[test]
fn a_queue_is_never_made_in_the_place_of_another() {
    let scratch = Scratch::new();
    let first = scratch.queue();
    let mut writer = Writer::new(&first, LOTS, 1 << 20);
    let topic = writer.topic("t").unwrap();
    push(&mut writer, topic, 0, None, b"kept").unwrap();
    let error = Queue::create(scratch.dir(), OWNER, "1", layout::MIN_DATA_LEN, 0).err().unwrap();
    assert!(error.to_string().contains("cannot rename"), "{error}");
    drop((writer, first));
    let adopted = recovery::adopt(scratch.dir(), NAME, OWNER).unwrap();
    assert_eq!(Reader::new(&adopted).read().unwrap().unwrap().record.payload, Some(&b"kept"[..]));
    assert!(recovery::list(&scratch.dir(), "q").unwrap() == [NAME], "nothing else is left");
}

#[test]
fn positions_near_their_largest_values_work() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    // The start of a segment and a count, both shortly before 2^32 and 2^63.
    for near in [1u64 << 32, 1 << 63] {
        queue.map().cursors().reset(near - layout::MIN_DATA_LEN, near - 1_000);
        let mut writer = Writer::new(&queue, LOTS, 1 << 20);
        let mut reader = Reader::new(&queue);
        let topic = writer.topic("t").unwrap();
        let mut held = VecDeque::new();
        for round in 0..4_000u64 {
            let payload = round.to_le_bytes().repeat(1 + (round % 100) as usize * 3);
            push(&mut writer, topic, 0, None, &payload).unwrap();
            let slot = reader.read().unwrap().unwrap();
            assert_eq!(slot.record.payload.unwrap(), payload);
            held.push_back((slot.position, payload));
            assert_eq!(reader.read_count(), Some(near - 1_000 + round + 1));
            while held.len() > 10 {
                let (position, payload) = held.pop_front().unwrap();
                assert_eq!(reader.get(position).unwrap().record.payload.unwrap(), payload);
                reader.done(position);
            }
            reader.release();
        }
        held.into_iter().for_each(|(position, _)| reader.done(position));
        reader.release();
        assert!(reader.head() > near && queue.waiting() == 0);
        queue.map().identity().topics_used.store(0, Ordering::Relaxed);
    }
}

#[test]
fn the_writer_asks_for_a_wake_up_only_when_the_reader_wants_one() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    // With memory at hand; without it the writer asks for that.
    Provisioner::new(&queue).turn(0);
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    assert_eq!(push(&mut writer, topic, 0, None, b"1"), Ok(false));
    assert!(!reader.sleep_unless(1, u64::MAX), "there is a record");
    drain(&mut reader).unwrap();
    assert!(reader.sleep_unless(u64::MAX, 3));
    assert_eq!(push(&mut writer, topic, 0, None, b"2"), Ok(false));
    assert_eq!(push(&mut writer, topic, 0, None, b"3"), Ok(true));
    assert_eq!(push(&mut writer, topic, 0, None, b"4"), Ok(false), "asked once");
}

#[test]
fn topics_are_bounded_and_their_names_checked() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    for bad in ["", ".", "..", "a/b", "a\0", "ü"] {
        assert_eq!(writer.topic(bad), Err(TopicError::Invalid));
    }
    let mut count = 0;
    let full = loop {
        match writer.topic(&format!("{count:0>249}")) {
            Ok(id) => assert_eq!(id, count),
            Err(error) => break error,
        }
        count += 1;
    };
    assert_eq!(full, TopicError::TableFull);
    assert!(count > 1_000);
    assert_eq!(writer.topic(&format!("{:0>249}", 17)), Ok(17));
    assert_eq!(Reader::new(&queue).topic(17).unwrap(), format!("{:0>249}", 17));
    assert_eq!(push(&mut writer, count, 0, None, b""), Err(PushError::UnknownTopic));
}

#[test]
fn files_are_for_the_owner_alone_and_are_removed_by_name() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&queue.path()), mode(queue.path().parent().unwrap())), (0o600, 0o700));
    queue.remove().unwrap();
    assert!(!queue.path().exists());
}

#[test]
fn a_directory_that_is_a_link_or_open_to_others_is_refused() {
    let scratch = Scratch::new();
    let ours = scratch.dir().path().to_owned();
    std::fs::set_permissions(&ours, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(QueueDir::open(scratch.0.path()), Err(QueueError::UnsafeDirectory { .. })));
    std::fs::rename(&ours, scratch.0.path().join("elsewhere")).unwrap();
    symlink(scratch.0.path().join("elsewhere"), &ours).unwrap();
    assert!(matches!(QueueDir::open(scratch.0.path()), Err(QueueError::System { .. })));
}

#[test]
fn a_name_that_exists_is_not_taken_over() {
    let scratch = Scratch::new();
    let dir = scratch.dir();
    let target = scratch.0.path().join("target");
    std::fs::write(&target, b"untouched").unwrap();
    symlink(&target, dir.path().join("q-1.queue.unfinished")).unwrap();
    assert!(Queue::create(dir, OWNER, "1", layout::MIN_DATA_LEN, 0).is_err());
    assert_eq!(std::fs::read(target).unwrap(), b"untouched");
}

#[test]
fn two_threads_pass_records_without_loss_or_reordering() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, 100, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let total = 200_000u64;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut number = 0;
            while number < total {
                let payload = vec![number as u8; (number % 300) as usize];
                match push(&mut writer, topic, number as i64, Some(&number.to_le_bytes()), &payload)
                {
                    Ok(_) => number += 1,
                    Err(PushError::TooManyMessages | PushError::NoSpace) => {
                        std::thread::yield_now()
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        });
        let mut expected = 0;
        let mut held = Vec::new();
        while expected < total {
            if let Some(slot) = reader.read().unwrap() {
                assert_eq!(slot.record.key, Some(&expected.to_le_bytes()[..]));
                assert_eq!(
                    slot.record.payload.unwrap(),
                    vec![expected as u8; (expected % 300) as usize]
                );
                held.push(slot.position);
                expected += 1;
            }
            // Out of order, in threes.
            if held.len() >= 3 || expected == total {
                for position in held.drain(..).rev() {
                    reader.done(position);
                }
                reader.release();
            }
        }
    });
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn a_record_that_has_to_wait_holds_the_space_of_its_own_segment_and_no_more() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let mut waiting = Vec::new();
    // The queue's bytes a hundred times over, in records that reach over the ends of segments.
    for number in 0..5_000u32 {
        let payload = [&number.to_ne_bytes()[..], &vec![7; 200 + number as usize % 3_000]].concat();
        push(&mut writer, topic, 0, None, &payload).unwrap();
        let position = reader.read().unwrap().unwrap().position;
        if number % 1_000 == 3 {
            waiting.push((position, payload));
        } else {
            reader.done(position);
        }
        reader.release();
    }
    assert_eq!(queue.waiting(), 5);
    assert!(reader.bytes_in_use() <= 12 * 4096 && writer.bytes_in_use() <= 12 * 4096);
    for (position, payload) in &waiting {
        assert_eq!(reader.get(*position).unwrap().record.payload.unwrap(), payload);
    }
    // Whoever comes next finds what waits, and nothing else.
    drop((writer, reader));
    drop(queue);
    let queue = recovery::adopt(scratch.dir(), NAME, OWNER).unwrap();
    let mut reader = Reader::new(&queue);
    let found = drain(&mut reader).unwrap();
    let found: Vec<_> = found.into_iter().map(|taken| (taken.0, taken.3)).collect();
    assert_eq!(found, waiting);
    for (position, _) in waiting {
        reader.done(position);
    }
    reader.release();
    assert_eq!((reader.head(), queue.waiting()), (reader.tail(), 0));
}
