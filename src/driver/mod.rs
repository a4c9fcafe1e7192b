//! The driver: one thread per worker that owns everything between queues and sockets. Each producer is a task of it
//! with a loop of its own; a fault in one restarts that one.
//!
//! | folder | what it does |
//! |---|---|
//! | `records` | records from the queues to the producer, and room for more |
//! | `brokers` | connections, requests and answers |
//! | `undelivered` | failed messages to `failed_cb` or the backup, replay, the end |
//! | [`lua`] | what goes to Lua and comes from it |
//! | `report` | what operators read of all that |
//!
//! `event_loop` puts them together; nobody below it knows it.

mod brokers;
mod context;
mod event_loop;
mod handle;
mod lookup;
pub mod lua;
mod notices;
mod own_queue;
mod records;
mod report;
mod sleep;
pub mod statistics;
mod task;
mod thread;
mod undelivered;

pub use context::Shared;
pub use handle::{Driver, StartError};
