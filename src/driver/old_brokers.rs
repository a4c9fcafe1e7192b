//! What is remembered of addresses, so that brokers before Kafka 0.10 are found out quickly and no
//! other is ever taken for one.
//!
//! ```text
//! nothing known ---- told its versions ---> tells
//!       |   '------- silent as 0.9 -------> old <-- recognised --.
//!       '----------- closed --------------> closes --------------'
//!
//! tells, old, closes -- anything unexpected, or old for long enough --> nothing known
//! ```
//! Anything may close a connection: a TLS listener, a load balancer, a broker that is starting. So what
//! closes is not old by that; it is tried once with a request that only 0.8 and 0.9 answer, and so is an
//! old broker each time, since it may have been upgraded.

use crate::config::Config;
use crate::net::{Handshake, NetError, Source};
use crate::producer::Time;
use crate::protocol::api_versions::Versions;
use crate::protocol::release::Release;
use std::collections::HashMap;
use std::time::Duration;

/// Addresses that are remembered. A cluster has fewer; where metadata names ever new ones, to forget
/// them all costs each one connection at most.
const REMEMBERED: usize = 1024;

/// The memory.
pub(super) struct OldBrokers {
    asks: bool,
    fallback: Versions,
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
    Old { versions: Versions, until: Time },
}

impl OldBrokers {
    /// With the options that the configuration has for this.
    pub fn new(config: &Config) -> OldBrokers {
        OldBrokers {
            asks: config.api_version_request,
            fallback: config.broker_version_fallback.versions(),
            memory: Duration::from_millis(config.api_version_fallback_ms),
            known: HashMap::new(),
        }
    }

    /// How to begin the next connection to `address`.
    pub fn handshake(&self, now: Time, address: &str) -> Handshake {
        if !self.asks {
            return Handshake::Assume(self.fallback);
        }
        match self.known.get(address) {
            Some(Standing::Tells) => Handshake::AskAlone,
            // 0.9 would have answered. In a higher version 0.8 would append as in v0, and answer as in
            // v0 too: a batch whose answer cannot be read is sent again and again.
            Some(Standing::Closes) => Handshake::Recognise(self.no_higher_than(Release::V0_8)),
            Some(Standing::Old { versions, until }) if *until > now => {
                Handshake::Recognise(*versions)
            }
            _ => Handshake::Ask(self.no_higher_than(Release::V0_9)),
        }
    }

    /// A connection to `address` is ready.
    pub fn handle_ready(&mut self, now: Time, address: &str, versions: Versions, source: Source) {
        let standing = match (source, self.known.get(address)) {
            (Source::Assumed, _) => return,
            (Source::Told, _) => Standing::Tells,
            // The time runs from the first connection, so that in the end it is asked again.
            (Source::Recognised, Some(Standing::Old { until, .. })) if *until > now => return,
            (Source::Recognised, _) => Standing::Old { versions, until: now + self.memory },
        };
        self.remember(address, standing);
    }

