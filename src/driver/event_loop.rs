//! A producer's event loop: everything between its queue and its sockets.
//!
//! Each turn does a bounded amount of each kind of work; [`EventLoop::turn`] is the list. Then the loop sleeps until a
//! record, an event or a deadline comes. What a fault leaves behind is dropped whole, and what was not done is read
//! from the queue again ([`task`](super::task)).

use super::brokers::connections::Connections;
use super::context::{Context, Shared};
use super::lookup::Records;
use super::notices;
use super::records::adoption::{Adoption, QueueDirs};
use super::records::intake::Intake;
use super::records::overflow;
use super::records::partitioning::Partitioning;
use super::records::queues::Queues;
use super::report::queue::QueueReport;
use super::sleep::Sleep;
use super::statistics;
use super::undelivered::disk::Disk;
use super::undelivered::failed_callback::FailedCallback;
use super::undelivered::replay::Replay;
use super::undelivered::spill::{Backup, Spill};
use crate::config::Config;
use crate::producer::{Delivery, Mark, Outcome, Producer, Reason, Record, Rules, Time, TopicId};
use crate::queue::{Owner, Provisioner, Queue};
use crate::stats;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes that are compressed in one turn, or a request more: some milliseconds, with a high level many.
const COMPRESSED_A_TURN: usize = 1 << 20;

/// The state of one run.
pub(super) struct EventLoop<'a> {
    config: &'a Config,
    shared: &'a Shared,
    disk: &'a Disk,
    provisioner: Provisioner,
    adoption: Adoption<'a>,
    queues: Queues,
    intake: Intake,
    partitioning: Partitioning,
    producer: Producer,
    connections: Connections<'a>,
    undelivered: Undelivered<'a>,
    sleep: Sleep,
}

/// Where messages go that could not be delivered, and come from again.
struct Undelivered<'a> {
    failed_callback: FailedCallback,
    spill: Spill<'a>,
    replay: Replay,
}

