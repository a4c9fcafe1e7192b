//! Random actions on real backup files and on a plain model of them, in lock-step: two workers write, one replays,
//! scripts append lines of their own, and now and then all of them die.

use super::*;
use proptest::collection::vec;
use std::collections::VecDeque;

const TOPICS: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone)]
enum Action {
    /// A worker writes so many messages of a topic.
    Append { worker: usize, topic: usize, count: u64 },
    /// A script writes a line.
    Script { topic: usize },
    /// Lines of a topic are read, to be sent.
    Read { topic: usize },
    /// Of those that were read the first so many are done with, the others fail. Behind them every third was sent all
    /// the same, and every `refused`th is one that Kafka never takes.
    Commit { done: usize, refused: usize },
    /// All processes are killed; others begin with what is on disk.
    Die,
}

fn action() -> impl Strategy<Value = Action> {
    let count = prop_oneof![9 => 1..40u64, 1 => 4_000..5_000u64];
    prop_oneof![
        6 => (0..2usize, 0..2usize, count)
            .prop_map(|(worker, topic, count)| Action::Append { worker, topic, count }),
        2 => (0..2usize).prop_map(|topic| Action::Script { topic }),
        6 => (0..2usize).prop_map(|topic| Action::Read { topic }),
        6 => (prop_oneof![2 => Just(usize::MAX), 1 => 0..60usize], 1..50usize)
            .prop_map(|(done, refused)| Action::Commit { done, refused }),
        1 => Just(Action::Die),
    ]
}

/// What a topic's files hold, as one would write it down without files.
#[derive(Default)]
struct Topic {
    /// Messages that are not known to be done with, in order.
    waiting: VecDeque<u64>,
    /// Done with, as whoever replays remembers.
    settled: HashMap<u64, Place>,
    /// Done with when somebody died who remembered it: they come again or not.
    forgotten: HashSet<u64>,
    scripts: Vec<u64>,
    refused: Vec<u64>,
}

impl Topic {
    /// What was read must be the next messages that wait, without a gap.
    fn check(&self, read: &[u64]) {
        let mut read = read.iter().peekable();
        for number in &self.waiting {
            if read.peek().is_none() {
                return;
            }
            if read.peek() == Some(&number) {
                assert!(!self.settled.contains_key(number), "{number} is sent again");
                read.next();
            } else {
                let gone = self.settled.contains_key(number) || self.forgotten.contains(number);
                assert!(gone, "{number} is left out before {:?}", read.peek());
            }
        }
        assert_eq!(read.peek(), None);
    }

    /// The file says that everything before `open` is done with.
    fn done_before(&mut self, open: u64) {
        while self.waiting.front().is_some_and(|number| *number < open) {
            let number = self.waiting.pop_front().unwrap_or_default();
            self.settled.remove(&number);
            self.forgotten.remove(&number);
        }
    }

    fn is_done(&self) -> bool {
        let gone = |number| self.settled.contains_key(number) || self.forgotten.contains(number);
        self.waiting.iter().all(gone)
    }
}

/// All processes, and what they know.
struct World {
    scratch: Scratch,
    limit: u64,
    workers: [BackupDir; 2],
    backlog: Backlog,
    chunk: Option<(usize, Chunk, Vec<u64>)>,
    topics: [Topic; 2],
    /// Messages and lines have numbers, which rise.
    next: u64,
}

