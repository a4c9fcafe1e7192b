//! Batches on record: what the next reader of a file finds of them, whole or not.

use super::*;
use crate::protocol::record_batch::ProducerStamp;
use crate::queue::layout::Areas;
use crate::queue::stamps::{self, OpenBatch, Stamp, Stamped};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const STAMP: ProducerStamp = ProducerStamp { producer_id: 7, epoch: 0, base_sequence: 0 };

/// A file with `count` records of one topic, as `"0"`, `"1"`, and so on.
struct File {
    scratch: Scratch,
    queue: Option<Queue>,
    reader: Option<Reader>,
    positions: Vec<u64>,
}

impl File {
    fn new(count: usize) -> File {
        let scratch = Scratch::new();
        let queue = scratch.queue();
        let mut writer = Writer::new(&queue, 1000, 1 << 20);
        let mut reader = Reader::new(&queue);
        let topic = writer.topic("t").unwrap();
        for number in 0..count {
            push(&mut writer, topic, 0, None, number.to_string().as_bytes()).unwrap();
        }
        let positions = drain(&mut reader).unwrap().iter().map(|slot| slot.0).collect();
        File { scratch, queue: Some(queue), reader: Some(reader), positions }
    }

    /// The end of the owner that sent.
    fn owner(&mut self) -> &mut Reader {
        self.reader.as_mut().expect("it is alive")
    }

    /// Stamps records `from..to` as a batch that begins with number `sequence`.
    fn stamp(&mut self, from: usize, to: usize, sequence: i32) {
        let indices: Vec<usize> = (from..to).collect();
        self.stamp_these(&indices, 3, ProducerStamp { base_sequence: sequence, ..STAMP });
    }

    fn stamp_these(&mut self, indices: &[usize], partition: u32, stamp: ProducerStamp) {
        let positions: Vec<u64> = indices.iter().map(|index| self.positions[*index]).collect();
        self.owner().stamp(partition, stamp, false, positions).unwrap();
    }

    /// The bytes of the batch log.
    fn log(&mut self) -> &mut [u8] {
        let map = self.queue.as_ref().expect("it is open").map();
        let areas = Areas::of(map.division().data_len());
        // SAFETY: so many bytes of the log have memory, and nobody else looks at them at this moment.
        unsafe { std::slice::from_raw_parts_mut(map.base().add(areas.log), layout::FIRST_LOG_LEN) }
    }

    fn done(&mut self, indices: &[usize]) {
        for index in indices {
            let position = self.positions[*index];
            self.owner().done(position);
        }
    }

    /// The owner is gone, with what it had not released.
    fn adopt(&mut self) -> Reader {
        drop((self.reader.take(), self.queue.take()));
        let queue = recovery::adopt(self.scratch.dir(), NAME, OWNER).unwrap();
        let reader = Reader::new(&queue);
        self.queue = Some(queue);
        reader
    }

    fn indices(&self, batches: &[OpenBatch]) -> Vec<Vec<usize>> {
        let index = |position: &u64| self.positions.iter().position(|p| p == position).unwrap();
        batches.iter().map(|batch| batch.positions.iter().map(index).collect()).collect()
    }

    fn read(&self, reader: &mut Reader) -> Vec<usize> {
        let taken = drain(reader).unwrap();
        taken.iter().map(|slot| String::from_utf8_lossy(&slot.3).parse().unwrap()).collect()
    }
}

#[test]
fn batches_that_were_sent_are_found_with_their_bounds_and_not_read_again() {
    let mut file = File::new(6);
    file.stamp(1, 3, 40);
    file.stamp(4, 5, 42);
    let mut reader = file.adopt();
    let open = reader.take_open_batches();
    assert_eq!(file.indices(&open), [vec![1, 2], vec![4]]);
    let OpenBatch { topic, partition, stamp, .. } = open[0];
    let sent = ProducerStamp { base_sequence: 40, ..STAMP };
    assert_eq!((topic, partition, stamp), (0, 3, sent));
    assert_eq!(reader.get(file.positions[4]).unwrap().record.payload.unwrap(), b"4");
    assert_eq!(file.read(&mut reader), [0, 3, 5]);
}

