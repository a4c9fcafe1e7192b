//! Messages that failed, on their way to the user's `failed_cb`. They keep their place in the queue until
//! the callback returned; when it threw, they go to the backup.

use super::events::{Events, Failure};
use super::sources::Sources;
use super::spill::Amount;
use crate::producer::{Reason, Record, RecordId};
use std::collections::{HashMap, VecDeque};

struct Waiting {
    topic: String,
    records: VecDeque<Record>,
    reason: Reason,
    in_doubt: bool,
}

/// A message whose callback threw.
pub(super) struct Refused {
    pub topic: String,
    pub record: Record,
    pub reason: Reason,
    pub in_doubt: bool,
}

/// The messages that wait for the callback, and those that are with it.
#[derive(Default)]
pub(super) struct Handover {
    waiting: VecDeque<Waiting>,
    given: HashMap<RecordId, Refused>,
    /// What both hold.
    amount: Amount,
}

impl Handover {
    /// Takes over messages that failed for `reason`.
    pub fn add(&mut self, topic: String, records: Vec<Record>, reason: Reason, in_doubt: bool) {
        self.amount.add(Amount::of(&records));
        self.waiting.push_back(Waiting { topic, records: records.into(), reason, in_doubt });
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.given.is_empty()
    }

    /// What waits here.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// Takes everything back, since nobody runs callbacks any more.
    pub fn take_all(&mut self, mut refused: impl FnMut(Refused)) {
        self.amount = Amount::default();
        for (_, given) in self.given.drain() {
            refused(given);
        }
        for Waiting { topic, records, reason, in_doubt } in self.waiting.drain(..) {
            for record in records {
                refused(Refused { topic: topic.clone(), record, reason, in_doubt });
            }
        }
    }

    /// Leaves as many messages for the event loop as it has room for.
    pub fn give(&mut self, events: &Events, sources: &Sources) {
        if self.waiting.is_empty() {
            return;
        }
        while events.has_room_for_failure()
            && let Some(waiting) = self.waiting.front_mut()
        {
            let Some(record) = waiting.records.pop_front() else {
                self.waiting.pop_front();
                continue;
            };
            // As in encode::produce: a slot in use is whole, or the thread starts over.
            let slot = sources.get(record.id).expect("a slot in use is whole");
            events.put_failure(Failure {
                id: record.id,
                topic: waiting.topic.clone(),
                key: slot.record.key.map(<[u8]>::to_vec),
                payload: slot.record.payload.unwrap_or_default().to_vec(),
                reason: waiting.reason.to_string(),
                code: match waiting.reason {
                    Reason::Broker(code) => Some(code.0),
                    Reason::TopicUnknown => Some(3),
                    Reason::TimedOut | Reason::QueueFull => None,
                },
            });
            let (topic, reason, in_doubt) =
                (waiting.topic.clone(), waiting.reason, waiting.in_doubt);
            self.given.insert(record.id, Refused { topic, record, reason, in_doubt });
        }
    }

    /// Takes the callback's verdicts: `done` is called for each message that it handled (and whether that
    /// message was in doubt), `refused` for each that it threw at.
    pub fn take_verdicts(
        &mut self,
        events: &Events,
        mut done: impl FnMut(RecordId, bool),
        mut refused: impl FnMut(Refused),
    ) {
        for (id, handled) in events.take_verdicts() {
            // A verdict on what an earlier run of the driver gave out names nothing here.
            let Some(given) = self.given.remove(&id) else { continue };
            self.amount.subtract(Amount::of(&[given.record]));
            if handled {
                done(id, given.in_doubt);
            } else {
                refused(given);
            }
        }
    }
}
