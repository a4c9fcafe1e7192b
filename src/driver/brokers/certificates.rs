//! What an operator is to know of TLS in time: options that make it unsafe, and certificates that end soon.

use super::super::context::{Context, wall_ms};
use super::super::lua::log::Level;
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
        let Some((whose, end)) = self.tls.first_end() else { return };
        let left = end - wall_ms() / 1000;
        stats::set(&cx.shared.stats.certificate_expires_s, left.max(0) as u64);
        if left >= SOON || cx.now < self.say_at {
            return;
        }
        self.say_at = cx.now + SAY_EVERY;
        let text = format_args!("{whose} {}: renew it", told(left));
        cx.log(Level::Warn, "certificate", &whose, text);
    }

    fn tell_what_is_unsafe(&self, cx: &Context<'_>) {
        let settings = self.tls.settings();
        if !settings.verifies {
            let text = "enable_ssl_certificate_verification is false: whoever is between here and the brokers can read \
                        and change all messages, and take passwords";
            cx.log(Level::Warn, "unsafe", "verification", text);
        } else if !settings.identifies {
            let text = "ssl_endpoint_identification_algorithm is none: whoever has any certificate of a trusted \
                        authority can pose as a broker";
            cx.log(Level::Warn, "unsafe", "identification", text);
        }
    }
}

fn told(left: i64) -> String {
    match left {
        ..=0 => "has expired".to_owned(),
        1..172_800 => format!("expires in {} hours", left / 3600),
        _ => format!("expires in {} days", left / 86_400),
    }
}