#[test]
fn a_part_of_a_batch_on_record_leaves_the_rest_on_record_as_a_part() {
    let mut file = File::new(6);
    file.stamp(0, 5, 40);
    let whole = ProducerStamp { base_sequence: 40, ..STAMP };
    let first = file.positions[..2].to_vec();
    file.owner().stamp(3, whole, true, first.clone()).unwrap();
    // It is repeated, and then the first of it is delivered.
    file.owner().stamp(3, whole, true, first).unwrap();
    file.done(&[0, 1]);
    let mut reader = file.adopt();
    let open = reader.take_open_batches();
    assert_eq!(file.indices(&open), [vec![2, 3, 4]]);
    let rest = ProducerStamp { base_sequence: 42, ..STAMP };
    assert_eq!((open[0].stamp, open[0].is_part), (rest, true));
    // The next owner sends it as a batch by itself.
    reader.stamp(3, rest, false, file.positions[2..5].to_vec()).unwrap();
    drop(reader);
    let open = file.adopt().take_open_batches();
    assert_eq!((open[0].stamp, open[0].is_part), (rest, false));
}

#[test]
fn the_rest_of_a_batch_that_was_being_cut_stays_on_record_however_often_its_adopters_die() {
    const BLOCK: usize = 64;
    let mut file = File::new(5);
    file.stamp(0, 5, 40);
    let whole = file.log()[..4].to_vec();
    let first = file.positions[..2].to_vec();
    let stamp = ProducerStamp { base_sequence: 40, ..STAMP };
    file.owner().stamp(3, stamp, true, first).unwrap();
    // Killed once the part was committed: the rest was not, and the whole not withdrawn.
    let log = file.log();
    assert_eq!(log[..4], [0; 4]);
    log[..4].copy_from_slice(&whole);
    log[2 * BLOCK..2 * BLOCK + 4].fill(0);
    for _ in 0..3 {
        let open = file.adopt().take_open_batches();
        assert_eq!(file.indices(&open), [vec![0, 1], vec![2, 3, 4]]);
        assert_eq!(open[1].stamp, ProducerStamp { base_sequence: 42, ..STAMP });
        assert!(open.iter().all(|batch| batch.is_part));
    }
}

#[test]
fn done_marks_in_an_open_batch_are_undone_and_those_of_a_delivered_one_stay() {
    let mut file = File::new(6);
    file.stamp(0, 2, 0);
    file.stamp(2, 5, 2);
    // All of the first; of the second the owner died after one mark. Nothing was released.
    file.done(&[0, 1, 3]);
    let mut reader = file.adopt();
    assert_eq!(file.indices(&reader.take_open_batches()), [vec![2, 3, 4]]);
    assert_eq!(file.read(&mut reader), [5]);
    reader.release();
    assert_eq!(reader.head(), file.positions[2], "what is open keeps its place");
    assert_eq!(file.queue.as_ref().unwrap().waiting(), 4);
    for index in 2..6 {
        reader.done(file.positions[index]);
    }
    reader.release();
    assert_eq!((reader.head(), file.queue.as_ref().unwrap().waiting()), (reader.tail(), 0));
}

#[test]
fn marks_that_were_not_released_are_counted_by_the_next_reader() {
    let mut file = File::new(4);
    file.done(&[0]);
    file.owner().release();
    file.done(&[1, 3]);
    let mut reader = file.adopt();
    assert!(reader.take_open_batches().is_empty());
    assert_eq!(file.read(&mut reader), [2]);
    reader.release();
    assert_eq!(file.queue.as_ref().unwrap().waiting(), 1);
}

#[test]
fn a_batch_whose_stamping_was_cut_short_was_never_sent() {
    let mut whole = File::new(5);
    whole.stamp(0, 1, 9);
    let before = whole.log().to_vec();
    whole.stamp(1, 5, 10);
    let after = whole.log().to_vec();
    let changed = (0..after.len()).rfind(|at| after[*at] != before[*at]).unwrap();
    // The entry is written up to some byte, with its commit or without.
    for written in 64..=changed + 1 {
        for is_committed in [false, true] {
            let is_whole = is_committed && written > changed;
            let mut file = File::new(5);
            assert_eq!(file.positions, whole.positions);
            let log = file.log();
            log.copy_from_slice(&before);
            log[64..written].copy_from_slice(&after[64..written]);
            log[64..68].copy_from_slice(if is_committed { &after[64..68] } else { &[0; 4] });
            let mut reader = file.adopt();
            let open = file.indices(&reader.take_open_batches());
            if is_whole {
                assert_eq!(open, [vec![0], vec![1, 2, 3, 4]]);
            } else {
                assert_eq!(open, [vec![0]], "{written}");
                assert_eq!(file.read(&mut reader), [1, 2, 3, 4]);
            }
        }
    }
}

