//! Messages that failed and are handed to the user's `failed_cb`. They keep their place in the queue until the callback
//! returned; when it threw, they go to the backup.
//!
//! Invariant: a message is handed to a callback, or written to the backup, and both only when the callback threw or
//! has not returned when the worker ends. Once no callback is begun any more, what none has seen is the backup's, and
//! what one may have begun with waits for its verdict until the producer is stopped.

use super::super::context::{Context, Shared};
use super::super::lua::Failure;
use super::super::records::amount::Amount;
use super::super::records::queues::Queues;
use super::spill::Spill;
use crate::producer::{Reason, Record, RecordId, Time};
use crate::stats;
use std::collections::{HashMap, VecDeque};

/// Messages of one topic that failed for one reason.
struct Group {
    topic: String,
    records: VecDeque<Record>,
    reason: Reason,
    in_doubt: bool,
}

/// A message that the event loop has.
struct Given {
    topic: String,
    record: Record,
    reason: Reason,
    in_doubt: bool,
}

/// The messages that wait for the callback, and those that are with it.
#[derive(Default)]
pub(in crate::driver) struct FailedCallback {
    waiting: VecDeque<Group>,
    given: HashMap<RecordId, Given>,
    /// What both hold.
    amount: Amount,
}

impl FailedCallback {
    /// Takes over messages that failed for `reason`.
    pub fn add(&mut self, topic: String, records: Vec<Record>, reason: Reason, in_doubt: bool) {
        self.amount.add(Amount::of(&records));
        self.waiting.push_back(Group { topic, records: records.into(), reason, in_doubt });
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.given.is_empty()
    }

    /// What waits here.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// Exchanges messages and verdicts with the event loop.
    pub fn turn(&mut self, cx: &Context<'_>, queues: &mut Queues, spill: &mut Spill<'_>) {
        if self.is_empty() {
            return;
        }
        self.take_verdicts(cx.now, cx.shared, queues, spill);
        if cx.shared.callbacks_ended() {
            self.take_back(cx.now, cx.shared, spill);
        } else {
            self.give(cx.shared, queues);
        }
    }

    fn take_verdicts(
        &mut self,
        now: Time,
        shared: &Shared,
        queues: &mut Queues,
        spill: &mut Spill<'_>,
    ) {
        for verdict in shared.lua.take_verdicts() {
            // A verdict on what an earlier run of the driver gave out names nothing here.
            let Some(given) = self.given.remove(&verdict.id) else { continue };
            self.amount.subtract(Amount::of(&[given.record]));
            if verdict.handled {
                queues.done(verdict.id);
                stats::add(&shared.stats.fail_msg_cnt, 1);
                stats::add(&shared.stats.fail_in_doubt_cnt, u64::from(given.in_doubt));
            } else {
                given.refuse(now, spill);
            }
        }
    }

    /// Gives to the backup what no callback has seen; and once the producer is stopped, when the event loop stands
    /// still, also what a callback has not answered.
    fn take_back(&mut self, now: Time, shared: &Shared, spill: &mut Spill<'_>) {
        for Group { topic, records, reason, in_doubt } in self.waiting.drain(..) {
            self.amount.subtract(Amount::of(records.as_slices().0));
            self.amount.subtract(Amount::of(records.as_slices().1));
            spill.add(now, topic, records.into(), reason.to_string(), in_doubt);
        }
        let mut back: Vec<RecordId> =
            shared.lua.failures.withdraw().iter().map(|failure| failure.id).collect();
        // A verdict that waits for what its callback wrote still comes.
        if shared.is_stopping() && !shared.lua.failures.has_answers() {
            back = self.given.keys().copied().collect();
            back.sort_unstable();
        }
        for given in back.iter().filter_map(|id| self.given.remove(id)) {
            self.amount.subtract(Amount::of(&[given.record]));
            given.refuse(now, spill);
        }
    }

    /// Leaves as many messages for the event loop as it has room for.
    fn give(&mut self, shared: &Shared, queues: &Queues) {
        while shared.lua.failures.room() > 0
            && let Some(group) = self.waiting.front_mut()
        {
            let Some(record) = group.records.pop_front() else {
                self.waiting.pop_front();
                continue;
            };
            let found = queues.in_use(record.id).record;
            shared.lua.failures.put(Failure {
                id: record.id,
                topic: group.topic.clone(),
                key: found.key.map(<[u8]>::to_vec),
                payload: found.payload.map(<[u8]>::to_vec),
                headers: found.headers.block().to_vec(),
                timestamp_ms: found.timestamp_ms,
                reason: group.reason.to_string(),
                code: match group.reason {
                    Reason::Broker(code) => Some(code.0),
                    Reason::TopicUnknown => Some(3),
                    Reason::TimedOut | Reason::QueueFull | Reason::HungUp => None,
                },
            });
            let Group { topic, reason, in_doubt, .. } = group;
            let (topic, reason, in_doubt) = (topic.clone(), *reason, *in_doubt);
            self.given.insert(record.id, Given { topic, record, reason, in_doubt });
        }
    }
}

impl Given {
    /// The callback threw, or will not be called: the backup takes the message.
    fn refuse(self, now: Time, spill: &mut Spill<'_>) {
        let Given { topic, record, reason, in_doubt } = self;
        spill.add(now, topic, vec![record], reason.to_string(), in_doubt);
    }
}
