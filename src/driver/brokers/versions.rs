//! What is remembered of addresses, so that Kafka 0.8 and 0.9, which cannot be asked for their
//! versions, are found out quickly, and nothing else is ever taken for one of them.
//!
//! ```text
//! nothing known ---- told its versions --> tells
//!       |   '------- silent as 0.9 ------> old <-- recognised --.
//!       '----------- closed -------------> closes --------------'
//!
//! tells, old, closes -- anything unexpected, or old for long enough --> nothing known
//! ```
//! Anything may close a connection: a TLS listener, a load balancer, a broker that is starting. So what
//! closes is not old by that; it is tried once with a request that only 0.8 and 0.9 answer. So is each
//! connection to an old broker, which may have been upgraded.

use crate::config::Config;
use crate::net::{Handshake, NetError, Origin};
use crate::producer::Time;
use crate::protocol::api_versions::Versions;
use std::collections::HashMap;
use std::time::Duration;

/// Addresses that are remembered. A cluster has fewer; where metadata names ever new ones, to forget
/// them all costs each one connection at most.
const REMEMBERED: usize = 1024;

/// The memory.
pub(in crate::driver) struct BrokerVersions {
    /// What is assumed of all brokers, when none is to be asked.
    assumed: Option<Versions>,
    /// Brokers want authentication, which the old ones have not, before they answer any other question.
    authenticated: bool,
    memory: Duration,
    known: HashMap<String, Standing>,
}

#[derive(Debug, Clone, Copy)]
enum Standing {
    /// It told its versions.
    Tells,
    /// It closed when it was asked, as 0.8 does.
    Closes,
    /// It is 0.8 or 0.9.
    Old { until: Time },
}

impl BrokerVersions {
    /// With the options that the configuration has for this.
    pub fn new(config: &Config) -> BrokerVersions {
        let fallback = config.brokers.broker_version_fallback.versions();
        BrokerVersions {
            assumed: (!config.brokers.api_version_request).then_some(fallback),
            authenticated: config.security.credentials().is_some(),
            memory: config.brokers.old_broker_memory(),
            known: HashMap::new(),
        }
    }

    /// How to begin the next connection to `address`.
    pub fn handshake(&self, now: Time, address: &str) -> Handshake {
        if let Some(versions) = self.assumed {
            return Handshake::Assume(versions);
        }
        match self.known.get(address) {
            _ if self.authenticated => Handshake::AskAlone,
            Some(Standing::Tells) => Handshake::AskAlone,
            Some(Standing::Closes) => Handshake::Recognise,
            Some(Standing::Old { until }) if *until > now => Handshake::Recognise,
            _ => Handshake::Ask,
        }
    }

    /// A connection to `address` is ready.
    pub fn handle_ready(&mut self, now: Time, address: &str, origin: Origin) {
        let standing = match (origin, self.known.get(address)) {
            (Origin::Assumed, _) => return,
            (Origin::Told, _) => Standing::Tells,
            // The time runs from the first connection, so that in the end it is asked again.
            (Origin::Recognised, Some(Standing::Old { until })) if *until > now => return,
            (Origin::Recognised, _) => Standing::Old { until: now + self.memory },
        };
        self.remember(address, standing);
    }

    /// A connection to `address` ended before it was ready.
    pub fn handle_failure(&mut self, address: &str, error: &NetError) {
        match (error, self.known.get(address)) {
            // Nobody was there to show anything.
            (NetError::TooMany { .. } | NetError::Resolve { .. } | NetError::Connect { .. }, _) => {
            }
            (NetError::ClosedOnMetadata, _) => self.remember(address, Standing::Tells),
            // What is old is asked only when its time is up.
            (NetError::ClosedInHandshake, None | Some(Standing::Old { .. })) => {
                self.remember(address, Standing::Closes);
            }
            _ => {
                self.known.remove(address);
            }
        }
    }

