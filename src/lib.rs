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
//!
//! Nothing of this is an interface of Rust's: users call Lua. What tests, fuzz targets, benches and examples need
//! is in `internals`.

// Whoever reads the documentation builds it with private items: `make docs`.
#![allow(rustdoc::private_intra_doc_links)]
// Without the Lua module, and under loom, there is nobody who uses all of what is below it.
#![cfg_attr(any(not(feature = "module"), loom), allow(dead_code, unused_imports))]

#[cfg(not(loom))]
mod backup;
mod config;
#[cfg(not(loom))]
mod crash_points;
#[cfg(all(feature = "net", not(loom)))]
mod driver;
#[cfg(all(feature = "net", not(loom)))]
mod ffi;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod internals;
#[cfg(not(loom))]
mod local_time;
#[cfg(not(loom))]
mod manual;
#[cfg(feature = "module")]
mod module;
#[cfg(all(feature = "net", not(loom)))]
mod net;
#[cfg(all(feature = "net", not(loom)))]
mod nginx;
mod producer;
mod producer_name;
mod protocol;
mod queue;
mod record;
#[cfg(not(loom))]
mod rename;
#[cfg(not(loom))]
mod report_kind;
mod seeded_bug;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
mod sys;
mod topic_name;
mod varint;
#[cfg(all(feature = "net", not(loom)))]
mod worker;
