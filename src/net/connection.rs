//! One connection to one broker, from name resolution to its end.
//!
//! Answers come in the order of the requests; each must carry the correlation id that is due, decode to
//! its last byte, and belong to something that was asked. Anything else ends the connection: after one
//! wrong byte nothing on it can be trusted. What ends it is the last [`Event`] it sends.

use super::answer_room::{AnswerRoom, FREE};
use super::frame::FrameBuffer;
use super::frame_pool::FramePool;
use super::handshake::{self, Handshake, Origin};
use super::permits::ConnectionPermits;
use super::sasl::{Authenticator, Lifetime};
use super::stream::{self, FromBroker, ToBroker};
use super::tls::Tls;
use super::transport::Resolver;
use super::{NetError, frame, transport};
use crate::config::HostPort;
use crate::protocol::api_versions::Versions;
use crate::protocol::header::{ApiKey, read_response_header};
use crate::protocol::init_producer_id::InitProducerIdResponse;
use crate::protocol::metadata::MetadataResponse;
use crate::protocol::primitives::{DecodeError, Reader};
use crate::protocol::produce::ProduceResponse;
use std::collections::VecDeque;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{sleep, timeout};

/// What a connection needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to.
    pub address: HostPort,
    /// Name for the broker's logs.
    pub client_id: String,
    /// Whether there may be one connection more.
    pub permits: ConnectionPermits,
    /// Who resolves the name.
    pub resolver: Resolver,
    /// `socket_connection_setup_timeout_ms`.
    pub setup_timeout: Duration,
    /// `socket_keepalive_enable`.
    pub keepalive: bool,
    /// Where the frames go once they are written.
    pub frames: FramePool,
    /// How to find out what the broker speaks.
    pub handshake: Handshake,
    /// Its TLS, if it has that.
    pub tls: Option<Arc<Tls>>,
    /// Who authenticates it, if that is wanted.
    pub authenticator: Option<Arc<Authenticator>>,
    /// Memory for what it answers.
    pub room: Arc<AnswerRoom>,
}

/// The largest answer that is read when none is due. It ends the connection in any case.
const LARGEST_UNASKED: usize = 1024;

/// A request, encoded.
#[derive(Debug)]
pub struct Outgoing {
    /// The frame, size included.
    pub frame: Vec<u8>,
    /// The caller's name for the request.
    pub request: u64,
    /// What answer it gets; `None` for Produce with `acks = 0`, which is done once it is written.
    pub answer: Option<Expected>,
}

/// The answer that is due.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Its correlation id.
    pub correlation_id: i32,
    /// Its API.
    pub api: ApiKey,
    /// Its version.
    pub version: i16,
    /// The largest answer that makes sense, in bytes.
    pub largest: usize,
}

/// What happens on a connection. The `u64`s are the caller's names of connection and request.
#[derive(Debug)]
pub enum Event {
    /// Requests can be sent.
    Ready {
        /// Connection.
        conn: u64,
        /// What both sides speak.
        versions: Versions,
        /// How that is known.
        origin: Origin,
        /// The address that took the connection.
        peer: SocketAddr,
    },
    /// A request without answer was written.
    Written {
        /// Connection.
        conn: u64,
        /// Request.
        request: u64,
    },
    /// An answer to Produce.
    Produced {
        /// Connection.
        conn: u64,
        /// Request.
        request: u64,
        /// The answer.
        response: ProduceResponse,
        /// Held while a large answer exists.
        #[expect(dead_code, reason = "it is given back when it is dropped")]
        large: Option<OwnedSemaphorePermit>,
    },
    /// An answer to Metadata.
    Metadata {
        /// Connection.
        conn: u64,
        /// Request.
        request: u64,
        /// The answer.
        response: MetadataResponse,
        /// Held while a large answer exists.
        #[expect(dead_code, reason = "it is given back when it is dropped")]
        large: Option<OwnedSemaphorePermit>,
    },
    /// An answer to InitProducerId.
    ProducerId {
        /// Connection.
        conn: u64,
        /// Request.
        request: u64,
        /// The answer.
        response: InitProducerIdResponse,
    },
    /// The connection is over, or never came to be. Always the last event.
    Closed {
        /// Connection.
        conn: u64,
        /// Why.
        error: NetError,
    },
}

