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
    /// Not sent, in flight, or failed: it stays in its file.
    Open,
    /// Acknowledged.
    Sent,
    /// Kafka will never take it.
    Refused,
}

/// The chunk in hand.
pub(super) struct ChunkProgress {
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
    pub refusal: Option<Reason>,
    /// Why some failed that Kafka may take later.
    pub failure: Option<Reason>,
}

impl ChunkProgress {
    pub fn new(topic: TopicId, lines: usize) -> ChunkProgress {
        ChunkProgress {
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
    pub fn complete(&mut self, index: usize, delivery: Delivery, alone: bool) {
        self.out = self.out.saturating_sub(1);
        match delivery {
            Delivery::Delivered { .. } => self.states[index] = State::Sent,
            Delivery::Failed { reason, .. } if is_poison(reason) => {
                self.refusal = Some(reason);
                if alone {
                    self.states[index] = State::Refused;
                } else if !self.one_by_one {
                    // Which one of them it is shows when each is sent by itself.
                    self.alone.push_back(index);
                } else {
                    // It was in one batch with new messages.
                    self.fail(reason);
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

/// Reasons for which a message fails however often it is sent.
fn is_poison(reason: Reason) -> bool {
    let Reason::Broker(code) = reason else { return reason == Reason::HungUp };
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

    fn handed_over(progress: &mut ChunkProgress) {
        progress.out = progress.unsent.len();
        progress.unsent.clear();
    }

    #[test]
    fn dsk_06_lines_refused_together_are_poison_only_when_they_are_refused_alone() {
        let mut progress = ChunkProgress::new(TopicId(0), 3);
        handed_over(&mut progress);
        for index in 0..3 {
            progress.complete(index, refused(ErrorCode::INVALID_RECORD), false);
        }
        assert_eq!(progress.states, [State::Open; 3]);
        assert!(progress.is_idle() && !progress.is_over());
        progress.one_by_one = true;
        progress.out = 3;
        progress.alone.clear();
        progress.complete(0, Delivery::UNPLACED, true);
        progress.complete(1, refused(ErrorCode::INVALID_RECORD), true);
        // Shared its batch with new messages: nobody knows whose fault it was.
        progress.complete(2, refused(ErrorCode::INVALID_RECORD), false);
        assert_eq!(progress.states, [State::Sent, State::Refused, State::Open]);
        assert!(progress.is_over());
    }

    #[test]
    fn flt_22_a_line_that_the_broker_hangs_up_on_by_itself_is_moved_aside() {
        let mut progress = ChunkProgress::new(TopicId(0), 1);
        handed_over(&mut progress);
        progress.complete(0, Delivery::Failed { reason: Reason::HungUp, in_doubt: true }, true);
        assert_eq!(progress.states, [State::Refused]);
        assert!(progress.is_over());
    }

    #[test]
    fn errors_that_may_pass_leave_the_lines_in_their_file_and_hand_nothing_more_over() {
        let timed_out = Delivery::Failed { reason: Reason::TimedOut, in_doubt: true };
        for delivery in [timed_out, refused(ErrorCode::TOPIC_AUTHORIZATION_FAILED)] {
            let mut progress = ChunkProgress::new(TopicId(0), 10);
            progress.unsent.drain(..2);
            progress.out = 2;
            progress.complete(0, delivery, true);
            assert!(progress.unsent.is_empty() && !progress.is_over());
            progress.complete(1, Delivery::UNPLACED, true);
            assert_eq!(progress.states[..3], [State::Open, State::Sent, State::Open]);
            assert!(progress.is_over());
        }
    }
}
