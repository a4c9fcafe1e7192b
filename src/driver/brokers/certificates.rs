//! What an operator is to know of TLS in time: options that make it unsafe, and certificates that end soon.

use super::super::context::{Context, wall_ms};
use super::super::report::brokers::{BrokerReport, Unsafe};
use crate::net::Tls;
use crate::producer::Time;
use crate::stats;
use std::sync::Arc;
use std::time::Duration;

/// How often certificates are looked at, and how often it is said that one ends soon.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const SAY_EVERY: Duration = Duration::from_secs(3600);

/// From so long before a certificate's end on it is said.
const SOON: i64 = 14 * 86_400;

/// Looks after one producer's certificates.
pub(super) struct Certificates {
    tls: Arc<Tls>,
    look_at: Time,
    say_at: Time,
    said_what_is_unsafe: bool,
}

impl Certificates {
    pub fn new(tls: Arc<Tls>) -> Certificates {
        Certificates { tls, look_at: Time(0), say_at: Time(0), said_what_is_unsafe: false }
    }

    /// A connection is there: its certificates are looked at soon.
    pub fn handle_ready(&mut self, now: Time) {
        self.look_at = now;
    }

    pub fn turn(&mut self, cx: &Context<'_>) {
        if cx.now < self.look_at {
            return;
        }
        self.look_at = cx.now + LOOK_EVERY;
        if !std::mem::replace(&mut self.said_what_is_unsafe, true) {
            self.tell_what_is_unsafe(cx);
        }
        if let Some(why) = self.tls.take_stale() {
            cx.shared.report(&BrokerReport::CertificatesNotRead { why: &why });
        }
        let Some((whose, end)) = self.tls.first_end() else { return };
        let left = end - wall_ms() / 1000;
        stats::set(&cx.shared.stats.certificate_expires_s, left.max(0) as u64);
        if left >= SOON || cx.now < self.say_at {
            return;
        }
        self.say_at = cx.now + SAY_EVERY;
        cx.shared.report(&BrokerReport::CertificateExpires { whose: &whose, left });
    }

    fn tell_what_is_unsafe(&self, cx: &Context<'_>) {
        let settings = self.tls.settings();
        if !settings.verifies {
            cx.shared.report(&BrokerReport::TlsUnsafe(Unsafe::Verification));
        } else if !settings.identifies {
            cx.shared.report(&BrokerReport::TlsUnsafe(Unsafe::Identification));
        }
    }
}
