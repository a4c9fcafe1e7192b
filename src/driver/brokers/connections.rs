//! The connections of one producer: opened and closed as the producer asks, requests encoded and sent, answers handed
//! back. What happens on a connection comes back as an event, its end included.

use super::super::context::Context;
use super::super::lookup::Records;
use super::super::notices;
use super::super::records::queues::Queues;
use super::super::report::brokers::{BrokerReport, Greeting};
use super::super::report::queue::QueueReport;
use super::super::undelivered::replay::Replay;
use super::certificates::Certificates;
use super::compression::Compression;
use super::encode;
use super::versions::BrokerVersions;
use crate::config::{Config, HostPort};
use crate::crash_points::crash_point;
use crate::net::frame_pool::FramePool;
use crate::net::{
    self, AnswerRoom, Authenticator, ConnectionPermits, Event, NetError, Resolver, Tls,
};
use crate::producer::{Action, CloseReason, ConnId, Producer, RequestId};
use crate::protocol::api_versions::Versions;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::init_producer_id::InitProducerIdResponse;
use crate::stats;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::AbortHandle;

/// Events handled in one turn.
const EVENTS_A_TURN: usize = 256;

/// All connections, and what they share.
pub(in crate::driver) struct Connections<'a> {
    config: &'a Config,
    open: HashMap<ConnId, Connection>,
    frames: FramePool,
    compression: Compression,
    room: Arc<AnswerRoom>,
    permits: ConnectionPermits,
    resolver: Resolver,
    tls: Option<Arc<Tls>>,
    certificates: Option<Certificates>,
    authenticator: Option<Arc<Authenticator>>,
    versions: BrokerVersions,
    events_in: UnboundedSender<Event>,
    events: UnboundedReceiver<Event>,
    /// Metadata came since it was last asked for.
    fresh_metadata: bool,
}

/// A connection as the driver sees it. Its task ends with it.
struct Connection {
    outgoing: UnboundedSender<net::Outgoing>,
    task: AbortHandle,
    address: String,
    versions: Option<Versions>,
    /// What the log is to say of it once it has answered a request: what only tells its versions may refuse all else.
    greeting: Option<Greeting>,
    next_correlation_id: i32,
}