/// Lives through one connection. Ends when the peer or the network ends it, or when `outgoing` is closed;
/// to end it at once, drop the future.
pub async fn run(
    conn: u64,
    settings: Settings,
    outgoing: UnboundedReceiver<Outgoing>,
    events: UnboundedSender<Event>,
) {
    let mut last_word = LastWord { conn, error: Some(NetError::Fault), events: events.clone() };
    last_word.error = Some(match serve(conn, &settings, outgoing, &events).await {
        Ok(()) => NetError::Closed,
        Err(error) => error,
    });
}

/// Says that the connection is over, also when a fault of ours unwinds its task.
struct LastWord {
    conn: u64,
    error: Option<NetError>,
    events: UnboundedSender<Event>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if let Some(error) = self.error.take() {
            // The driver may be gone already; then nobody wants to know.
            let _ = self.events.send(Event::Closed { conn: self.conn, error });
        }
    }
}

async fn serve(
    conn: u64,
    settings: &Settings,
    mut outgoing: UnboundedReceiver<Outgoing>,
    events: &UnboundedSender<Event>,
) -> Result<(), NetError> {
    let permits = &settings.permits;
    // Kept until the socket is closed.
    let _permit = permits.take().ok_or(NetError::TooMany { most: permits.most() })?;
    let Settings { address, resolver, setup_timeout: limit, keepalive, .. } = settings;
    let limit = *limit;
    let (stream, peer) = transport::connect(address, resolver, limit, *keepalive).await?;
    let (from, mut to) = match &settings.tls {
        None => stream::plain(stream),
        Some(tls) => stream::tls(tls.connect(conn, address, stream, limit).await?),
    };
    let mut from = BufReader::new(from);
    let handshake = handshake::perform(
        settings.handshake,
        &settings.client_id,
        &settings.room,
        &mut from,
        &mut to,
    );
    let (versions, origin) = timeout(limit, handshake)
        .await
        .map_err(|_| NetError::SetupTimeout { what: "the answer to ApiVersions", limit })??;
    let mut session = authenticate(settings, versions, &mut from, &mut to, limit).await?;
    if events.send(Event::Ready { conn, versions, origin, peer }).is_err() {
        return Ok(());
    }
    let due = Due::default();
    // Both ends run until one of them is over; dropping the other ends it too.
    loop {
        let frames = &settings.frames;
        let ended = tokio::select! {
            ended = write(conn, &mut outgoing, &mut to, &due, events, frames, session) => ended?,
            ended = read(conn, &mut from, &due, events, &settings.room) => ended?,
        };
        match ended {
            Ended::Connection => return Ok(()),
            // A broker that holds us back is given the time that is left.
            Ended::Session { left } => {
                let limit = limit.max(left);
                session = authenticate(settings, versions, &mut from, &mut to, limit).await?;
            }
        }
    }
}

/// Why nothing more is written or read.
enum Ended {
    Connection,
    /// Authentication has to be repeated, in the time that is left. All answers are there, so nobody reads.
    Session {
        left: Duration,
    },
}

/// Says who we are, where that is wanted. Returns how long that is good for, if not for ever.
async fn authenticate(
    settings: &Settings,
    versions: Versions,
    from: &mut BufReader<FromBroker>,
    to: &mut ToBroker,
    limit: Duration,
) -> Result<Option<Lifetime>, NetError> {
    let Some(authenticator) = &settings.authenticator else { return Ok(None) };
    let version = versions.sasl_authenticate;
    timeout(
        limit,
        authenticator.authenticate(&settings.client_id, &settings.room, version, from, to),
    )
    .await
    .map_err(|_| NetError::SetupTimeout { what: "authentication", limit })?
}