#[test]
fn of_other_bounds_that_were_half_written_the_whole_half_counts() {
    let mut file = File::new(4);
    file.stamp(0, 4, 10);
    // Cut in two after a refusal: the first half is on record, the second was not reached.
    file.stamp(0, 2, 10);
    let mut reader = file.adopt();
    assert_eq!(file.indices(&reader.take_open_batches()), [vec![0, 1]]);
    assert_eq!(file.read(&mut reader), [2, 3]);
}

#[test]
fn what_was_given_up_is_not_found_as_sent_and_keeps_its_mark() {
    let mut file = File::new(3);
    file.stamp(0, 3, 0);
    for position in file.positions.clone() {
        file.owner().unstamp(position);
    }
    file.done(&[0]);
    let mut reader = file.adopt();
    assert!(reader.take_open_batches().is_empty());
    assert_eq!(file.read(&mut reader), [1, 2]);
}

#[test]
fn a_record_that_goes_to_another_partition_leaves_its_numbers_behind() {
    let mut file = File::new(2);
    file.stamp(0, 1, 0);
    let position = file.positions[0];
    file.owner().assign(position, 5);
    let mut reader = file.adopt();
    assert!(reader.take_open_batches().is_empty());
    let again = reader.read().unwrap().unwrap();
    assert_eq!((again.record.payload.unwrap(), again.partition), (&b"0"[..], 5));
}

#[test]
fn a_writer_that_goes_on_while_a_driver_starts_over_does_not_disturb_the_count() {
    let scratch = Scratch::new();
    let queue = Queue::create(scratch.dir(), OWNER, "1", 8 << 20, 0).unwrap();
    let mut writer = Writer::new(&queue, u64::MAX, 1 << 20);
    let topic = writer.topic("t").unwrap();
    push(&mut writer, topic, 0, None, b"first").unwrap();
    std::thread::scope(|scope| {
        let going_on = scope.spawn(|| while push(&mut writer, topic, 0, None, b"next").is_ok() {});
        while !going_on.is_finished() {
            let mut reader = Reader::new(&queue);
            reader.take_open_batches();
            assert_eq!(reader.done_count(), 0, "nothing is done");
        }
    });
}

#[test]
fn release_keeps_open_batches_until_they_are_done_whatever_lies_around_them() {
    let mut file = File::new(5);
    file.stamp(1, 4, 0);
    let mut reader = file.adopt();
    let open = reader.take_open_batches();
    reader.release();
    assert_eq!(reader.head(), file.positions[0], "nothing was read yet");
    assert_eq!(file.read(&mut reader), [0, 4]);
    reader.done(file.positions[0]);
    reader.done(file.positions[4]);
    reader.release();
    assert_eq!(reader.head(), file.positions[1]);
    for position in open[0].positions.iter().rev() {
        assert!(reader.get(*position).is_ok());
        reader.done(*position);
    }
    reader.release();
    assert_eq!((reader.head(), file.queue.as_ref().unwrap().waiting()), (reader.tail(), 0));
}

#[test]
fn an_adopter_that_dies_leaves_the_same_batches_to_the_next() {
    let mut file = File::new(4);
    file.stamp(0, 2, 0);
    file.stamp(2, 4, 2);
    for _ in 0..3 {
        let mut reader = file.adopt();
        let open = reader.take_open_batches();
        assert_eq!(file.indices(&open), [vec![0, 1], vec![2, 3]]);
        reader.done(file.positions[0]);
        reader.release();
    }
}

#[test]
fn damage_in_the_middle_costs_the_batches_behind_it_and_that_across_it() {
    let mut file = File::new(6);
    file.stamp(0, 2, 0);
    file.stamp(2, 4, 2);
    file.stamp(4, 6, 4);
    let broken = file.positions[3];
    let queue = file.queue.as_ref().unwrap();
    // SAFETY: the slot lies inside the data area; nobody reads it at this moment.
    unsafe { queue.map().data().add(broken as usize).cast::<u32>().write(12) };
    let mut reader = file.adopt();
    assert_eq!(file.indices(&reader.take_open_batches()), [vec![0, 1]]);
    let read = reader.read().unwrap().unwrap().record.payload.unwrap().to_vec();
    assert_eq!(read, b"2");
    assert_eq!(reader.read().unwrap_err().position, broken);
    reader.abandon_rest();
    for index in [0, 1, 2] {
        reader.done(file.positions[index]);
    }
    reader.release();
    assert_eq!((reader.head(), file.queue.as_ref().unwrap().waiting()), (reader.tail(), 0));
}

