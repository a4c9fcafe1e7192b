//! Behaviour of the state machine: by example, and by simulation.

mod behaviour;
mod cluster;
mod compression;
mod discovery;
mod eviction;
mod idempotence;
mod ledger;
mod scene;
mod sequences;
mod sim;
mod stage;

use super::batch::Batch;
use super::broker;
use super::ids::BrokerId;
use super::metadata::Refresh;
use super::random::Random;
use super::*;
use crate::config::{Config, HostPort};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::produce::ProducedPartition;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// An acknowledgement; where the records stand is another matter.
const DELIVERED: Delivery = Delivery::UNPLACED;

/// Rules with the product's defaults.
fn rules() -> Rules {
    let bootstrap = vec![HostPort { host: "boot".into(), port: 9092 }];
    Rules { bootstrap, ..Rules::from(&Config::default()) }
}