    fn remember(&mut self, address: &str, standing: Standing) {
        if self.known.len() >= REMEMBERED && !self.known.contains_key(address) {
            self.known.clear();
        }
        self.known.insert(address.to_owned(), standing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Value;

    const HOUR: Time = Time(3_600_000_000);

    fn broker_versions(entries: &[(&str, Value)]) -> BrokerVersions {
        let broker = ("metadata_broker_list", Value::Text(b"b:1".to_vec()));
        let entries = entries.iter().cloned().chain([broker]);
        let entries: Vec<_> = entries.map(|(key, value)| (key.to_owned(), value)).collect();
        BrokerVersions::new(&Config::parse(&entries, "/prefix").unwrap())
    }

    fn closed() -> NetError {
        NetError::ClosedInHandshake
    }

    #[test]
    fn a_broker_that_closes_is_tried_as_0_8_and_then_remembered_for_a_while() {
        let mut known = broker_versions(&[]);
        assert_eq!(known.handshake(Time(0), "b:1"), Handshake::Ask);
        known.handle_failure("b:1", &closed());
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise);
        assert_eq!(known.handshake(Time(1), "b:2"), Handshake::Ask);

        known.handle_ready(Time(1), "b:1", Origin::Recognised);
        let until = Time(1) + Duration::from_secs(1200);
        let just_before = Time(until.0 - 1);
        assert_eq!(known.handshake(just_before, "b:1"), Handshake::Recognise);
        // Another connection does not make it longer.
        known.handle_ready(just_before, "b:1", Origin::Recognised);
        assert_eq!(known.handshake(until, "b:1"), Handshake::Ask);
    }

    #[test]
    fn a_modern_broker_that_closed_while_it_restarted_is_asked_again() {
        let mut known = broker_versions(&[]);
        known.handle_failure("b:1", &closed());
        known.handle_failure("b:1", &NetError::NotOld);
        assert_eq!(known.handshake(Time(2), "b:1"), Handshake::Ask);
        known.handle_ready(Time(3), "b:1", Origin::Told);
        assert_eq!(known.handshake(Time(4), "b:1"), Handshake::AskAlone);
        // It restarts again.
        known.handle_failure("b:1", &closed());
        assert_eq!(known.handshake(Time(5), "b:1"), Handshake::Ask);
    }

    #[test]
    fn an_old_broker_that_was_upgraded_is_asked_with_its_second_connection() {
        let mut known = broker_versions(&[]);
        known.handle_ready(Time(0), "b:1", Origin::Recognised);
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise);
        known.handle_failure("b:1", &NetError::NotOld);
        assert_eq!(known.handshake(Time(2), "b:1"), Handshake::Ask);
    }

    #[test]
    fn a_broker_that_is_down_stays_what_it_was() {
        let mut known = broker_versions(&[]);
        let refused = NetError::Connect {
            address: crate::config::HostPort { host: "b".into(), port: 1 },
            peer: "127.0.0.1:1".parse().unwrap(),
            source: std::io::ErrorKind::ConnectionRefused.into(),
        };
        known.handle_ready(Time(0), "b:1", Origin::Recognised);
        known.handle_ready(Time(0), "b:2", Origin::Told);
        known.handle_failure("b:1", &refused);
        known.handle_failure("b:2", &refused);
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise);
        assert_eq!(known.handshake(Time(1), "b:2"), Handshake::AskAlone);
    }

    #[test]
    fn a_broker_that_told_its_versions_and_then_closed_is_asked_for_them_alone() {
        let mut known = broker_versions(&[]);
        known.handle_failure("b:1", &NetError::ClosedOnMetadata);
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::AskAlone);
        known.handle_failure(
            "b:1",
            &NetError::SetupTimeout { what: "the answer", limit: Duration::ZERO },
        );
        assert_eq!(known.handshake(Time(2), "b:1"), Handshake::Ask);
    }

    #[test]
    fn without_api_version_request_the_fallback_is_used_at_once() {
        let mut known = broker_versions(&[
            ("api_version_request", Value::Bool(false)),
            ("broker_version_fallback", Value::Text(b"0.10.0".to_vec())),
        ]);
        let assumed = Handshake::Assume(Versions {
            produce: 2,
            metadata: 1,
            init_producer_id: None,
            sasl_authenticate: None,
        });
        assert_eq!(known.handshake(Time(0), "b:1"), assumed);
        known.handle_failure("b:1", &closed());
        known.handle_ready(Time(1), "b:2", Origin::Assumed);
        assert_eq!(known.handshake(HOUR, "b:1"), assumed);
        assert_eq!(known.handshake(HOUR, "b:2"), assumed);
    }

    #[test]
    fn without_memory_an_old_broker_is_asked_each_time() {
        let mut known = broker_versions(&[("api_version_fallback_ms", Value::Int(0))]);
        known.handle_failure("b:1", &closed());
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise);
        known.handle_ready(Time(1), "b:1", Origin::Recognised);
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Ask);
        // It closes again, and must be tried as 0.8 again.
        known.handle_failure("b:1", &closed());
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut known = broker_versions(&[]);
        for port in 0..10_000 {
            known.handle_ready(Time(0), &format!("b:{port}"), Origin::Told);
        }
        assert!(known.known.len() <= REMEMBERED);
        assert_eq!(known.handshake(Time(0), "b:9999"), Handshake::AskAlone);
    }
}