#[test]
fn numbers_that_cannot_be_are_no_stamp() {
    for (partition, hostile) in [
        (0, ProducerStamp { producer_id: -2, ..STAMP }),
        (0, ProducerStamp { epoch: -1, ..STAMP }),
        (0, ProducerStamp { base_sequence: -1, ..STAMP }),
        (u32::MAX, STAMP),
    ] {
        let mut file = File::new(1);
        file.stamp_these(&[0], partition, hostile);
        let mut reader = file.adopt();
        assert!(reader.take_open_batches().is_empty(), "{hostile:?}");
        assert_eq!(file.read(&mut reader), [0]);
    }
}

#[test]
fn a_repeated_batch_keeps_its_entry_and_takes_no_room() {
    let mut file = File::new(3);
    file.stamp(0, 3, 5);
    let before = file.log().to_vec();
    for _ in 0..1_000 {
        file.stamp(0, 3, 5);
    }
    assert!(file.log() == before);
}

#[test]
fn the_log_grows_with_what_is_in_flight_and_shrinks_when_nothing_is() {
    let scratch = Scratch::new();
    let queue = scratch.queue_of(4 << 20);
    let mut writer = Writer::new(&queue, u64::MAX, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let first = layout::FIRST_LOG_LEN as u64;
    for _ in 0..3 {
        // Batches of one record, so that each takes a block: twice as many as there are at first.
        let mut positions = Vec::new();
        for sequence in 0..2 * layout::FIRST_LOG_LEN as i32 / 64 {
            push(&mut writer, topic, 0, None, b"").unwrap();
            let position = reader.read().unwrap().unwrap().position;
            let stamp = ProducerStamp { base_sequence: sequence, ..STAMP };
            reader.stamp(0, stamp, false, [position]).unwrap();
            positions.push(position);
        }
        assert!(queue.map().cursors().log_len() >= 2 * first);
        positions.into_iter().for_each(|position| reader.done(position));
        for _ in 0..200 {
            reader.release();
        }
        assert_eq!(queue.map().cursors().log_len(), first);
    }
}

#[test]
fn a_log_that_is_full_says_so_and_has_room_again_once_batches_are_done() {
    let scratch = Scratch::new();
    let queue = scratch.queue();
    let mut writer = Writer::new(&queue, u64::MAX, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let mut stamped = Vec::new();
    let full = loop {
        push(&mut writer, topic, 0, None, b"").unwrap();
        let position = reader.read().unwrap().unwrap().position;
        let stamp = ProducerStamp { base_sequence: stamped.len() as i32, ..STAMP };
        if let Err(full) = reader.stamp(0, stamp, false, [position]) {
            break (full, stamp, position);
        }
        stamped.push(position);
    };
    let (error, stamp, position) = full;
    assert_eq!((error, stamped.len()), (NoRoom, layout::MIN_LOG_LEN as usize / 64));
    reader.done(stamped[7]);
    reader.stamp(0, stamp, false, [position]).unwrap();
    drop((writer, reader, queue));
    let queue = recovery::adopt(scratch.dir(), NAME, OWNER).unwrap();
    let open = Reader::new(&queue).take_open_batches();
    assert_eq!(open.len(), stamped.len(), "all but the one that is done, and the last");
    assert!(open.iter().all(|batch| batch.positions != [stamped[7]]));
}

/// What happens to records on their way.
#[derive(Debug, Clone)]
enum Event {
    /// So many from here on, which are not done, are sent together; in this order if there are few.
    Send {
        from: usize,
        count: usize,
        step: usize,
    },
    /// The batch of the record is sent again.
    Repeat(usize),
    Unstamp(usize),
    Done(usize),
    Release,
    /// The driver starts over.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let record = || 0..RECORDS;
    prop_oneof![
        6 => (record(), 1..6usize, 1..8usize)
            .prop_map(|(from, count, step)| Event::Send { from, count, step }),
        2 => record().prop_map(Event::Repeat),
        2 => record().prop_map(Event::Unstamp),
        6 => record().prop_map(Event::Done),
        2 => Just(Event::Release),
        1 => Just(Event::Restart),
    ]
}

const RECORDS: usize = 40;

/// The records, each with its stamp, as if that stood in its slot.
#[derive(Default)]
struct Model {
    stamps: BTreeMap<usize, Stamp>,
    done: BTreeSet<usize>,
    batches: Vec<(Vec<usize>, ProducerStamp)>,
}

impl Model {
    fn open(&self, positions: &[u64]) -> Vec<OpenBatch> {
        stamps::open_batches(self.stamps.iter().map(|(index, stamp)| Stamped {
            position: positions[*index],
            topic: 0,
            stamp: *stamp,
            done: self.done.contains(index),
        }))
    }

    fn stamp(&mut self, indices: &[usize], stamp: ProducerStamp) {
        for (at, index) in indices.iter().enumerate() {
            self.stamps.insert(*index, Stamp::of_record(stamp, 3, at, indices.len()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]
    #[test]
    fn any_stamps_and_marks_give_each_record_out_once(
        events in proptest::collection::vec(event(), 0..60),
    ) {
        let mut file = File::new(RECORDS);
        let mut model = Model::default();
        let mut sequence = 0;
        for event in events {
            match event {
                Event::Send { from, count, step } => {
                    // Each once, and in any order.
                    let mut indices: Vec<usize> = Vec::new();
                    for at in 0..count {
                        let index = (from + at * step) % RECORDS;
                        if !model.done.contains(&index) && !indices.contains(&index) {
                            indices.push(index);
                        }
                    }
                    if indices.is_empty() {
                        continue;
                    }
                    let stamp = ProducerStamp { base_sequence: sequence, ..STAMP };
                    sequence += indices.len() as i32;
                    file.stamp_these(&indices, 3, stamp);
                    model.stamp(&indices, stamp);
                    model.batches.push((indices, stamp));
                }
                Event::Repeat(index) => {
                    // As it is on record.
                    let open = model.open(&file.positions);
                    let with = open.iter().find(|batch| batch.positions.contains(&file.positions[index]));
                    let Some(batch) = with else { continue };
                    let stamp = batch.stamp;
                    let (indices, _) =
                        model.batches.iter().rfind(|(_, known)| *known == stamp).unwrap().clone();
                    file.stamp_these(&indices, 3, stamp);
                }
                Event::Unstamp(index) => {
                    let position = file.positions[index];
                    file.owner().unstamp(position);
                    model.stamps.remove(&index);
                }
                Event::Done(index) => {
                    file.done(&[index]);
                    model.done.insert(index);
                }
                // All marks of a batch are made before space is given back.
                Event::Release => {
                    let open = model.open(&file.positions);
                    let is_open = |index: &usize| {
                        let position = file.positions[*index];
                        open.iter().any(|batch| batch.positions.contains(&position))
                    };
                    if !model.done.iter().any(is_open) {
                        file.owner().release();
                    }
                }
                Event::Restart => {
                    let open = model.open(&file.positions);
                    let mut reader = file.adopt();
                    let found = reader.take_open_batches();
                    prop_assert_eq!(&found, &open);
                    let mut given: Vec<usize> = file.indices(&found).concat();
                    for index in &given {
                        model.done.remove(index);
                    }
                    given.extend(file.read(&mut reader));
                    given.sort_unstable();
                    let expected: Vec<usize> =
                        (0..RECORDS).filter(|index| !model.done.contains(index)).collect();
                    prop_assert_eq!(given, expected, "each that is not done, once");
                    // What was not whole is forgotten.
                    let in_open = |index: &usize| {
                        found.iter().any(|batch| batch.positions.contains(&file.positions[*index]))
                    };
                    model.stamps.retain(|index, _| in_open(index));
                    file.reader = Some(reader);
                }
            }
        }
        let open = model.open(&file.positions);
        let mut reader = file.adopt();
        prop_assert_eq!(reader.take_open_batches(), open);
        file.read(&mut reader);
        reader.release();
        for index in 0..RECORDS {
            reader.done(file.positions[index]);
        }
        reader.release();
        prop_assert_eq!((reader.head(), file.queue.as_ref().unwrap().waiting()), (reader.tail(), 0));
    }
}
