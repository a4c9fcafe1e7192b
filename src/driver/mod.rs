//! The driver: one thread per worker that owns everything between the queue and the sockets.
//!
//! Each turn of its loop does a bounded amount of each kind of work, in this order: records in, network
//! events in, timers, fates out, requests out. Then it sleeps until a record, an event or a deadline comes.
//! A fault in it is caught ([`thread`]); what was not done is read from the queue again.

mod asking;
mod disk;
mod encode;
pub mod events;
mod handover;
mod intake;
pub mod lines;
mod network;
mod old_brokers;
mod overflow;
mod replay;
mod reports;
mod rest;
mod sources;
mod spill;
pub mod thread;

pub use events::Events;
pub use lines::{Level, Lines};
pub use thread::{Driver, StartError};

use crate::config::Config;
use crate::net::frame_pool::FramePool;
use crate::net::{Authenticator, Event};
use crate::producer::{ConnId, Fate, Mark, Outcome, Producer, Rules, Time};
use crate::queue::{Provisioner, Queue};
use crate::stats::{self, Stats};
use asking::Asking;
use disk::Disk;
use handover::{Handover, Refused};
use network::Connection;
use old_brokers::OldBrokers;
use replay::Replay;
use rustix::fd::OwnedFd;
use sources::{Dirs, Sources};
use spill::{Backup, Spill};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Records taken from the queue in one turn.
const RECORDS_A_TURN: usize = 4096;
/// Network events handled in one turn.
const EVENTS_A_TURN: usize = 256;
/// Longest sleep: how late a wish of the event loop's can be noticed if a wake-up were ever missed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What the event loop and the driver thread share, besides the queue.
pub struct Shared {
    /// Values for `kfk.stats()`.
    pub stats: Stats,
    /// Lines for `ngx.log`.
    pub lines: Lines,
    /// Work for Lua callbacks, and their answers.
    pub events: Events,
    /// Wakes the driver.
    pub wake: OwnedFd,
    /// Position up to which everything is to be sent without lingering.
    flush: AtomicU64,
    /// Set once when the worker begins to leave: nothing of others' is begun any more.
    leaving: AtomicBool,
    /// Set once to end the driver; from then on the deadline counts.
    stop: AtomicBool,
    /// When a stopping driver gives up, microseconds on its clock.
    stop_by: AtomicU64,
    /// Zero of that clock.
    start: Instant,
}

impl Shared {
    /// True while queues of dead workers and backup files are this worker's business.
    fn looks_after_others(&self) -> bool {
        !self.leaving.load(Ordering::Acquire) && !self.stop.load(Ordering::Acquire)
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_micros() as u64)
    }

    /// Wakes the driver thread. Never blocks: a full eventfd is a wake-up already.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// The state of one run of the driver.
struct Run<'a> {
    config: &'a Config,
    shared: &'a Shared,
    provisioner: Provisioner,
    dirs: &'a mut Dirs,
    instance: &'a str,
    sources: Sources,
    producer: Producer,
    /// When the queue was last seen empty: what is read next was written after that.
    drained_at: Time,
    connections: HashMap<ConnId, Connection>,
    frames: FramePool,
    large_answers: Arc<Semaphore>,
    authenticator: Option<Arc<Authenticator>>,
    old_brokers: OldBrokers,
    events_in: UnboundedSender<Event>,
    events: UnboundedReceiver<Event>,
    disk: &'a Disk,
    spill: Spill<'a>,
    handover: Handover,
    asking: Asking,
    replay: Replay,
    flushed: u64,
    /// How far the own queue was read before the last sleep, and when what came since is looked at anyway.
    seen: u64,
    look_at: Time,
}

