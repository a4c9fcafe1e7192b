//! Reports of brokers and connections.

use super::{NO_SUBJECT, Report};
use crate::config::HostPort;
use crate::net::{NetError, Origin};
use crate::producer::CloseReason;
use crate::protocol::compression::Codec;
use crate::report_kind::ReportKind;
use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::time::Duration;

/// What is known of a new connection.
pub(in crate::driver) struct Greeting {
    pub peer: SocketAddr,
    pub has_tls: bool,
    /// Version of Produce, and how it came to be known.
    pub produce: i16,
    pub origin: Origin,
    /// Mechanism and name of the user, where connections authenticate.
    pub user: Option<(&'static str, String)>,
}

pub(in crate::driver) enum BrokerReport<'a> {
    Connected {
        address: &'a str,
        greeting: Greeting,
    },
    /// A connection could not be made, or broke.
    Failed {
        address: &'a str,
        error: &'a NetError,
    },
    /// The producer has as many connections as it may have.
    NoConnectionLeft {
        most: usize,
    },
    /// The producer closed a connection.
    Closed {
        address: &'a str,
        reason: CloseReason,
    },
    LeftAlone {
        address: &'a HostPort,
        attempts: u32,
        pause: Duration,
    },
    /// A broker does not take the codec that is wanted; the one that is used instead, if there is one.
    CodecPassedOver {
        address: &'a str,
        produce: i16,
        wanted: Codec,
        used: Option<Codec>,
    },
    /// A broker is too old for headers.
    HeadersLeftOut {
        address: &'a str,
    },
    /// A certificate ends in so many seconds.
    CertificateExpires {
        whose: &'a str,
        left: i64,
    },
    /// Files of certificates have changed, and cannot be read.
    CertificatesNotRead {
        why: &'a str,
    },
    TlsUnsafe(Unsafe),
    Throttled {
        address: &'a HostPort,
        pause: Duration,
    },
    /// A broker closes connections on requests of this size.
    HungUp {
        topic: &'a str,
        address: &'a HostPort,
        bytes: usize,
    },
}

/// What the options of TLS leave out.
#[derive(Clone, Copy)]
pub(in crate::driver) enum Unsafe {
    /// Certificates are not checked.
    Verification,
    /// The names in certificates are not checked.
    Identification,
}

impl Report for BrokerReport<'_> {
    fn kind(&self) -> ReportKind {
        match self {
            Self::Connected { .. } => ReportKind::BrokerConnected,
            Self::Failed { error: NetError::TooMany { .. }, .. }
            | Self::NoConnectionLeft { .. } => ReportKind::TooManyConnections,
            Self::Failed { .. } => ReportKind::ConnectionFailed,
            Self::Closed { reason: CloseReason::NotNeeded, .. } => ReportKind::ConnectionNotNeeded,
            Self::Closed { reason: CloseReason::RequestTimeout, .. } => ReportKind::RequestTimeout,
            Self::LeftAlone { .. } => ReportKind::BrokerLeftAlone,
            Self::CodecPassedOver { .. } => ReportKind::CodecPassedOver,
            Self::HeadersLeftOut { .. } => ReportKind::HeadersLeftOut,
            Self::CertificateExpires { .. } => ReportKind::CertificateExpires,
            Self::CertificatesNotRead { .. } => ReportKind::CertificatesNotRead,
            Self::TlsUnsafe(_) => ReportKind::TlsUnsafe,
            Self::Throttled { .. } => ReportKind::Throttled,
            Self::HungUp { .. } => ReportKind::RequestTooLarge,
        }
    }

    fn subject(&self) -> Cow<'_, str> {
        match self {
            // That there may be no more connections is one thing to say, however many brokers it concerns.
            Self::Failed { error: NetError::TooMany { .. }, .. }
            | Self::NoConnectionLeft { .. }
            | Self::CertificatesNotRead { .. }
            | Self::CodecPassedOver { .. } => NO_SUBJECT,
            Self::CertificateExpires { whose, .. } => (*whose).into(),
            Self::TlsUnsafe(what) => what.option().into(),
            Self::Connected { address, .. }
            | Self::Failed { address, .. }
            | Self::HeadersLeftOut { address }
            | Self::Closed { address, .. } => (*address).into(),
            Self::LeftAlone { address, .. } | Self::Throttled { address, .. } => {
                address.to_string().into()
            }
            Self::HungUp { topic, .. } => (*topic).into(),
        }
    }
}