impl<'a> Connections<'a> {
    pub fn new(config: &'a Config) -> Connections<'a> {
        let (events_in, events) = mpsc::unbounded_channel();
        let tls = config.security.tls().map(Tls::new).map(Arc::new);
        Connections {
            config,
            open: HashMap::new(),
            frames: FramePool::default(),
            compression: Compression::new(config),
            room: Arc::default(),
            permits: ConnectionPermits::of_this_process(),
            resolver: Resolver::default(),
            certificates: tls.clone().map(Certificates::new),
            tls,
            authenticator: config.security.credentials().map(Authenticator::new).map(Arc::new),
            versions: BrokerVersions::new(config),
            events_in,
            events,
            fresh_metadata: false,
        }
    }

    /// The most that there may be at a time.
    pub fn most(&self) -> usize {
        self.permits.most_of_one()
    }

    /// Waits for an event, for [`handle`](Self::handle).
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Handles what has happened, up to a bound; true when there is more.
    pub fn turn(&mut self, cx: &Context<'_>, producer: &mut Producer) -> bool {
        if let Some(certificates) = &mut self.certificates {
            certificates.turn(cx);
        }
        for _ in 0..EVENTS_A_TURN {
            let Ok(event) = self.events.try_recv() else { return false };
            self.handle(cx, producer, event);
        }
        true
    }

    /// True once after metadata came.
    pub fn take_fresh_metadata(&mut self) -> bool {
        std::mem::take(&mut self.fresh_metadata)
    }

    pub fn handle(&mut self, cx: &Context<'_>, producer: &mut Producer, event: Event) {
        let now = cx.now;
        match event {
            Event::Ready { conn, versions, origin, peer } => {
                let conn = ConnId(conn);
                let Some(connection) = self.open.get_mut(&conn) else { return };
                connection.versions = Some(versions);
                let address = &connection.address;
                self.versions.handle_ready(now, address, origin);
                let user = self.authenticator.as_ref().map(|authenticator| {
                    let credentials = authenticator.credentials();
                    (credentials.mechanism.name(), credentials.username.clone())
                });
                let has_tls = self.tls.is_some();
                connection.greeting =
                    Some(Greeting { peer, has_tls, produce: versions.produce, origin, user });
                self.compression.tell(cx, address, versions.produce);
                if let Some(certificates) = &mut self.certificates {
                    certificates.handle_ready(now);
                }
                stats::add(&cx.shared.stats.connections_opened, 1);
                producer.handle_connected(now, conn);
            }
            Event::Written { conn, request } => {
                self.tell_connected(cx, ConnId(conn));
                producer.handle_written(now, ConnId(conn), RequestId(request));
            }
            Event::Produced { conn, request, response, .. } => {
                self.tell_connected(cx, ConnId(conn));
                notices::tell_errors(cx, producer, &response);
                producer.handle_produced(now, ConnId(conn), RequestId(request), &response);
            }
            Event::Metadata { conn, request, response, .. } => {
                self.tell_connected(cx, ConnId(conn));
                producer.handle_metadata(now, ConnId(conn), RequestId(request), &response);
                self.fresh_metadata = true;
            }
            Event::ProducerId { conn, request, response } => {
                self.tell_connected(cx, ConnId(conn));
                producer.handle_producer_id(now, ConnId(conn), RequestId(request), &response);
            }
            Event::Closed { conn, error } => self.handle_closed(cx, producer, ConnId(conn), &error),
        }
    }

    /// Says that a broker is connected, once for each connection.
    fn tell_connected(&mut self, cx: &Context<'_>, conn: ConnId) {
        let Some(connection) = self.open.get_mut(&conn) else { return };
        if let Some(greeting) = connection.greeting.take() {
            cx.report(&BrokerReport::Connected { address: &connection.address, greeting });
        }
    }

    fn handle_closed(
        &mut self,
        cx: &Context<'_>,
        producer: &mut Producer,
        conn: ConnId,
        error: &NetError,
    ) {
        let Some(connection) = self.open.remove(&conn) else { return };
        let address = &connection.address;
        if let Some(tls) = &self.tls {
            tls.forget(conn.0);
        }
        if connection.versions.is_none() {
            self.versions.handle_failure(address, error);
        }
        let error = match error {
            NetError::Closed if connection.greeting.is_some() && self.authenticator.is_none() => {
                &NetError::ClosedUnanswered
            }
            error => error,
        };
        cx.report(&BrokerReport::Failed { address, error });
        match error {
            NetError::TooMany { .. } => producer.handle_no_room(cx.now, conn),
            NetError::Sasl(error) if error.is_refusal() => producer.handle_refused(cx.now, conn),
            _ => producer.handle_closed(cx.now, conn),
        }
    }

    /// Does what the producer asks for; returns how many bytes were compressed for it.
    pub fn act(
        &mut self,
        cx: &Context<'_>,
        action: Action,
        producer: &mut Producer,
        queues: &mut Queues,
        replay: &Replay,
    ) -> usize {
        match action {
            Action::Connect { conn, address, .. } => self.connect(cx, conn, address),
            Action::Close { conn, reason } => self.close(cx, conn, reason),
            Action::Metadata { conn, request } => self.send_metadata(producer, conn, request),
            Action::InitProducerId { conn, request } => {
                self.send_init_producer_id(cx, producer, conn, request);
            }
            Action::Produce { conn, request } => {
                return self.send_produce(cx, producer, queues, replay, conn, request);
            }
        }
        0
    }

    fn connect(&mut self, cx: &Context<'_>, conn: ConnId, address: HostPort) {
        let (outgoing, from_us) = mpsc::unbounded_channel();
        let name = address.to_string();
        let brokers = &self.config.brokers;
        let settings = net::Settings {
            client_id: brokers.client_id.clone(),
            permits: self.permits.clone(),
            resolver: self.resolver.clone(),
            setup_timeout: brokers.setup_timeout(),
            keepalive: brokers.socket_keepalive_enable,
            frames: self.frames.clone(),
            handshake: self.versions.handshake(cx.now, &name),
            tls: self.tls.clone(),
            authenticator: self.authenticator.clone(),
            room: self.room.clone(),
            address,
        };
        let task = tokio::spawn(net::run(conn.0, settings, from_us, self.events_in.clone()));
        let connection = Connection {
            outgoing,
            task: task.abort_handle(),
            address: name,
            versions: None,
            greeting: None,
            next_correlation_id: net::handshake::FIRST_CORRELATION_ID,
        };
        self.open.insert(conn, connection);
    }

    fn close(&mut self, cx: &Context<'_>, conn: ConnId, reason: CloseReason) {
        let Some(connection) = self.open.remove(&conn) else { return };
        if let Some(tls) = &self.tls {
            tls.forget(conn.0);
        }
        cx.report(&BrokerReport::Closed { address: &connection.address, reason });
    }

    fn send_metadata(&mut self, producer: &Producer, conn: ConnId, request: RequestId) {
        let Some(connection) = self.open.get_mut(&conn) else { return };
        let topics = producer.asked_topics();
        let may_make = producer.may_make_asked_topics();
        connection.send(request, |correlation_id, versions| {
            encode::metadata(self.config, versions, correlation_id, &topics, may_make)
        });
    }

    fn send_init_producer_id(
        &mut self,
        cx: &Context<'_>,
        producer: &mut Producer,
        conn: ConnId,
        request: RequestId,
    ) {
        let Some(connection) = self.open.get_mut(&conn) else { return };
        let offered = connection.versions.and_then(|versions| versions.init_producer_id);
        let Some(version) = offered else {
            let response = InitProducerIdResponse {
                throttle_ms: 0,
                error: ErrorCode::UNSUPPORTED_VERSION,
                producer_id: -1,
                epoch: -1,
            };
            return producer.handle_producer_id(cx.now, conn, request, &response);
        };
        connection.send(request, |correlation_id, _| {
            encode::init_producer_id(self.config, version, correlation_id)
        });
    }

    fn send_produce(
        &mut self,
        cx: &Context<'_>,
        producer: &mut Producer,
        queues: &mut Queues,
        replay: &Replay,
        conn: ConnId,
        request: RequestId,
    ) -> usize {
        let Some(connection) = self.open.get_mut(&conn) else { return 0 };
        let sent = producer.request(conn, request);
        // On record before it is sent, so that whoever finds the file repeats what the broker knows.
        for sent in sent {
            let Some(stamp) = sent.batch.stamp else { continue };
            let ids = sent.batch.records.iter().map(|record| record.id);
            if let Err(error) = queues.stamp(sent.partition, stamp, sent.batch.is_part(), ids) {
                // It is not sent: the time limit of the request ends it, and it is tried again.
                cx.report(&QueueReport::BatchLogFull { error });
                return 0;
            }
            crash_point("batch stamped");
        }
        let plain: usize = sent.iter().map(|sent| sent.batch.bytes).sum();
        let lookup = Records { queues, replay };
        let (config, frames, compression) = (self.config, &self.frames, &mut self.compression);
        let bytes = connection.send(request, |correlation_id, versions| {
            let version = encode::produce_version(versions, sent);
            let encoding = compression.encoding(version);
            let sent = (sent, |bytes| frames.take(bytes));
            encode::produce(config, version, correlation_id, producer, lookup, encoding, sent)
        });
        crash_point("batch sent");
        let sizes = self.compression.take_sizes();
        producer.handle_encoded(cx.shared.now(), conn, request, &sizes);
        let without_headers = self.compression.take_without_headers();
        if without_headers > 0 {
            stats::add(&cx.shared.stats.headers_left_out_cnt, without_headers as u64);
            cx.shared.report(&BrokerReport::HeadersLeftOut { address: &connection.address });
        }
        stats::add(&cx.shared.stats.request_bytes_sent, bytes as u64);
        if sizes.is_empty() { 0 } else { plain }
    }
}

impl Connection {
    /// Encodes a request and hands it to the connection; returns its size.
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

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
