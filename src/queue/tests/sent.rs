//! Batches on record: what the next reader of a file finds of them, whole or not.

use super::*;
use crate::protocol::record_batch::ProducerStamp;
use crate::queue::stamps::{OpenBatch, Stamp};
use proptest::prelude::*;

const ID: i64 = 7;

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
        let queue = scratch.queue("q");
        let mut writer = queue.writer(1000, 1 << 20);
        let mut reader = queue.reader();
        let topic = writer.topic("t").unwrap();
        for number in 0..count {
            writer.push(topic, 0, None, number.to_string().as_bytes()).unwrap();
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
        for index in from..to {
            let batch_records = if index == from { (to - from) as u32 } else { 0 };
            self.stamp_one(index, sequence + (index - from) as i32, batch_records);
        }
    }

    fn stamp_one(&mut self, index: usize, sequence: i32, batch_records: u32) {
        let stamp = Stamp { producer_id: ID, epoch: 0, sequence, batch_records, partition: 3 };
        let position = self.positions[index];
        self.owner().stamp(position, &stamp);
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
        let queue = Queue::adopt(self.scratch.dir(), "q.queue").unwrap();
        let reader = queue.reader();
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
    let sent = ProducerStamp { producer_id: ID, epoch: 0, base_sequence: 40 };
    assert_eq!((topic, partition, stamp), (0, 3, sent));
    assert_eq!(reader.get(file.positions[4]).unwrap().record.payload.unwrap(), b"4");
    assert_eq!(file.read(&mut reader), [0, 3, 5]);
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
    for stamped in 1..4 {
        let mut file = File::new(5);
        file.stamp(0, 1, 9);
        // Three of the four records that it was to have got their stamps, or fewer.
        for index in 0..stamped {
            file.stamp_one(1 + index, 10 + index as i32, if index == 0 { 4 } else { 0 });
        }
        let mut reader = file.adopt();
        assert_eq!(file.indices(&reader.take_open_batches()), [vec![0]], "{stamped}");
        assert_eq!(file.read(&mut reader), [1, 2, 3, 4]);
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
    let queue = Queue::create(scratch.dir(), "q", 8 << 20, 0).unwrap();
    let mut writer = queue.writer(u64::MAX, 1 << 20);
    let topic = writer.topic("t").unwrap();
    writer.push(topic, 0, None, b"first").unwrap();
    std::thread::scope(|scope| {
        let going_on = scope.spawn(|| while writer.push(topic, 0, None, b"next").is_ok() {});
        while !going_on.is_finished() {
            let mut reader = queue.reader();
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
    unsafe { queue.map.data().add(broken as usize).cast::<u32>().write(12) };
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
    let whole = Stamp { producer_id: ID, epoch: 0, sequence: 0, batch_records: 1, partition: 0 };
    for hostile in [
        Stamp { producer_id: -2, ..whole },
        Stamp { epoch: -1, ..whole },
        Stamp { sequence: -1, ..whole },
        Stamp { partition: u32::MAX, ..whole },
        Stamp { batch_records: 0, ..whole },
        Stamp { batch_records: u32::MAX, ..whole },
    ] {
        let mut file = File::new(1);
        let position = file.positions[0];
        file.owner().stamp(position, &hostile);
        let mut reader = file.adopt();
        assert!(reader.take_open_batches().is_empty(), "{hostile:?}");
        assert_eq!(file.read(&mut reader), [0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]
    #[test]
    fn any_stamps_and_marks_give_each_record_out_once(
        stamps in proptest::collection::vec(
            (0..12usize, -1..3i64, 0..2i16, prop_oneof![-1..12i32, any::<i32>()],
             prop_oneof![0..5u32, any::<u32>()], 0..2u32),
            0..30,
        ),
        done in proptest::collection::vec(0..12usize, 0..12),
    ) {
        let mut file = File::new(12);
        for (index, producer_id, epoch, sequence, batch_records, partition) in stamps {
            let stamp = Stamp { producer_id, epoch, sequence, batch_records, partition };
            let position = file.positions[index];
            file.owner().stamp(position, &stamp);
        }
        file.done(&done);
        let mut reader = file.adopt();
        let open = file.indices(&reader.take_open_batches());
        let mut out: Vec<usize> = open.iter().flatten().copied().collect();
        prop_assert!(open.iter().all(|batch| batch.iter().any(|index| !done.contains(index))));
        out.extend(file.read(&mut reader));
        let given = out.len();
        out.sort();
        out.dedup();
        prop_assert_eq!(out.len(), given, "none twice");
        prop_assert!((0..12).all(|index| done.contains(&index) || out.contains(&index)));
        reader.release();
        prop_assert_eq!(file.queue.as_ref().unwrap().waiting(), given as u64);
        for index in out {
            reader.done(file.positions[index]);
        }
        reader.release();
        prop_assert_eq!((reader.head(), file.queue.as_ref().unwrap().waiting()), (reader.tail(), 0));
    }
}
