//! The driver's side of the network: connections to brokers, what they are asked, and which releases they are.

mod certificates;
mod compression;
pub(super) mod connections;
pub(super) mod encode;
pub(super) mod versions;
