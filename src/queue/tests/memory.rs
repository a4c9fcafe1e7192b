//! Memory follows what waits: it is there before anybody touches it, and no more of it than is needed.

use super::*;
use crate::queue::provisioner::Provision;
use std::os::unix::fs::MetadataExt;

const MIB: u64 = 1 << 20;
const LOTS: u64 = 1_000_000;
/// Longer than any window of the provisioner's, in milliseconds.
const LATER: u64 = 60_000;

/// A queue with a driver that does nothing but to provide memory and to read.
struct Stage {
    queue: Queue,
    writer: Writer,
    reader: Reader,
    provisioner: Provisioner,
    topic: u16,
    now_ms: u64,
    waiting: Vec<u64>,
    _scratch: Scratch,
}

impl Stage {
    fn new(data_len: u64) -> Stage {
        let scratch = Scratch::new();
        let dir = Arc::new(QueueDir::open(scratch.0.path()).unwrap());
        let queue = Queue::create(dir, OWNER, "1", data_len, 0).unwrap();
        let mut provisioner = Provisioner::new(&queue);
        provisioner.turn(0);
        let mut writer = Writer::new(&queue, LOTS, 1 << 20);
        let topic = writer.topic("t").unwrap();
        let reader = Reader::new(&queue);
        let (now_ms, waiting) = (0, Vec::new());
        Stage { queue, writer, reader, provisioner, topic, now_ms, waiting, _scratch: scratch }
    }

    fn bytes(&self) -> u64 {
        std::fs::metadata(self.queue.path()).unwrap().blocks() * 512
    }

    /// Logs a record of `len` bytes, and lets the driver run when it is asked for.
    fn log(&mut self, len: usize) {
        if push(&mut self.writer, self.topic, 0, None, &vec![1; len]).unwrap() {
            self.provisioner.turn(self.now_ms);
        }
        self.waiting.push(self.reader.read().unwrap().unwrap().position);
    }

    fn done(&mut self) {
        self.waiting.drain(..).for_each(|position| self.reader.done(position));
        self.reader.release();
    }

    /// A driver that has nothing to do but this.
    fn idle(&mut self, ms: u64) -> (u32, u32) {
        let (mut allocated, mut given_back) = (0, 0);
        for _ in 0..ms / 500 {
            self.now_ms += 500;
            let provision = self.provisioner.turn(self.now_ms);
            allocated += provision.allocated;
            given_back += provision.given_back;
        }
        (allocated, given_back)
    }
}

#[test]
fn an_idle_queue_takes_less_than_a_mebibyte_and_keeps_to_it_under_a_light_load() {
    let mut stage = Stage::new(64 * MIB);
    assert!(stage.bytes() <= MIB / 2, "{}", stage.bytes());
    for _ in 0..20_000 {
        stage.log(400);
        if stage.waiting.len() == 50 {
            stage.done();
        }
    }
    stage.done();
    assert!(stage.bytes() <= MIB, "{}", stage.bytes());
    assert_eq!(stage.writer.allocated_by_writer(), 0);
}

#[test]
fn memory_grows_with_what_waits_and_is_given_back_after_a_peak() {
    let mut stage = Stage::new(64 * MIB);
    for _ in 0..10 {
        for _ in 0..40_000 {
            stage.log(400);
        }
        // 18 MB wait, and an eighth or four segments more are ready at most.
        assert!(stage.bytes() > 17 * MIB && stage.bytes() < 20 * MIB, "{}", stage.bytes());
        stage.done();
        stage.idle(LATER);
        assert!(stage.bytes() <= MIB, "{}", stage.bytes());
    }
    assert_eq!(stage.writer.allocated_by_writer(), 0, "the driver was quick enough");
}

#[test]
fn a_load_that_swings_allocates_nothing_and_gives_nothing_back() {
    let mut stage = Stage::new(64 * MIB);
    let swing = |stage: &mut Stage| {
        (0..10_000).for_each(|_| stage.log(400));
        let high = stage.idle(5_000);
        stage.done();
        let low = stage.idle(4_000);
        (high.0 + low.0, high.1 + low.1)
    };
    swing(&mut stage);
    swing(&mut stage);
    let mut allocated = 0;
    for round in 0..20 {
        let (more, given_back) = swing(&mut stage);
        assert_eq!(given_back, 0, "{round}");
        allocated += more;
    }
    // Where it begins in a segment, and so how many it reaches into, is not the same each time.
    assert!(allocated <= 2, "{allocated}");
}