    /// A connection to `address` ended before it was ready.
    pub fn handle_failure(&mut self, address: &str, error: &NetError) {
        match (error, self.known.get(address)) {
            // Nobody was there to show anything.
            (NetError::Resolve { .. } | NetError::Connect { .. }, _) => {}
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

    fn no_higher_than(&self, release: Release) -> Versions {
        self.fallback.at_most(release.versions())
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

    const V0_8: Versions = Versions { produce: 0, metadata: 0 };
    const V0_9: Versions = Versions { produce: 1, metadata: 0 };
    const MODERN: Versions = Versions { produce: 13, metadata: 13 };
    const HOUR: Time = Time(3_600_000_000);

    fn old_brokers(entries: &[(&str, Value)]) -> OldBrokers {
        let broker = ("metadata_broker_list", Value::Text(b"b:1".to_vec()));
        let entries = entries.iter().cloned().chain([broker]);
        let entries: Vec<_> = entries.map(|(key, value)| (key.to_owned(), value)).collect();
        OldBrokers::new(&Config::parse(&entries, "/prefix").unwrap())
    }

    fn closed() -> NetError {
        NetError::ClosedInHandshake
    }

    #[test]
    fn a_broker_that_closes_is_tried_as_0_8_and_then_remembered_for_a_while() {
        let mut known = old_brokers(&[]);
        assert_eq!(known.handshake(Time(0), "b:1"), Handshake::Ask(V0_9));
        known.handle_failure("b:1", &closed());
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise(V0_8));
        assert_eq!(known.handshake(Time(1), "b:2"), Handshake::Ask(V0_9));

        known.handle_ready(Time(1), "b:1", V0_8, Source::Recognised);
        let until = Time(1) + Duration::from_secs(1200);
        let just_before = Time(until.0 - 1);
        assert_eq!(known.handshake(just_before, "b:1"), Handshake::Recognise(V0_8));
        // Another connection does not make it longer.
        known.handle_ready(just_before, "b:1", V0_8, Source::Recognised);
        assert_eq!(known.handshake(until, "b:1"), Handshake::Ask(V0_9));
    }

    #[test]
    fn a_modern_broker_that_closed_while_it_restarted_is_asked_again() {
        let mut known = old_brokers(&[]);
        known.handle_failure("b:1", &closed());
        known.handle_failure("b:1", &NetError::NotOld);
        assert_eq!(known.handshake(Time(2), "b:1"), Handshake::Ask(V0_9));
        known.handle_ready(Time(3), "b:1", MODERN, Source::Told);
        assert_eq!(known.handshake(Time(4), "b:1"), Handshake::AskAlone);
        // It restarts again.
        known.handle_failure("b:1", &closed());
        assert_eq!(known.handshake(Time(5), "b:1"), Handshake::Ask(V0_9));
    }

    #[test]
    fn an_old_broker_that_was_upgraded_is_asked_with_its_second_connection() {
        let mut known = old_brokers(&[]);
        known.handle_ready(Time(0), "b:1", V0_9, Source::Recognised);
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise(V0_9));
        known.handle_failure("b:1", &NetError::NotOld);
        assert_eq!(known.handshake(Time(2), "b:1"), Handshake::Ask(V0_9));
    }

    #[test]
    fn a_broker_that_is_down_stays_what_it_was() {
        let mut known = old_brokers(&[]);
        let refused = NetError::Connect {
            address: crate::config::HostPort { host: "b".into(), port: 1 },
            peer: "127.0.0.1:1".parse().unwrap(),
            source: std::io::ErrorKind::ConnectionRefused.into(),
        };
        known.handle_ready(Time(0), "b:1", V0_8, Source::Recognised);
        known.handle_ready(Time(0), "b:2", MODERN, Source::Told);
        known.handle_failure("b:1", &refused);
        known.handle_failure("b:2", &refused);
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise(V0_8));
        assert_eq!(known.handshake(Time(1), "b:2"), Handshake::AskAlone);
    }

    #[test]
    fn a_broker_that_told_its_versions_and_then_closed_is_asked_for_them_alone() {
        let mut known = old_brokers(&[]);
        known.handle_failure("b:1", &NetError::ClosedOnMetadata);
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::AskAlone);
        known.handle_failure(
            "b:1",
            &NetError::SetupTimeout { what: "the answer", limit: Duration::ZERO },
        );
        assert_eq!(known.handshake(Time(2), "b:1"), Handshake::Ask(V0_9));
    }

    #[test]
    fn a_fallback_below_what_was_recognised_is_kept_to_and_one_above_is_not() {
        for (fallback, of_0_9) in [("0.8.2", V0_8), ("0.9.0.1", V0_9), ("0.11.0", V0_9)] {
            let fallback = Value::Text(fallback.into());
            let mut known = old_brokers(&[("broker_version_fallback", fallback)]);
            assert_eq!(known.handshake(Time(0), "b:1"), Handshake::Ask(of_0_9));
            known.handle_failure("b:1", &closed());
            assert_eq!(known.handshake(Time(0), "b:1"), Handshake::Recognise(V0_8));
        }
    }

    #[test]
    fn without_api_version_request_the_fallback_is_used_at_once() {
        let mut known = old_brokers(&[
            ("api_version_request", Value::Bool(false)),
            ("broker_version_fallback", Value::Text(b"0.10.0".to_vec())),
        ]);
        let assumed = Handshake::Assume(Versions { produce: 2, metadata: 1 });
        assert_eq!(known.handshake(Time(0), "b:1"), assumed);
        known.handle_failure("b:1", &closed());
        assert_eq!(known.handshake(HOUR, "b:1"), assumed);
    }

    #[test]
    fn without_memory_an_old_broker_is_asked_each_time() {
        let mut known = old_brokers(&[("api_version_fallback_ms", Value::Int(0))]);
        known.handle_failure("b:1", &closed());
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise(V0_8));
        known.handle_ready(Time(1), "b:1", V0_8, Source::Recognised);
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Ask(V0_9));
        // It closes again, and must be tried as 0.8 again.
        known.handle_failure("b:1", &closed());
        assert_eq!(known.handshake(Time(1), "b:1"), Handshake::Recognise(V0_8));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut known = old_brokers(&[]);
        for port in 0..10_000 {
            known.handle_ready(Time(0), &format!("b:{port}"), MODERN, Source::Told);
        }
        assert!(known.known.len() <= REMEMBERED);
        assert_eq!(known.handshake(Time(0), "b:9999"), Handshake::AskAlone);
    }
}
