//! Connections to brokers that send large answers, and do not finish them.

use super::answer_room::FREE;
use super::frame_pool::FramePool;
use super::*;
use crate::protocol::api_versions::Versions;
use crate::protocol::header::{ApiKey, MAX_FRAME};
use crate::protocol::put::Put;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a test waits for what must come. What it is about takes a fraction of a second, or never ends.
const PATIENCE: Duration = Duration::from_secs(20);

const VERSIONS: Versions =
    Versions { produce: 3, metadata: 1, init_producer_id: None, sasl_authenticate: None };

/// Connections of one producer.
struct Scene {
    room: Arc<AnswerRoom>,
    events_in: UnboundedSender<Event>,
    events: UnboundedReceiver<Event>,
    /// Kept open.
    open: Vec<UnboundedSender<Outgoing>>,
}

impl Scene {
    fn new() -> Scene {
        let (events_in, events) = unbounded_channel();
        Scene { room: Arc::default(), events_in, events, open: Vec::new() }
    }

    /// Connection number `open.len()`, on which an answer to Metadata is due; returns the peer's end.
    async fn connect(&mut self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let settings = Settings {
            address: HostPort { host: "127.0.0.1".to_owned(), port },
            client_id: "test".to_owned(),
            permits: ConnectionPermits::of_this_process(),
            resolver: Resolver::default(),
            setup_timeout: PATIENCE,
            keepalive: false,
            frames: FramePool::default(),
            handshake: Handshake::Assume(VERSIONS),
            tls: None,
            authenticator: None,
            room: self.room.clone(),
        };
        let (outgoing, from_us) = unbounded_channel();
        let conn = self.open.len() as u64;
        tokio::spawn(run(conn, settings, from_us, self.events_in.clone()));
        let (correlation_id, largest) = (3, MAX_FRAME);
        let (api, version) = (ApiKey::Metadata, VERSIONS.metadata);
        let answer = Some(Expected { correlation_id, api, version, largest });
        outgoing.send(Outgoing { frame: vec![0], request: 0, answer }).unwrap();
        self.open.push(outgoing);
        listener.accept().await.unwrap().0
    }

    /// The same, with a peer that sends the first `most` bytes of an answer that takes so many `bytes`.
    async fn connect_and_send(&mut self, most: usize, bytes: usize) -> JoinHandle<TcpStream> {
        let mut peer = self.connect().await;
        let mut answer = metadata(bytes);
        answer.truncate(most);
        tokio::spawn(async move {
            // The connection may end before all of it is read.
            let _ = peer.write_all(&answer).await;
            peer
        })
    }

    /// The next event that is not the beginning of a connection.
    async fn next(&mut self) -> Event {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await.expect("nothing happens");
            match event.unwrap() {
                Event::Ready { .. } => {}
                event => return event,
            }
        }
    }

    /// Waits until the room has been taken up to so many bytes that are left.
    async fn is_filled_up_to(&self, left: usize) {
        let filled = async {
            while self.room.free() > left {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, filled).await.expect("the room is not filled");
    }
}

/// An answer to Metadata of about `size` bytes, its size before it.
fn metadata(size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i32(3);
    let brokers = size / 1024;
    body.put_i32(brokers as i32);
    for id in 0..brokers {
        body.put_i32(id as i32);
        body.put_i16(1010);
        body.extend(vec![b'h'; 1010]);
        body.put_i32(9092);
        body.put_i16(-1);
    }
    body.put_i32(0);
    body.put_i32(0);
    let mut frame = Vec::new();
    frame.put_i32(body.len() as i32);
    frame.extend(body);
    frame
}

fn run_scene<T>(scene: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(scene)
}

#[test]
fn flt_13_a_large_answer_that_drips_does_not_hold_up_another() {
    run_scene(async {
        let mut scene = Scene::new();
        let mut drips = scene.connect().await;
        drips.write_all(&metadata(3 << 20)[..2 * FREE]).await.unwrap();
        scene.is_filled_up_to(MAX_FRAME - 1).await;
        let mut healthy = scene.connect().await;
        healthy.write_all(&metadata(2 << 20)).await.unwrap();
        let event = scene.next().await;
        assert!(matches!(event, Event::Metadata { conn: 1, .. }), "{event:?}");
        drop(drips);
    });
}

#[test]
fn flt_13_an_answer_that_fills_the_room_and_stops_makes_room_for_another() {
    run_scene(async {
        let mut scene = Scene::new();
        let mut stops = scene.connect().await;
        stops.write_all(&metadata(MAX_FRAME)[..3 << 20]).await.unwrap();
        scene.is_filled_up_to(4 * FREE).await;
        let mut healthy = scene.connect().await;
        healthy.write_all(&metadata(2 << 20)).await.unwrap();
        let event = scene.next().await;
        assert!(matches!(event, Event::Closed { conn: 0, error: NetError::TooSlow }), "{event:?}");
        let event = scene.next().await;
        assert!(matches!(event, Event::Metadata { conn: 1, .. }), "{event:?}");
    });
}

#[test]
fn flt_13_answers_that_stop_halfway_hold_up_neither_each_other_nor_what_comes_later() {
    run_scene(async {
        const STOPPED: u64 = 6;
        let mut scene = Scene::new();
        let mut peers = Vec::new();
        for _ in 0..STOPPED {
            // Nobody reads all of it perhaps.
            peers.push(scene.connect_and_send(2_500_000, MAX_FRAME).await);
        }
        scene.is_filled_up_to(1 << 20).await;
        // It may have to make room for those that came before it and had none yet, and is connected to again then, as the
        // driver does. Each of them costs it that once at most.
        for conn in STOPPED..=2 * STOPPED {
            peers.push(scene.connect_and_send(usize::MAX, 5 << 19).await);
            loop {
                match scene.next().await {
                    Event::Metadata { conn: answered, .. } => return assert_eq!(answered, conn),
                    Event::Closed { conn: closed, error: NetError::TooSlow } if closed == conn => {
                        break;
                    }
                    Event::Closed { error: NetError::TooSlow, .. } => {}
                    event => panic!("{event:?}"),
                }
            }
        }
        panic!("more often than there are others");
    });
}

#[test]
fn one_large_answer_at_a_time_is_decoded_and_until_it_is_dealt_with_none_is_read() {
    run_scene(async {
        let mut scene = Scene::new();
        let mut first = scene.connect().await;
        first.write_all(&metadata(5 << 19)).await.unwrap();
        let waits = scene.next().await;
        let mut second = scene.connect().await;
        let writes = tokio::spawn(async move {
            second.write_all(&metadata(5 << 19)).await.unwrap();
            second
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(scene.room.free() >= MAX_FRAME - FREE, "{}", scene.room.free());
        drop(waits);
        let event = scene.next().await;
        assert!(matches!(event, Event::Metadata { conn: 1, .. }), "{event:?}");
        drop(writes.await.unwrap());
    });
}
