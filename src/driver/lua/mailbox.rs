//! A bounded exchange between the driver thread and the event loop: the driver leaves items and rings, the event loop
//! takes them and leaves answers. Locked only to push or pop.

use super::bell::Bell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// How much of a mailbox's room an item takes.
pub trait Weigh {
    /// Bytes of messages in it.
    fn bytes(&self) -> usize;
}

/// Items in one direction, answers in the other.
#[derive(Debug)]
pub struct Mailbox<Item, Answer> {
    most_items: usize,
    most_bytes: usize,
    /// Rung when an item was left.
    bell: Arc<Bell>,
    state: Mutex<State<Item, Answer>>,
}

#[derive(Debug)]
struct State<Item, Answer> {
    items: VecDeque<Item>,
    bytes: usize,
    answers: Vec<Answer>,
    closed: bool,
}

impl<Item: Weigh, Answer> Mailbox<Item, Answer> {
    /// A mailbox in which so many items, and so many bytes of them, may wait. One more item may go beyond the bytes.
    pub fn new(most_items: usize, most_bytes: usize, bell: Arc<Bell>) -> Self {
        let state = State { items: VecDeque::new(), bytes: 0, answers: Vec::new(), closed: false };
        Mailbox { most_items, most_bytes, bell, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<Item, Answer>> {
        // A panic while the lock was held leaves a queue with an element more or less, nothing torn.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Event loop: takes the oldest item. `None` when there is none, or the mailbox is closed.
    pub fn take(&self) -> Option<Item> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        let item = state.items.pop_front()?;
        state.bytes -= item.bytes();
        Some(item)
    }

    /// Event loop: leaves an answer.
    pub fn answer(&self, answer: Answer) {
        self.state().answers.push(answer);
    }

    /// Event loop: takes no item any more.
    pub fn close(&self) {
        self.state().closed = true;
    }

    /// Driver: how many more items may be left here.
    pub(in crate::driver) fn room(&self) -> usize {
        let state = self.state();
        let full = state.closed || state.bytes >= self.most_bytes;
        if full { 0 } else { self.most_items.saturating_sub(state.items.len()) }
    }

    /// Driver: leaves an item; for as many as there is [`room`](Self::room).
    pub(in crate::driver) fn put(&self, item: Item) {
        let mut state = self.state();
        state.bytes += item.bytes();
        state.items.push_back(item);
        drop(state);
        self.bell.ring();
    }

    /// Driver: takes the answers that are `ready`, in the order in which they came.
    pub(in crate::driver) fn take_answers(
        &self,
        mut ready: impl FnMut(&Answer) -> bool,
    ) -> Vec<Answer> {
        self.state().answers.extract_if(.., |answer| ready(answer)).collect()
    }

    /// Driver: true while answers wait to be taken.
    pub(in crate::driver) fn has_answers(&self) -> bool {
        !self.state().answers.is_empty()
    }

    /// Driver: takes back what the event loop has not taken.
    pub(in crate::driver) fn withdraw(&self) -> Vec<Item> {
        let mut state = self.state();
        state.bytes = 0;
        state.items.drain(..).collect()
    }

    /// Driver: forgets all items and answers.
    pub(in crate::driver) fn clear(&self) {
        let mut state = self.state();
        state.items.clear();
        state.answers.clear();
        state.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for Vec<u8> {
        fn bytes(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn room_is_bounded_by_items_and_by_bytes() {
        let mailbox: Mailbox<Vec<u8>, u8> = Mailbox::new(3, 10, Arc::default());
        mailbox.put(vec![0; 4]);
        assert_eq!(mailbox.room(), 2);
        mailbox.put(vec![0; 6]);
        assert_eq!(mailbox.room(), 0);
        assert_eq!(mailbox.take().map(|item| item.len()), Some(4));
        assert_eq!(mailbox.room(), 2);
        mailbox.close();
        assert_eq!((mailbox.room(), mailbox.take()), (0, None));
        assert_eq!(mailbox.withdraw().len(), 1);
    }

    #[test]
    fn answers_that_are_not_ready_wait() {
        let mailbox: Mailbox<Vec<u8>, u8> = Mailbox::new(1, 1, Arc::default());
        [1, 2, 3].into_iter().for_each(|answer| mailbox.answer(answer));
        assert_eq!(mailbox.take_answers(|answer| *answer != 2), [1, 3]);
        assert!(mailbox.has_answers());
        assert_eq!(mailbox.take_answers(|_| true), [2]);
        assert!(!mailbox.has_answers());
    }
}