#[test]
fn where_a_burst_outruns_the_driver_the_writer_gets_memory_itself_and_says_how_often() {
    let mut stage = Stage::new(8 * MIB);
    let segment_len = stage.queue.map().division().segment_len();
    let mut logged = 0;
    while push(&mut stage.writer, stage.topic, 0, None, &[7; 1_000]).is_ok() {
        logged += 1;
    }
    assert_eq!(logged, 8 * MIB / 1_056);
    let first = 256 * 1024 / segment_len;
    assert_eq!(stage.writer.allocated_by_writer(), 8 * MIB / segment_len - first);
}

#[test]
fn the_driver_is_asked_for_once_a_segment_and_not_at_all_while_enough_is_ready() {
    let mut stage = Stage::new(64 * MIB);
    let mut asked = 0;
    for _ in 0..6_000 {
        let wakes = push(&mut stage.writer, stage.topic, 0, None, &[7; 400]).unwrap();
        asked += u32::from(wakes);
        if wakes {
            stage.provisioner.turn(0);
        }
    }
    // 2.6 MB in segments of 256 KiB.
    assert!((1..=11).contains(&asked), "{asked}");
    while let Some(slot) = stage.reader.read().unwrap() {
        stage.waiting.push(slot.position);
    }
    stage.done();
    for _ in 0..6_000 {
        stage.now_ms += 1;
        assert_eq!(push(&mut stage.writer, stage.topic, 0, None, &[7; 400]), Ok(false));
        let position = stage.reader.read().unwrap().unwrap().position;
        stage.reader.done(position);
        stage.reader.release();
    }
}

#[test]
fn a_turn_without_need_looks_at_nothing() {
    let mut stage = Stage::new(8 * MIB);
    stage.log(100);
    stage.provisioner.turn(1);
    for _ in 0..3 {
        assert_eq!(stage.provisioner.turn(1), Provision::default());
    }
}

#[test]
fn bits_of_done_records_do_not_come_back_with_memory_that_was_given_back() {
    let mut stage = Stage::new(64 * MIB);
    for round in 0..4 {
        for _ in 0..20_000 {
            stage.log(400);
        }
        stage.done();
        if round % 2 == 0 {
            stage.idle(LATER);
        }
    }
    (0..20_000).for_each(|_| stage.log(400));
    let waiting = std::mem::take(&mut stage.waiting);
    let Stage { queue, _scratch, .. } = stage;
    drop(queue);
    let dir = Arc::new(QueueDir::open(_scratch.0.path()).unwrap());
    let queue = recovery::adopt(dir, NAME, OWNER).unwrap();
    let found = drain(&mut Reader::new(&queue)).unwrap();
    assert_eq!(found.into_iter().map(|taken| taken.0).collect::<Vec<_>>(), waiting);
}

#[test]
fn an_orphan_with_holes_is_filled_before_it_is_read() {
    let scratch = Scratch::new();
    let queue = scratch.queue_of(8 * MIB);
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let topic = writer.topic("t").unwrap();
    for _ in 0..1_000 {
        push(&mut writer, topic, 0, None, &[0; 400]).unwrap();
    }
    let path = queue.path();
    drop((writer, queue));
    // As a copy has it that makes holes of zeros.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (index, page) in
        bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|b| *b != 0))
    {
        std::os::unix::fs::FileExt::write_all_at(&file, page, index as u64 * 4096).unwrap();
    }
    let before = file.metadata().unwrap().blocks();
    let queue = recovery::adopt(scratch.dir(), NAME, OWNER).unwrap();
    assert!(file.metadata().unwrap().blocks() > before);
    assert_eq!(drain(&mut Reader::new(&queue)).unwrap().len(), 1_000);
}

/// A file system in memory that is soon full.
struct SmallMemory(tempfile::TempDir);

