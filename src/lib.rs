//! lkfk: messages from nginx to Kafka.
//!
//! # Layers
//! ```text
//! lua/lkfk  ->  module (mlua)      configuration and statistics, once in a while
//!           ->  ffi                records, log lines, the end: nginx's thread
//!                 worker           the producers of the process, by name, and what ends them
//!                   driver         the thread: queue -> producer -> net, backup
//!                     producer     the rules: a state machine without I/O or clock
//!                     net          sockets, frames, correlation ids
//!                     queue        records in a mapped file that both threads share
//!                     backup       files for what could not be delivered
//!                       protocol   Kafka's wire format
//! ```
//! `producer`, `protocol` and `queue` build without mlua and tokio (`--no-default-features`) and read no
//! clock, do not sleep and start no thread.

#[cfg(not(loom))]
pub mod backup;
pub mod config;
#[cfg(not(loom))]
pub mod crash_points;
#[cfg(all(feature = "net", not(loom)))]
pub mod driver;
#[cfg(all(feature = "net", not(loom)))]
pub mod ffi;
#[cfg(not(loom))]
pub mod local_time;
#[cfg(not(loom))]
pub mod manual;
#[cfg(feature = "module")]
mod module;
#[cfg(all(feature = "net", not(loom)))]
pub mod net;
#[cfg(all(feature = "net", not(loom)))]
mod nginx;
pub mod producer;
pub mod producer_name;
pub mod protocol;
pub mod queue;
pub mod record;
#[cfg(not(loom))]
mod rename;
#[cfg(not(loom))]
pub mod report_kind;
mod seeded_bug;
#[cfg(not(loom))]
pub mod stats;
#[cfg(not(loom))]
mod sys;
pub mod topic_name;
mod varint;
#[cfg(all(feature = "net", not(loom)))]
pub mod worker;