impl<'a> Run<'a> {
    fn new(
        config: &'a Config,
        shared: &'a Shared,
        queue: &Arc<Queue>,
        dirs: &'a mut Dirs,
        instance: &'a str,
        disk: &'a Disk,
        backup: &'a mut Backup,
    ) -> Run<'a> {
        let (events_in, events) = mpsc::unbounded_channel();
        shared.events.forget_records();
        let now = shared.now();
        // Process id and time differ between workers; nothing secret hangs on it.
        let seed = u64::from(std::process::id()) << 32 ^ now.0 ^ wall_ms() as u64;
        let mut producer = Producer::new(Rules::from(config), seed);
        for topic in &config.topics {
            producer.topic(now, topic);
        }
        Run {
            config,
            shared,
            provisioner: Provisioner::new(queue),
            dirs,
            instance,
            sources: Sources::new(queue.clone()),
            producer,
            drained_at: now,
            connections: HashMap::new(),
            frames: FramePool::default(),
            large_answers: Arc::new(Semaphore::new(1)),
            authenticator: config.credentials().map(Authenticator::new).map(Arc::new),
            old_brokers: OldBrokers::new(config),
            events_in,
            events,
            disk,
            spill: Spill::new(backup),
            handover: Handover::default(),
            asking: Asking::default(),
            replay: Replay::new(config, shared),
            flushed: 0,
            seen: 0,
            look_at: now,
        }
    }

    /// Works until it is told to stop, and then until all is delivered or the time is up.
    async fn serve(&mut self) -> std::io::Result<()> {
        let shared = self.shared;
        // SAFETY: the descriptor belongs to Shared, which outlives this future, and is never replaced.
        let wake =
            unsafe { AsyncFd::register_with_interest(shared.wake.as_fd(), Interest::READABLE)? };
        loop {
            let more = self.turn();
            if self.is_over() {
                self.finish_replay();
                return Ok(());
            }
            let asleep = if more { None } else { self.fall_asleep() };
            let Some(pause) = asleep else {
                // Connections run in between.
                tokio::task::yield_now().await;
                continue;
            };
            tokio::select! {
                ready = wake.readable() => {
                    let mut ready = ready?;
                    let mut count = [0; 8];
                    // Empties the eventfd; when it was empty already nothing is lost.
                    let _ = rustix::io::read(shared.wake.as_fd(), &mut count);
                    ready.clear_ready();
                }
                Some(event) = self.events.recv() => self.handle_event(event),
                () = tokio::time::sleep(pause) => {}
            }
            self.sources.own().reader.disarm();
            stats::add(&self.shared.stats.wakeups, 1);
        }
    }

    /// One turn; true when there is more to do at once.
    fn turn(&mut self) -> bool {
        self.provisioner.turn(self.shared.now_ms());
        let more_records = self.take_records();
        let mut events = 0;
        while events < EVENTS_A_TURN
            && let Ok(event) = self.events.try_recv()
        {
            self.handle_event(event);
            events += 1;
        }
        let now = self.shared.now();
        // With nobody to ask, what waits for an answer goes on without one.
        let timeout = if self.callbacks_ended() {
            Duration::ZERO
        } else {
            Duration::from_millis(self.config.message_timeout_ms)
        };
        let lua = &self.shared.events;
        self.asking.turn(now, timeout, lua, &self.sources, &mut self.producer);
        self.take_wishes(now);
        self.replay(now);
        self.make_room(now);
        if self.producer.next_deadline().is_some_and(|at| at <= now) {
            self.producer.handle_timeout(now);
        }
        loop {
            let action = self.producer.poll(now);
            // What was acknowledged is marked done before more is sent, see the producer's contract.
            while let Some(outcome) = self.producer.poll_outcome() {
                self.settle(outcome);
            }
            while let Some((record, mark)) = self.producer.poll_mark() {
                match mark {
                    Mark::Partition(partition) => self.sources.assign(record, partition),
                    Mark::Unsent => self.sources.unstamp(record),
                }
            }
            let Some(action) = action else { break };
            self.act(now, action);
        }
        while let Some(notice) = self.producer.poll_notice() {
            self.tell(now, notice);
        }
        self.spill.turn(now, &mut self.sources, self.shared, self.disk);
        self.hand_over(now);
        self.sources.release(now, self.shared);
        self.publish_stats();
        more_records || events == EVENTS_A_TURN
    }

    /// True when a stopping driver has nothing left to wait for.
    fn is_over(&mut self) -> bool {
        if !self.shared.stop.load(Ordering::Acquire) {
            return false;
        }
        let reader = &self.sources.own().reader;
        let all_read = reader.position() == reader.tail();
        let all_done = all_read
            && self.producer.held_records() == 0
            && self.handover.is_empty()
            && self.spill.is_empty()
            && !self.shared.events.has_appends();
        all_done || self.shared.now().0 >= self.shared.stop_by.load(Ordering::Relaxed)
    }

    /// Flushes up to where the event loop asked for it, and when stopping all there is.
    fn take_wishes(&mut self, now: Time) {
        let reader = &self.sources.own().reader;
        let mut wanted = self.shared.flush.load(Ordering::Acquire);
        if self.shared.stop.load(Ordering::Acquire) {
            wanted = wanted.max(reader.tail());
        }
        if wanted > self.flushed && reader.position() >= wanted {
            self.flushed = wanted;
            self.producer.handle_flush(now);
        }
    }

    fn next_deadline(&self) -> Time {
        let timeout = Duration::from_millis(self.config.message_timeout_ms);
        let stopping = self.shared.stop.load(Ordering::Acquire);
        let others = self.shared.looks_after_others();
        let deadline = self
            .producer
            .next_deadline()
            .unwrap_or(Time::NEVER)
            .min(self.spill.retry_at(self.shared))
            .min(self.asking.expiry(timeout))
            .min(self.replay.deadline(!others))
            .min(if others { self.sources.look_at() } else { Time::NEVER });
        if stopping {
            deadline.min(Time(self.shared.stop_by.load(Ordering::Relaxed)))
        } else {
            deadline
        }
    }

    /// Tells the writer when to wake us, and returns how long to sleep. `None` when there is something to do already.
    ///
    /// A wake-up costs `log()` a system call. So while records wait, be it for their batch or for a broker, those that
    /// come after a look that found some are left alone for as long as they would linger, which is not over before
    /// the next look: one look finds many.
    fn fall_asleep(&mut self) -> Option<Duration> {
        let now = self.shared.now();
        let deadline = self.next_deadline();
        if deadline <= now {
            return None;
        }
        let linger = Duration::from_millis(self.config.queue_buffering_max_ms);
        let waits = self.producer.held_records() > 0 || !self.asking.is_empty();
        let reader = &self.sources.own().reader;
        let tail = reader.position();
        if tail != std::mem::replace(&mut self.seen, tail) {
            self.look_at = now + linger;
        }
        let until = deadline.min(now + LONGEST_SLEEP);
        let soon = deadline <= now + linger;
        let Some(read) = reader.read_count().filter(|_| waits && (soon || now < self.look_at))
        else {
            return reader.sleep_unless(tail + 1, u64::MAX).then(|| until.since(now));
        };
        // It is enough to look when a batch may be full, by count or by bytes, or when so much waits that the queue
        // might not hold more.
        let bytes = (self.config.batch_size as u64).min(reader.capacity() / 8);
        let room = (self.config.queue_buffering_max_messages / 8).max(1);
        let records = (self.producer.records_to_full_batch() as u64).min(room);
        let until = if soon { until } else { until.min(self.look_at) };
        reader.sleep_unless(tail + bytes, read + records).then(|| until.since(now))
    }

    fn settle(&mut self, outcome: Outcome) {
        // What is left are messages of the queues.
        let outcome = self.replay.take(outcome, &self.sources, self.shared);
        if outcome.records.is_empty() {
            return;
        }
        match outcome.fate {
            Fate::Delivered => {
                for record in &outcome.records {
                    self.sources.done(record.id);
                }
                stats::add(&self.shared.stats.succ_msg_cnt, outcome.records.len() as u64);
            }
            Fate::Failed { reason, in_doubt } => {
                if !in_doubt {
                    // Not in the log: whoever finds the file is not to take them for sent, and some for done.
                    for record in &outcome.records {
                        self.sources.unstamp(record.id);
                    }
                }
                let topic = self.producer.topic_name(outcome.topic).to_owned();
                let now = self.shared.now();
                self.replay.topic_failed(now, &topic);
                if self.config.failed_cb.0 && !self.callbacks_ended() {
                    self.handover.add(topic, outcome.records, reason, in_doubt);
                } else {
                    self.spill.add(now, topic, outcome.records, reason.to_string(), in_doubt);
                }
            }
        }
    }

    /// Exchanges failed messages and verdicts with the user's `failed_cb`.
    fn hand_over(&mut self, now: Time) {
        let (events, stats) = (&self.shared.events, &self.shared.stats);
        if self.handover.is_empty() {
            return;
        }
        let ended = self.callbacks_ended();
        let (sources, spill) = (&mut self.sources, &mut self.spill);
        let mut refuse = |refused: Refused| {
            let reason = refused.reason.to_string();
            spill.add(now, refused.topic, vec![refused.record], reason, refused.in_doubt);
        };
        let done = |id, in_doubt| {
            sources.done(id);
            stats::add(&stats.fail_msg_cnt, 1);
            stats::add(&stats.fail_in_doubt_cnt, u64::from(in_doubt));
        };
        self.handover.take_verdicts(events, done, &mut refuse);
        if ended && !events.has_verdicts() {
            // They do not run any more.
            self.handover.take_all(refuse);
        } else if !ended {
            self.handover.give(events, &self.sources);
        }
    }

    /// True once the event loop runs no callbacks any more.
    fn callbacks_ended(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire) || self.shared.events.has_ended()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        for connection in self.connections.values() {
            connection.abort();
        }
        let now = self.shared.now();
        // A second fault here would end the process; its messages are written twice instead.
        let finish = || self.spill.finish(now, &mut self.sources, self.shared);
        let _ = catch_unwind(AssertUnwindSafe(finish));
    }
}

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "the driver reads the clock for the layers below")]
fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