impl SmallMemory {
    /// `None` where we may not mount one.
    fn new() -> Option<SmallMemory> {
        let below = SmallMemory(tempfile::tempdir().unwrap());
        below.mount(0, c"size=1m").then_some(below)
    }

    fn mount(&self, flags: libc::c_ulong, options: &std::ffi::CStr) -> bool {
        let path = std::ffi::CString::new(self.0.path().to_str().unwrap()).unwrap();
        let kind = c"tmpfs".as_ptr();
        // SAFETY: all strings end with a zero and outlive the call.
        unsafe { libc::mount(kind, path.as_ptr(), kind, flags, options.as_ptr().cast()) == 0 }
    }

    fn queue(&self, unique: &str) -> Result<Queue, QueueError> {
        let dir = Arc::new(QueueDir::open(self.0.path()).unwrap());
        Queue::create(dir, OWNER, unique, 8 * MIB, 0)
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        let path = std::ffi::CString::new(self.0.path().to_str().unwrap()).unwrap();
        // SAFETY: the string ends with a zero and outlives the call.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_file_system_is_a_full_queue_and_goes_on_when_there_is_memory_again() {
    let Some(memory) = SmallMemory::new() else {
        eprintln!("only root may mount a small file system: this is not tested");
        return;
    };
    let queue = memory.queue("1").unwrap();
    let mut provisioner = Provisioner::new(&queue);
    provisioner.turn(0);
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let mut reader = Reader::new(&queue);
    let topic = writer.topic("t").unwrap();
    let fill = |writer: &mut Writer| {
        let mut logged = 0;
        while push(writer, topic, 0, None, &[7; 1_000]).is_ok() {
            logged += 1;
        }
        assert_eq!(push(writer, topic, 0, None, &[7; 1_000]), Err(PushError::NoSpace));
        logged
    };
    let first = fill(&mut writer);
    assert!((300..1_000).contains(&first), "{first}");
    assert!(provisioner.turn(1).is_starved);
    // Nobody takes a place or gives one back, and once there is memory it is asked for after a short pause.
    assert!(provisioner.turn(150).is_starved, "and asked for");
    assert!(memory.mount(libc::MS_REMOUNT, c"size=2m"));
    assert!(provisioner.turn(300).allocated > 0);
    fill(&mut writer);
    provisioner.turn(450);
    // Nothing else has room there any more, not even a queue.
    assert!(matches!(memory.queue("2").err(), Some(QueueError::NoRoom { .. })));
    let mut taken = drain(&mut reader).unwrap();
    assert!(taken.iter().all(|slot| slot.3 == [7; 1_000]));
    // What is done leaves room, as in any queue.
    taken.drain(..first / 2).for_each(|slot| reader.done(slot.0));
    reader.release();
    assert!(fill(&mut writer) >= 100);
    assert!(memory.mount(libc::MS_REMOUNT, c"size=4m"));
    assert_eq!(fill(&mut writer), 0, "the driver has to ask for it");
    assert!(provisioner.turn(1_000).allocated > 0);
    assert!(fill(&mut writer) > 1_000);
    drain(&mut reader).unwrap();
}

#[test]
fn a_topic_table_that_finds_no_memory_is_refused_and_goes_on_later() {
    let Some(memory) = SmallMemory::new() else { return };
    let queue = memory.queue("1").unwrap();
    let mut writer = Writer::new(&queue, LOTS, 1 << 20);
    let first = writer.topic("t").unwrap();
    while push(&mut writer, first, 0, None, &[7; 1_000]).is_ok() {}
    std::fs::write(memory.0.path().join("rest"), vec![0; 1 << 20]).unwrap_err();
    let mut count = 1;
    let full = loop {
        match writer.topic(&format!("topic-{count}")) {
            Ok(id) => assert_eq!(id, count),
            Err(full) => break full,
        }
        count += 1;
    };
    assert_eq!(full, TopicError::NoSpace);
    assert!(memory.mount(libc::MS_REMOUNT, c"size=4m"));
    assert_eq!(writer.topic(&format!("topic-{count}")), Ok(count));
}