/// Answers that are due, oldest first. Both halves run on one thread; the lock is there for the compiler.
#[derive(Default)]
struct Due {
    queue: Mutex<VecDeque<(Expected, u64)>>,
    /// Told whenever none is due any more.
    none: Notify,
}

impl Due {
    fn queue(&self) -> MutexGuard<'_, VecDeque<(Expected, u64)>> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn take(&self) -> Option<(Expected, u64)> {
        let mut queue = self.queue();
        let taken = queue.pop_front();
        if queue.is_empty() {
            self.none.notify_one();
        }
        taken
    }

    async fn wait_for_all(&self) {
        while !self.queue().is_empty() {
            self.none.notified().await;
        }
    }
}

async fn write(
    conn: u64,
    outgoing: &mut UnboundedReceiver<Outgoing>,
    to: &mut ToBroker,
    due: &Due,
    events: &UnboundedSender<Event>,
    frames: &FramePool,
    session: Option<Lifetime>,
) -> Result<Ended, NetError> {
    let mut session_ends = pin!(async {
        match session {
            Some(Lifetime { renew_after, left }) => {
                sleep(renew_after).await;
                left
            }
            None => pending().await,
        }
    });
    loop {
        let next = tokio::select! {
            biased;
            left = &mut session_ends => {
                due.wait_for_all().await;
                return Ok(Ended::Session { left });
            }
            next = outgoing.recv() => next,
        };
        let Some(Outgoing { frame, request, answer }) = next else { break };
        if let Some(expected) = answer {
            due.queue().push_back((expected, request));
        }
        to.write_all(&frame).await?;
        to.flush().await?;
        frames.give(frame);
        if answer.is_none() && events.send(Event::Written { conn, request }).is_err() {
            break;
        }
    }
    Ok(Ended::Connection)
}

async fn read(
    conn: u64,
    from: &mut BufReader<FromBroker>,
    due: &Due,
    events: &UnboundedSender<Event>,
    room: &AnswerRoom,
) -> Result<Ended, NetError> {
    let mut frame = FrameBuffer::new(room);
    while let Some(size) = frame::size(from).await? {
        let largest = due.queue().front().map_or(LARGEST_UNASKED, |(due, _)| due.largest);
        if size > largest {
            return Err(NetError::TooLarge { size, largest });
        }
        frame.read(from, size).await?;
        let large = if size > FREE { room.decode().await } else { None };
        let event = decode(conn, &frame, due.take(), large)?;
        // A large answer must not be paid for as long as the connection lives.
        frame.make_empty();
        if events.send(event).is_err() {
            break;
        }
    }
    Ok(Ended::Connection)
}

fn decode(
    conn: u64,
    frame: &[u8],
    due: Option<(Expected, u64)>,
    large: Option<OwnedSemaphorePermit>,
) -> Result<Event, NetError> {
    let mut reader = Reader::new(frame);
    let Some((expected, request)) = due else {
        let got = frame.first_chunk().map_or(0, |id| i32::from_be_bytes(*id));
        return Err(NetError::Correlation { got, expected: None });
    };
    let Expected { correlation_id, api, version, .. } = expected;
    let wrong = |source: DecodeError| NetError::Decode { api: api.name(), source };
    let got = read_response_header(&mut reader, api, version).map_err(wrong)?;
    if got != correlation_id {
        return Err(NetError::Correlation { got, expected: Some(correlation_id) });
    }
    Ok(match api {
        ApiKey::Produce => {
            let response = ProduceResponse::decode(version, &mut reader).map_err(wrong)?;
            Event::Produced { conn, request, response, large }
        }
        ApiKey::Metadata => {
            let response = MetadataResponse::decode(version, &mut reader).map_err(wrong)?;
            Event::Metadata { conn, request, response, large }
        }
        ApiKey::InitProducerId => {
            let response = InitProducerIdResponse::decode(version, &mut reader).map_err(wrong)?;
            Event::ProducerId { conn, request, response }
        }
        // Those are answered before anything else is asked.
        ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate => {
            return Err(NetError::Correlation { got, expected: None });
        }
    })
}
