//! Behaviour of the state machine: by example, and by simulation.

mod behaviour;
mod cluster;
mod discovery;
mod idempotence;
mod ledger;
mod scene;
mod sequences;
mod sim;

use super::sink::Sink;
use super::*;
use crate::config::{Config, HostPort};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::produce::ProducedPartition;
use std::time::Duration;

/// Rules with the product's defaults.
fn rules() -> Rules {
    Rules::from(&Config {
        metadata_broker_list: vec![HostPort { host: "boot".into(), port: 9092 }],
        ..Config::default()
    })
}
