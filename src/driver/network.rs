//! The driver's side of the network: connections opened and closed as the producer asks, requests encoded and
//! sent, answers handed back.

use super::{Level, Run, encode};
use crate::crash_points::crash_point;
use crate::net::{self, Event, NetError};
use crate::producer::{Action, CloseReason, ConnId, RequestId, Time};
use crate::protocol::api_versions::Versions;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::init_producer_id::InitProducerIdResponse;
use crate::stats;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::AbortHandle;

/// A connection as the driver sees it.
pub(super) struct Connection {
    outgoing: UnboundedSender<net::Outgoing>,
    task: AbortHandle,
    address: String,
    versions: Option<Versions>,
    next_correlation_id: i32,
}

impl Run<'_> {
    pub(super) fn act(&mut self, now: Time, action: Action) {
        match action {
            Action::Connect { conn, address, .. } => {
                let (outgoing, from_us) = mpsc::unbounded_channel();
                let settings = net::Settings {
                    address: address.clone(),
                    client_id: self.config.client_id.clone(),
                    setup_timeout: Duration::from_millis(
                        self.config.socket_connection_setup_timeout_ms,
                    ),
                    keepalive: self.config.socket_keepalive_enable,
                    frames: self.frames.clone(),
                    handshake: self.old_brokers.handshake(now, &address.to_string()),
                    authenticator: self.authenticator.clone(),
                    large_answers: self.large_answers.clone(),
                };
                let events = self.events_in.clone();
                let task = tokio::spawn(net::run(conn.0, settings, from_us, events));
                let connection = Connection {
                    outgoing,
                    task: task.abort_handle(),
                    address: address.to_string(),
                    versions: None,
                    next_correlation_id: net::handshake::FIRST_CORRELATION_ID,
                };
                self.connections.insert(conn, connection);
            }
            Action::Close { conn, reason } => {
                if let Some(connection) = self.connections.remove(&conn) {
                    connection.task.abort();
                    let level = match reason {
                        CloseReason::NotNeeded => Level::Info,
                        CloseReason::RequestTimeout => Level::Warn,
                    };
                    let address = connection.address;
                    let text = format_args!("broker {address}: {reason}, connection closed");
                    let kind = match reason {
                        CloseReason::NotNeeded => "not needed",
                        CloseReason::RequestTimeout => "request timeout",
                    };
                    self.shared.lines.put(now, level, kind, &address, text);
                }
            }
            Action::Metadata { conn, request } => self.send_metadata(conn, request),
            Action::InitProducerId { conn, request } => {
                self.send_init_producer_id(now, conn, request);
            }
            Action::Produce { conn, request } => self.send_produce(conn, request),
        }
    }

    fn send_metadata(&mut self, conn: ConnId, request: RequestId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let topics = self.producer.asked_topics();
        connection.send(request, |correlation_id, versions| {
            encode::metadata(self.config, versions, correlation_id, &topics)
        });
    }

    fn send_init_producer_id(&mut self, now: Time, conn: ConnId, request: RequestId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let offered = connection.versions.and_then(|versions| versions.init_producer_id);
        let Some(version) = offered else {
            let response = InitProducerIdResponse {
                throttle_ms: 0,
                error: ErrorCode::UNSUPPORTED_VERSION,
                producer_id: -1,
                epoch: -1,
            };
            return self.producer.handle_producer_id(now, conn, request, &response);
        };
        connection.send(request, |correlation_id, _| {
            encode::init_producer_id(self.config, version, correlation_id)
        });
    }

    fn send_produce(&mut self, conn: ConnId, request: RequestId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        // On record before it is sent, so that whoever finds the file repeats what the broker knows.
        for sent in self.producer.request(conn, request) {
            let Some(stamp) = sent.batch.stamp else { continue };
            let ids = sent.batch.records.iter().map(|record| record.id);
            if let Err(error) = self.sources.stamp(sent.partition, stamp, ids) {
                // It is not sent: the time limit of the request ends it, and it is tried again.
                let text = format_args!(
                    "{error}: there is no more memory where queue_path lies; sending waits"
                );
                self.shared.lines.put(self.shared.now(), Level::Error, "stamp", "", text);
                return;
            }
            crash_point("batch stamped");
        }
        let (config, producer, sources) = (self.config, &self.producer, &self.sources);
        let (frames, sent) = (&self.frames, producer.request(conn, request));
        let bytes = connection.send(request, |correlation_id, versions| {
            encode::produce(config, versions, correlation_id, producer, sources, frames, sent)
        });
        crash_point("batch sent");
        stats::add(&self.shared.stats.request_bytes_sent, bytes as u64);
    }

    pub(super) fn handle_event(&mut self, event: Event) {
        let now = self.shared.now();
        match event {
            Event::Ready { conn, versions, origin, peer } => {
                let conn = ConnId(conn);
                let Some(connection) = self.connections.get_mut(&conn) else { return };
                connection.versions = Some(versions);
                stats::add(&self.shared.stats.connections_opened, 1);
                let address = &connection.address;
                self.old_brokers.handle_ready(now, address, origin);
                let as_whom = self.authenticator.as_ref().map(|authenticator| {
                    let credentials = authenticator.credentials();
                    format!(", {} as {}", credentials.mechanism.name(), credentials.username)
                });
                let text = format_args!(
                    "broker {address} connected ({peer}, Produce v{}{origin}{})",
                    versions.produce,
                    as_whom.unwrap_or_default(),
                );
                self.shared.lines.put(now, Level::Notice, "connected", address, text);
                self.producer.handle_connected(now, conn);
            }
            Event::Written { conn, request } => {
                self.producer.handle_written(now, ConnId(conn), RequestId(request));
            }
            Event::Produced { conn, request, response, .. } => {
                self.tell_errors(now, &response);
                self.producer.handle_produced(now, ConnId(conn), RequestId(request), &response);
            }
            Event::Metadata { conn, request, response, .. } => {
                let (conn, request) = (ConnId(conn), RequestId(request));
                self.producer.handle_metadata(now, conn, request, &response);
                if self.config.partitioner.0 {
                    self.publish_partition_counts();
                }
            }
            Event::ProducerId { conn, request, response } => {
                let (conn, request) = (ConnId(conn), RequestId(request));
                self.producer.handle_producer_id(now, conn, request, &response);
            }
            Event::Closed { conn, error } => {
                let conn = ConnId(conn);
                let Some(connection) = self.connections.remove(&conn) else { return };
                let address = &connection.address;
                if connection.versions.is_none() {
                    self.old_brokers.handle_failure(address, &error);
                }
                let text = format_args!("broker {address}: {error}");
                self.shared.lines.put(now, Level::Warn, "closed", address, text);
                if matches!(&error, NetError::Sasl(error) if error.is_refusal()) {
                    self.producer.handle_refused(now, conn);
                } else {
                    self.producer.handle_closed(now, conn);
                }
            }
        }
    }
}

impl Connection {
    /// Ends its task at once.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Encodes a request and hands it to the connection; returns its size. What happens to it there, the
    /// connection's end included, comes back as an event.
    fn send(
        &mut self,
        request: RequestId,
        encode: impl FnOnce(i32, Versions) -> (Vec<u8>, Option<net::Expected>),
    ) -> usize {
        let Some(versions) = self.versions else { return 0 };
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = match correlation_id.checked_add(1) {
            Some(next) => next,
            None => net::handshake::FIRST_CORRELATION_ID,
        };
        let (frame, answer) = encode(correlation_id, versions);
        let bytes = frame.len();
        let _ = self.outgoing.send(net::Outgoing { frame, request: request.0, answer });
        bytes
    }
}