impl Display for BrokerReport<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { address, greeting } => {
                write!(f, "broker {address} connected ({greeting})")
            }
            Self::Failed { address, error } => write!(f, "broker {address}: {error}"),
            Self::NoConnectionLeft { most } => write!(
                f,
                "all {most} connections to brokers that this producer may have are in use, and more brokers wait for \
                 one: a worker has an eighth of its descriptors for that (raise worker_rlimit_nofile), 256 at most, \
                 and keeps some for its other producers"
            ),
            Self::Closed { address, reason } => {
                write!(f, "broker {address}: {reason}, connection closed")
            }
            Self::LeftAlone { address, attempts, pause } => write!(
                f,
                "broker {address}: {attempts} attempts to connect failed in a row, and none is made for {} s now \
                 (conn_retry_limit, conn_retry_timeout)",
                pause.as_secs()
            ),
            Self::CodecPassedOver { address, produce, wanted, used } => {
                let codec = wanted.name();
                write!(
                    f,
                    "broker {address} does not take {codec} (Produce v{produce}; it needs Kafka 2.1): batches for it, and \
                     for others like it, are "
                )?;
                match used {
                    Some(used) => write!(f, "compressed with {}", used.name())?,
                    None => f.write_str("not compressed")?,
                }
                f.write_str(" (compression_codec)")
            }
            Self::HeadersLeftOut { address } => write!(
                f,
                "broker {address} is older than Kafka 0.11, which knows no headers: messages are sent to it without \
                 theirs, and counted in headers_left_out_cnt"
            ),
            Self::CertificateExpires { whose, left: ..=0 } => {
                write!(f, "{whose} has expired: renew it")
            }
            Self::CertificateExpires { whose, left: left @ ..172_800 } => {
                write!(f, "{whose} expires in {} hours: renew it", left / 3_600)
            }
            Self::CertificateExpires { whose, left } => {
                write!(f, "{whose} expires in {} days: renew it", left / 86_400)
            }
            Self::CertificatesNotRead { why } => {
                write!(f, "{why}; what was read before is used until that is mended")
            }
            Self::TlsUnsafe(Unsafe::Verification) => f.write_str(
                "enable_ssl_certificate_verification is false: whoever is between here and the brokers can read and \
                 change all messages, and take passwords",
            ),
            Self::TlsUnsafe(Unsafe::Identification) => f.write_str(
                "ssl_endpoint_identification_algorithm is none: whoever has any certificate of a trusted authority can \
                 pose as a broker",
            ),
            Self::Throttled { address, pause } => write!(
                f,
                "broker {address} throttles this client for {} ms, since its quota is used up: messages wait; \
                 raise producer_byte_rate or request_percentage for it in Kafka, or log less",
                pause.as_millis()
            ),
            Self::HungUp { topic, address, bytes } => write!(
                f,
                "topic {topic}: broker {address} closes the connection on requests of some {bytes} bytes instead of \
                 answering them: they are larger than its socket.request.max.bytes, or a proxy's limit. Smaller ones \
                 are sent from now on; raise that, or lower batch_size"
            ),
        }
    }
}

impl Unsafe {
    /// The key that it comes from.
    fn option(self) -> &'static str {
        match self {
            Self::Verification => "enable_ssl_certificate_verification",
            Self::Identification => "ssl_endpoint_identification_algorithm",
        }
    }
}

impl Display for Greeting {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tls = if self.has_tls { " by TLS" } else { "" };
        write!(f, "{}{tls}, Produce v{}{}", self.peer, self.produce, self.origin)?;
        match &self.user {
            Some((mechanism, name)) => write!(f, ", {mechanism} as {name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_no_connection_is_left_is_one_thing_to_say_however_many_brokers_it_concerns() {
        let error = NetError::TooMany { most: 9 };
        let failed = BrokerReport::Failed { address: "b1:9092", error: &error };
        let waits = BrokerReport::NoConnectionLeft { most: 9 };
        let said = |report: &BrokerReport<'_>| (report.kind(), report.subject().into_owned());
        assert_eq!(said(&failed), said(&waits));
        let closed = BrokerReport::Failed { address: "b1:9092", error: &NetError::Closed };
        assert_eq!(said(&closed), (ReportKind::ConnectionFailed, "b1:9092".to_owned()));
    }

    #[test]
    fn a_greeting_names_whom_a_connection_is_authenticated_as() {
        let mut greeting = Greeting {
            has_tls: false,
            peer: SocketAddr::from(([127, 0, 0, 1], 9092)),
            produce: 0,
            origin: Origin::Assumed,
            user: None,
        };
        assert_eq!(greeting.to_string(), "127.0.0.1:9092, Produce v0, not asked");
        greeting.user = Some(("PLAIN", "nginx".to_owned()));
        assert!(greeting.to_string().ends_with(", not asked, PLAIN as nginx"));
    }
}