impl World {
    fn new(limit: u64) -> World {
        let scratch = Scratch::new("model");
        let workers = [scratch.dir(limit), scratch.dir(limit)];
        let backlog = scratch.backlog(Which::Own);
        World { scratch, limit, workers, backlog, chunk: None, topics: Default::default(), next: 0 }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Append { worker, topic, count } => {
                let numbers = self.next..self.next + count;
                self.next = numbers.end;
                self.workers[worker]
                    .append(TOPICS[topic], &lines(TOPICS[topic], numbers.clone()))
                    .unwrap();
                self.topics[topic].waiting.extend(numbers);
            }
            Action::Script { topic } => {
                let line = format!("2016-03-01 10:20:30\t{}\tk\t{}\n", TOPICS[topic], self.next);
                self.workers[0].append_others(TOPICS[topic], line.as_bytes()).unwrap();
                self.topics[topic].scripts.push(self.next);
                self.next += 1;
            }
            Action::Read { topic } if self.chunk.is_none() => self.read(topic),
            Action::Commit { done, refused } => self.commit(done, refused),
            Action::Read { .. } => {}
            Action::Die => self.die(),
        }
    }

    fn read(&mut self, number: usize) {
        let topic = &self.topics[number];
        let settled = topic.settled.values().copied().collect();
        match self.backlog.read(TOPICS[number], &settled).unwrap() {
            Some(chunk) => {
                let read: Vec<u64> =
                    payloads(&chunk).iter().map(|payload| payload.parse().unwrap()).collect();
                topic.check(&read);
                self.chunk = Some((number, chunk, read));
            }
            None => assert!(topic.is_done(), "{:?} is not found", topic.waiting.front()),
        }
    }

    fn commit(&mut self, done: usize, refused: usize) {
        let Some((number, chunk, read)) = self.chunk.take() else { return };
        let topic = &mut self.topics[number];
        let open = (done < read.len()).then_some(done);
        let is_open = |index: usize| open.is_some_and(|open| index >= open);
        let is_refused = |index: usize| index % refused == refused - 1 && Some(index) != open;
        let is_sent =
            |index: usize| !is_open(index) || index.is_multiple_of(3) && Some(index) != open;
        let refused: Vec<usize> = (0..read.len()).filter(|index| is_refused(*index)).collect();
        self.backlog.commit(&chunk, open, &refused).unwrap();
        topic.refused.extend(refused.iter().map(|index| read[*index]));
        for index in (0..read.len()).filter(|index| is_refused(*index) || is_sent(*index)) {
            topic.settled.insert(read[index], chunk.place(index).unwrap());
        }
        match open {
            Some(open) => topic.done_before(read[open]),
            None => read.last().into_iter().for_each(|last| topic.done_before(last + 1)),
        }
    }

    fn die(&mut self) {
        self.chunk = None;
        self.workers = [self.scratch.dir(self.limit), self.scratch.dir(self.limit)];
        // One at a time has the lock.
        self.backlog.unlock();
        self.backlog = self.scratch.backlog(Which::Own);
        for topic in &mut self.topics {
            topic.forgotten.extend(topic.settled.drain().map(|(number, _)| number));
        }
    }

    /// All is sent, and what remains is what scripts wrote and what Kafka refused.
    fn end(mut self) {
        self.die();
        for number in [0, 1] {
            while let Some((_, chunk, read)) = {
                self.read(number);
                self.chunk.take()
            } {
                self.backlog.commit(&chunk, None, &[]).unwrap();
                read.last().into_iter().for_each(|last| self.topics[number].done_before(last + 1));
            }
        }
        self.backlog.unlock();
        let mut all = self.scratch.backlog(Which::All);
        for (name, topic) in TOPICS.iter().zip(&self.topics) {
            assert!(topic.is_done());
            let scripts: Vec<String> = topic.scripts.iter().map(u64::to_string).collect();
            assert_eq!(drain(&mut all, name), scripts);
            let bad = self.scratch.text(&format!("{name}~bad"));
            let bad: Vec<u64> = bad
                .lines()
                .map(|line| line.rsplit('\t').next().unwrap().parse().unwrap())
                .collect();
            assert_eq!(bad, topic.refused);
        }
        assert!(self.scratch.names().iter().all(|name| name.ends_with("~bad")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_backup_does_what_the_model_does(
        limit in prop_oneof![Just(2_000u64), Just(1 << 20)],
        actions in vec(action(), 1..60),
    ) {
        let mut world = World::new(limit);
        for action in &actions {
            world.act(action);
        }
        world.end();
    }
}
