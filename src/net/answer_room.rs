//! Memory for the answers of one producer's brokers, of which each may be large and none can be trusted to come soon.
//!
//! Room is taken for bytes that came, never for those that a size announces, so a peer that drips a large answer takes
//! hardly any. Where room runs out all the same, whoever has read one answer for [`FAIR`] makes room: its connection
//! ends. So no peer holds up another for longer than that.
//!
//! Invariants: what is being read takes [`MAX_FRAME`] bytes together, besides [`FREE`] for each connection. One large
//! answer at a time is decoded, and until the driver has dealt with it no room is given. So both together, and what is
//! moved when a buffer grows, stay below 8 MiB.

use super::NetError;
use crate::protocol::header::MAX_FRAME;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

/// What a connection may read without asking. An answer that is not larger is not counted: hardly any but Metadata is.
pub(super) const FREE: usize = 16 * 1024;

/// How long an answer may be read while others wait for its room.
const FAIR: Duration = Duration::from_millis(250);

/// The room of one producer's answers.
#[derive(Debug)]
pub struct AnswerRoom {
    bytes: Semaphore,
    /// Those who wait for bytes.
    waiting: watch::Sender<usize>,
    /// One permit, for what was decoded.
    decoded: Arc<Semaphore>,
}

impl Default for AnswerRoom {
    fn default() -> AnswerRoom {
        AnswerRoom {
            bytes: Semaphore::new(MAX_FRAME),
            waiting: watch::Sender::new(0),
            decoded: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Room that one answer has, while it is read.
#[derive(Debug)]
pub(super) struct Held<'a> {
    room: &'a AnswerRoom,
    permit: Option<SemaphorePermit<'a>>,
    /// When it first had some.
    since: Instant,
}

impl AnswerRoom {
    /// Nothing yet.
    pub(super) fn hold(&self) -> Held<'_> {
        Held { room: self, permit: None, since: Instant::now() }
    }

    /// Bytes that nobody has.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.bytes.available_permits()
    }

    /// Leave to decode a large answer, which is kept for as long as what it decodes to.
    pub(super) async fn decode(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.decoded.clone().acquire_owned().await.ok()
    }

    /// Ends when others than `own` wait for bytes and those read since `since` have had their time.
    async fn is_wanted(&self, since: Instant, own: usize) {
        let mut waiting = self.waiting.subscribe();
        // The channel is never closed.
        while waiting.wait_for(|waiting| *waiting > own).await.is_ok() {
            let due = since + FAIR;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
    }
}

impl<'a> Held<'a> {
    /// Takes room for `bytes` more.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), NetError> {
        let more = self.take(bytes as u32).await?;
        // Not for others' sake, but for memory's: the driver will have dealt with it in a moment.
        drop(self.room.decoded.acquire().await);
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => {
                self.since = Instant::now();
                self.permit = Some(more);
            }
        }
        Ok(())
    }

    /// Gives all of it back.
    pub fn release(&mut self) {
        self.permit = None;
    }

    async fn take(&self, bytes: u32) -> Result<SemaphorePermit<'a>, NetError> {
        let room = self.room;
        if let Ok(permit) = room.bytes.try_acquire_many(bytes) {
            return Ok(permit);
        }
        let _waits = Waits::begin(&room.waiting);
        tokio::select! {
            biased;
            permit = room.bytes.acquire_many(bytes) => permit.map_err(|_| NetError::Fault),
            () = self.is_wanted(1) => Err(NetError::TooSlow),
        }
    }

    /// Ends when others need the room, and it had its time. `own`: how often it waits itself.
    async fn is_wanted(&self, own: usize) {
        match self.permit {
            Some(_) => self.room.is_wanted(self.since, own).await,
            None => std::future::pending().await,
        }
    }

    /// The same of one that does not wait.
    pub async fn is_wanted_by_others(&self) {
        self.is_wanted(0).await;
    }
}

/// Somebody who waits for bytes.
struct Waits<'a>(&'a watch::Sender<usize>);

impl Waits<'_> {
    fn begin(waiting: &watch::Sender<usize>) -> Waits<'_> {
        waiting.send_modify(|waiting| *waiting += 1);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}
