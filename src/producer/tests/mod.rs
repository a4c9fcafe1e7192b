//! Behaviour of the state machine: by example, and by simulation.

mod behaviour;
mod cluster;
mod sim;

use super::*;

/// Rules with the product's defaults.
fn rules() -> Rules {
    Rules::from(&Config {
        metadata_broker_list: vec![HostPort { host: "boot".into(), port: 9092 }],
        ..Config::default()
    })
}
