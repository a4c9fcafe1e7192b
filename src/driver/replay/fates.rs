//! What becomes of the lines of the chunk in hand. Runs on the driver.
//!
//! Invariants: a line is [sent](State::Sent) only once it is acknowledged, and [refused](State::Refused) only when it
//! was refused for good in a batch of its own. After any other failure nothing more of the chunk is handed over.

use crate::producer::{Delivery, Reason, TopicId};
use crate::protocol::error_code::ErrorCode;
use std::collections::VecDeque;

/// What is known of a line of the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not sent, on its way, or failed: it stays in its file.
    Open,
    /// Acknowledged.
    Sent,
    /// Kafka will never take it.
    Refused,
}

/// The chunk in hand.
pub(super) struct Current {
    pub topic: TopicId,
    states: Vec<State>,
    /// Lines to be handed to the producer.
    unsent: VecDeque<usize>,
    /// Lines that were refused among others, to be sent one at a time.
    alone: VecDeque<usize>,
    /// The last one handed over was one of those.
    one_by_one: bool,
    /// Lines that the producer has.
    pub out: usize,
    /// Why Kafka will never take some.
    pub refusal: Option<ErrorCode>,
    /// Why some failed that Kafka may take later.
    pub failure: Option<Reason>,
}

impl Current {
    pub fn new(topic: TopicId, lines: usize) -> Current {
        Current {
            topic,
            states: vec![State::Open; lines],
            unsent: (0..lines).collect(),
            alone: VecDeque::new(),
            one_by_one: false,
            out: 0,
            refusal: None,
            failure: None,
        }
    }

    /// The lines to be handed to the producer now, of which it may take so many.
    pub fn next_lines(&mut self, most: usize) -> Vec<usize> {
        if self.unsent.is_empty() && self.out == 0 && most > 0 {
            self.one_by_one = true;
            return self.alone.pop_front().into_iter().collect();
        }
        self.unsent.drain(..most.min(self.unsent.len())).collect()
    }

    /// What became of a line; `alone`: it was the only record of its batch.
    pub fn settle(&mut self, index: usize, fate: Delivery, alone: bool) {
        self.out = self.out.saturating_sub(1);
        match fate {
            Delivery::Delivered { .. } => self.states[index] = State::Sent,
            Delivery::Failed { reason: Reason::Broker(code), .. } if is_poison(code) => {
                self.refusal = Some(code);
                if alone {
                    self.states[index] = State::Refused;
                } else if !self.one_by_one {
                    // Which one of them it is shows when each is sent by itself.
                    self.alone.push_back(index);
                } else {
                    // It was in one batch with new messages.
                    self.fail(Reason::Broker(code));
                }
            }
            Delivery::Failed { reason, .. } => self.fail(reason),
        }
    }

    fn fail(&mut self, reason: Reason) {
        self.failure = Some(reason);
        self.stop();
    }

    /// Hands nothing more over: the rest stays in its file.
    pub fn stop(&mut self) {
        self.unsent.clear();
        self.alone.clear();
    }

    /// There are lines to be handed over before any is answered.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The producer has none of its lines, and waits for no lot.
    fn is_idle(&self) -> bool {
        self.out == 0 && self.unsent.is_empty()
    }

    /// Each has its fate, or stays in its file.
    pub fn is_over(&self) -> bool {
        self.is_idle() && self.alone.is_empty()
    }

    /// Lines of which this is known.
    pub fn numbers(&self, wanted: State) -> impl Iterator<Item = usize> {
        let states = self.states.iter().enumerate();
        states.filter(move |(_, state)| **state == wanted).map(|(index, _)| index)
    }
}

/// Errors that a message gets however often it is sent.
fn is_poison(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::MESSAGE_TOO_LARGE
            | ErrorCode::RECORD_LIST_TOO_LARGE
            | ErrorCode::INVALID_RECORD
            | ErrorCode::INVALID_TIMESTAMP
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> Delivery {
        Delivery::Failed { reason: Reason::Broker(code), in_doubt: false }
    }

    fn handed_over(current: &mut Current) {
        current.out = current.unsent.len();
        current.unsent.clear();
    }

    #[test]
    fn dsk_06_lines_refused_together_are_poison_only_when_they_are_refused_alone() {
        let mut current = Current::new(TopicId(0), 3);
        handed_over(&mut current);
        for index in 0..3 {
            current.settle(index, refused(ErrorCode::INVALID_RECORD), false);
        }
        assert_eq!(current.states, [State::Open; 3]);
        assert!(current.is_idle() && !current.is_over());
        current.one_by_one = true;
        current.out = 3;
        current.alone.clear();
        current.settle(0, Delivery::UNPLACED, true);
        current.settle(1, refused(ErrorCode::INVALID_RECORD), true);
        // Shared its batch with new messages: nobody knows whose fault it was.
        current.settle(2, refused(ErrorCode::INVALID_RECORD), false);
        assert_eq!(current.states, [State::Sent, State::Refused, State::Open]);
        assert!(current.is_over());
    }

    #[test]
    fn errors_that_may_pass_leave_the_lines_in_their_file_and_hand_nothing_more_over() {
        let timed_out = Delivery::Failed { reason: Reason::TimedOut, in_doubt: true };
        for fate in [timed_out, refused(ErrorCode::TOPIC_AUTHORIZATION_FAILED)] {
            let mut current = Current::new(TopicId(0), 10);
            current.unsent.drain(..2);
            current.out = 2;
            current.settle(0, fate, true);
            assert!(current.unsent.is_empty() && !current.is_over());
            current.settle(1, Delivery::UNPLACED, true);
            assert_eq!(current.states[..3], [State::Open, State::Sent, State::Open]);
            assert!(current.is_over());
        }
    }
}