impl<'a> EventLoop<'a> {
    /// `owner` says whose queues are adopted; `backup` is here.
    pub fn new(
        config: &'a Config,
        shared: &'a Shared,
        disk: &'a Disk,
        queue: Arc<Queue>,
        dirs: &'a mut QueueDirs,
        owner: Owner<'a>,
        backup: &'a mut Backup,
    ) -> EventLoop<'a> {
        shared.lua.forget_records();
        let now = shared.now();
        // Process id and time differ between workers; nothing secret hangs on it.
        let wall_ms = super::context::wall_ms() as u64;
        let seed = u64::from(std::process::id()) << 32 ^ now.0 ^ wall_ms;
        let connections = Connections::new(config);
        let rules = Rules { max_connections: connections.most(), ..Rules::from(config) };
        let mut producer = Producer::new(rules, seed);
        for topic in &config.brokers.topics {
            producer.topic(now, topic);
        }
        EventLoop {
            config,
            shared,
            disk,
            provisioner: Provisioner::new(&queue),
            adoption: Adoption::new(dirs, owner),
            queues: Queues::new(queue),
            intake: Intake::new(now, &config.delivery),
            partitioning: Partitioning::new(config),
            producer,
            connections,
            undelivered: Undelivered {
                failed_callback: FailedCallback::default(),
                spill: Spill::new(backup),
                replay: Replay::new(now, config),
            },
            sleep: Sleep::new(now, config),
        }
    }

    fn context(&self) -> Context<'a> {
        let Self { shared, disk, .. } = *self;
        Context { now: shared.now(), shared, disk }
    }

    /// Works until it is told to stop, and then until all is delivered or the time is up.
    pub async fn serve(&mut self) -> std::io::Result<()> {
        let shared = self.shared;
        // SAFETY: the descriptor belongs to Shared, which outlives this future, and is never replaced.
        let wake =
            unsafe { AsyncFd::register_with_interest(shared.wake.as_fd(), Interest::READABLE)? };
        loop {
            let more = self.turn();
            if self.is_over() {
                return Ok(());
            }
            let asleep = if more { None } else { self.fall_asleep() };
            let Some(pause) = asleep else {
                // Connections, and other producers, run in between.
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
                Some(event) = self.connections.next_event() => {
                    self.connections.handle(&self.context(), &mut self.producer, event);
                }
                () = tokio::time::sleep(pause) => {}
            }
            self.queues.own().reader.disarm();
            stats::add(&shared.stats.wakeups, 1);
        }
    }

    /// One turn; true when there is more to do at once.
    fn turn(&mut self) -> bool {
        let cx = self.context();
        provide(&cx, &mut self.provisioner);
        let Self { queues, producer, partitioning, .. } = self;
        let more_records =
            self.intake.turn(&cx, &mut self.adoption, queues, producer, partitioning);
        let more_events = self.connections.turn(&cx, producer);
        if self.connections.take_fresh_metadata() {
            partitioning.publish_counts(&cx, queues, producer);
        }

        let cx = self.context();
        let Self { queues, producer, partitioning, .. } = self;
        let Undelivered { failed_callback, spill, replay } = &mut self.undelivered;
        let lookup = Records { queues, replay };
        partitioning.turn(&cx, producer, |id| lookup.in_use(id).key);
        self.sleep.take_flush(&cx, &queues.own().reader, producer);
        replay.turn(&cx, producer, partitioning);
        let limits = &self.config.queue;
        overflow::make_room(&cx, limits, queues, producer, partitioning, failed_callback, spill);
        if producer.next_deadline().is_some_and(|at| at <= cx.now) {
            producer.handle_timeout(cx.now);
        }
        let more_to_send = self.drive_producer(&cx);

        let Self { queues, producer, .. } = self;
        let Undelivered { failed_callback, spill, .. } = &mut self.undelivered;
        spill.turn(&cx, queues);
        failed_callback.turn(&cx, queues, spill);
        queues.release(&cx);
        statistics::publish(&cx, producer, spill.amount().records);
        cx.shared.log.settle(cx.now);
        more_records || more_events || more_to_send
    }

    /// Does what the producer asks for, and takes what it reports. True when there is more to do, since what was
    /// compressed has taken long enough: connections, and other producers, have their turn first.
    fn drive_producer(&mut self, cx: &Context<'_>) -> bool {
        let mut compressed = 0;
        while compressed < COMPRESSED_A_TURN {
            let action = self.producer.poll(cx.now);
            // What was acknowledged is marked done before more is sent, see the producer's contract.
            while let Some(outcome) = self.producer.poll_outcome() {
                self.complete(cx, outcome);
            }
            while let Some((record, mark)) = self.producer.poll_mark() {
                match mark {
                    Mark::Partition(partition) => self.queues.assign(record, partition),
                    Mark::Unsent => self.queues.unstamp(record),
                }
            }
            let Some(action) = action else { break };
            let Self { queues, producer, connections, undelivered, .. } = self;
            compressed += connections.act(cx, action, producer, queues, &undelivered.replay);
        }
        while let Some(notice) = self.producer.poll_notice() {
            notices::tell(cx, &self.producer, notice);
        }
        compressed >= COMPRESSED_A_TURN
    }

    /// Takes what has become of records.
    fn complete(&mut self, cx: &Context<'_>, outcome: Outcome) {
        let outcome = self.undelivered.replay.take(cx, outcome);
        if outcome.records.is_empty() {
            return;
        }
        match outcome.delivery {
            Delivery::Delivered { .. } => {
                for record in &outcome.records {
                    self.queues.done(record.id);
                }
                stats::add(&cx.shared.stats.succ_msg_cnt, outcome.records.len() as u64);
            }
            Delivery::Failed { reason, in_doubt } => {
                self.fail(cx, outcome.topic, outcome.records, reason, in_doubt);
            }
        }
    }

    fn fail(
        &mut self,
        cx: &Context<'_>,
        topic: TopicId,
        records: Vec<Record>,
        reason: Reason,
        in_doubt: bool,
    ) {
        if !in_doubt {
            // Not in the log: whoever finds the file is not to take them for sent, and some for done.
            for record in &records {
                self.queues.unstamp(record.id);
            }
        }
        let topic = self.producer.topic_name(topic).to_owned();
        let Undelivered { failed_callback, spill, replay } = &mut self.undelivered;
        replay.topic_failed(cx.now, &topic);
        if self.config.callbacks.failed_cb.0 && !cx.shared.callbacks_ended() {
            failed_callback.add(topic, records, reason, in_doubt);
        } else {
            spill.add(cx.now, topic, records, reason.to_string(), in_doubt);
        }
    }

    /// True when a stopping producer has nothing left to wait for.
    fn is_over(&self) -> bool {
        if !self.shared.is_stopping() {
            return false;
        }
        let reader = &self.queues.own().reader;
        let all_read = reader.position() == reader.tail();
        let all_done = all_read
            && self.partitioning.is_empty()
            && self.producer.held_records() == 0
            && self.undelivered.failed_callback.is_empty()
            && self.undelivered.spill.is_empty()
            && self.shared.lua.appends.is_empty();
        all_done || self.shared.now() >= self.shared.stop_by()
    }

    fn next_deadline(&self) -> Time {
        let others = self.shared.looks_after_others();
        let Undelivered { spill, replay, .. } = &self.undelivered;
        let deadline = self
            .producer
            .next_deadline()
            .unwrap_or(Time::NEVER)
            .min(spill.deadline(self.shared))
            .min(self.partitioning.deadline())
            .min(replay.deadline(!others))
            .min(if others { self.adoption.deadline() } else { Time::NEVER });
        if self.shared.is_stopping() { deadline.min(self.shared.stop_by()) } else { deadline }
    }

    /// Tells the writer when to wake us, and returns how long to sleep. `None` when there is something to do already.
    fn fall_asleep(&mut self) -> Option<std::time::Duration> {
        let deadline = self.next_deadline();
        let waits = self.producer.held_records() > 0 || !self.partitioning.is_empty();
        let now = self.shared.now();
        self.sleep.fall_asleep(now, &self.queues.own().reader, &self.producer, deadline, waits)
    }

    /// Waits for what the replay has with the disk thread: it would be done again otherwise. To be called at the end of
    /// each run, also when that ended with a fault.
    pub async fn finish_replay(&mut self) {
        let cx = self.context();
        self.undelivered.replay.finish(&cx).await;
    }

    /// Waits for what is being written to the backup. To be called as [`finish_replay`](Self::finish_replay) is, whatever
    /// has become of that.
    pub async fn finish_spill(&mut self) {
        let cx = self.context();
        self.undelivered.spill.finish(&cx, &mut self.queues).await;
    }

    /// Hands the queues out that were read, the own one first.
    pub fn into_queues(self) -> Vec<Arc<Queue>> {
        self.queues.into_queues()
    }
}

/// Keeps memory ready for what `log()` will take.
fn provide(cx: &Context<'_>, provisioner: &mut Provisioner) {
    if provisioner.turn(cx.now.0 / 1000).is_starved {
        cx.report(&QueueReport::Starved);
    }
}
