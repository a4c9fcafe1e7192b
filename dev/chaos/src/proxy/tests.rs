//! Each fault, with a broker of our own behind the proxy that answers every request by its bytes.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const PRODUCE: i16 = 0;
const METADATA: i16 = 3;
/// Long enough for all that is to happen.
const SOON: Duration = Duration::from_secs(20);
/// Long enough to see that something does not happen.
const A_WHILE: Duration = Duration::from_millis(150);

/// A line through the proxy, and what its broker saw: each read, whole frames or not.
struct Stage {
    line: Arc<Line>,
    seen: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Stage {
    async fn open() -> Stage {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let line = Arc::new(Line::new(free_port().await, listener.local_addr().unwrap()));
        let (saw, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, saw.clone()));
            }
        });
        tokio::spawn(line.clone().serve());
        Stage { line, seen }
    }

    fn order(&self, order: &str) {
        let lines = [self.line.clone()];
        assert_eq!(control::follow(&format!("1 {order}"), &lines), Ok("ok".to_owned()));
    }

    async fn connect(&self) -> TcpStream {
        let connecting = async {
            loop {
                if let Ok(stream) = TcpStream::connect(self.line.listen).await {
                    return stream;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(SOON, connecting).await.unwrap()
    }

    /// All bytes that reached the broker until a connection of it ended.
    async fn seen_until_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = timeout(SOON, self.seen.recv()).await.unwrap().unwrap();
            if bytes.is_empty() {
                return all;
            }
            all.extend(bytes);
        }
    }
}

async fn free_port() -> SocketAddr {
    TcpListener::bind(local(0)).await.unwrap().local_addr().unwrap()
}

/// Answers each frame by its correlation id and body, and reports all it reads; an end as no bytes, but for
/// that of a connection with which the proxy only looks whether we are there.
async fn answer_all(mut stream: TcpStream, saw: mpsc::UnboundedSender<Vec<u8>>) {
    let mut held = Vec::new();
    let mut bytes = [0; 4096];
    let mut is_used = false;
    loop {
        let read = stream.read(&mut bytes).await.unwrap_or(0);
        is_used |= read > 0;
        if is_used {
            let _ = saw.send(bytes[..read].to_vec());
        }
        if read == 0 {
            return;
        }
        held.extend_from_slice(&bytes[..read]);
        while let Some(length) = held.first_chunk().map(|length| u32::from_be_bytes(*length)) {
            let end = 4 + length as usize;
            if held.len() < end {
                break;
            }
            let frame: Vec<u8> = held.drain(..end).collect();
            let mut answer = (length - 4).to_be_bytes().to_vec();
            answer.extend_from_slice(&frame[8..]);
            let _ = stream.write_all(&answer).await;
        }
    }
}

fn request(api: i16, correlation_id: i32, body: &str) -> Vec<u8> {
    let mut frame = (8 + body.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&api.to_be_bytes());
    frame.extend_from_slice(&9i16.to_be_bytes());
    frame.extend_from_slice(&correlation_id.to_be_bytes());
    frame.extend_from_slice(body.as_bytes());
    frame
}

fn answer(correlation_id: i32, body: &str) -> Vec<u8> {
    let mut frame = (4 + body.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&correlation_id.to_be_bytes());
    frame.extend_from_slice(body.as_bytes());
    frame
}

/// Reads as many bytes as `expected` has, and compares.
async fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    timeout(SOON, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(bytes, expected);
}

/// What the stream gives until it ends, however it ends.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut all)).await.expect("the connection stays open");
    all
}

async fn silent(stream: &mut TcpStream) {
    let read = timeout(A_WHILE, stream.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test]
async fn without_faults_all_bytes_pass_unchanged() {
    let mut stage = Stage::open().await;
    let mut client = stage.connect().await;
    let large = "x".repeat(1_000_000);
    for (id, body) in [(1, "a"), (2, ""), (i32::MAX, large.as_str())] {
        let sent = request(PRODUCE, id, body);
        let (mut from, mut to) = client.split();
        let mut bytes = vec![0; 8 + body.len()];
        let both = async { tokio::try_join!(to.write_all(&sent), from.read_exact(&mut bytes)) };
        timeout(SOON, both).await.unwrap().unwrap();
        assert_eq!(bytes, answer(id, body));
    }
    client.shutdown().await.unwrap();
    assert!(rest(&mut client).await.is_empty());
    assert_eq!(stage.seen_until_end().await.len(), 3 * 12 + 1 + large.len());
}

#[tokio::test]
async fn a_delay_is_a_latency_of_both_directions_and_not_a_rate() {
    let stage = Stage::open().await;
    let mut client = stage.connect().await;
    stage.order("delay 100");
    let begun = Instant::now();
    for id in 0..20 {
        client.write_all(&request(PRODUCE, id, "a")).await.unwrap();
    }
    for id in 0..20 {
        expect(&mut client, &answer(id, "a")).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    // One after the other they would take four seconds.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_cut_request_reaches_the_broker_up_to_its_byte() {
    let sent = request(PRODUCE, 7, "0123456789");
    for byte in [0, 1, 4, 11, 12, 13, 21, 22 + 5] {
        let mut stage = Stage::open().await;
        let mut client = stage.connect().await;
        stage.order(&format!("cut-request produce {byte} 1"));
        client.write_all(&request(METADATA, 6, "b")).await.unwrap();
        expect(&mut client, &answer(6, "b")).await;
        client.write_all(&sent).await.unwrap();
        assert!(rest(&mut client).await.is_empty(), "byte {byte}");
        let seen = stage.seen_until_end().await;
        assert_eq!(seen[13..], sent[..byte % sent.len()], "byte {byte}");

        let mut client = stage.connect().await;
        client.write_all(&sent).await.unwrap();
        expect(&mut client, &answer(7, "0123456789")).await;
    }
}

#[tokio::test]
async fn a_cut_answer_reaches_the_client_up_to_its_byte() {
    for byte in [0, 3, 8, 17] {
        let stage = Stage::open().await;
        let mut client = stage.connect().await;
        stage.order(&format!("cut-answer produce {byte} 1"));
        client.write_all(&request(PRODUCE, 7, "0123456789")).await.unwrap();
        assert_eq!(rest(&mut client).await, answer(7, "0123456789")[..byte]);
    }
}

#[tokio::test]
async fn a_lost_answer_was_given_by_the_broker_and_ends_the_connection() {
    let mut stage = Stage::open().await;
    let mut client = stage.connect().await;
    stage.order("lose produce 1");
    client.write_all(&request(METADATA, 1, "b")).await.unwrap();
    expect(&mut client, &answer(1, "b")).await;
    let sent = request(PRODUCE, 2, "a");
    client.write_all(&sent).await.unwrap();
    assert!(rest(&mut client).await.is_empty());
    assert_eq!(stage.seen_until_end().await[13..], sent);
}

#[tokio::test]
async fn a_swallowed_answer_leaves_the_connection_and_its_other_answers() {
    let stage = Stage::open().await;
    let mut client = stage.connect().await;
    stage.order("swallow produce 1");
    client.write_all(&request(PRODUCE, 1, "a")).await.unwrap();
    silent(&mut client).await;
    client.write_all(&request(PRODUCE, 2, "b")).await.unwrap();
    expect(&mut client, &answer(2, "b")).await;
}

#[tokio::test]
async fn a_frozen_line_moves_nothing_and_then_all_of_it() {
    let mut stage = Stage::open().await;
    let mut client = stage.connect().await;
    client.write_all(&request(PRODUCE, 1, "a")).await.unwrap();
    expect(&mut client, &answer(1, "a")).await;
    assert_eq!(stage.seen.recv().await.unwrap().len(), 13);
    stage.order("freeze");
    client.write_all(&request(PRODUCE, 2, "b")).await.unwrap();
    let mut late = stage.connect().await;
    late.write_all(&request(PRODUCE, 3, "c")).await.unwrap();
    silent(&mut client).await;
    silent(&mut late).await;
    assert!(stage.seen.try_recv().is_err());
    stage.order("pass");
    expect(&mut client, &answer(2, "b")).await;
    expect(&mut late, &answer(3, "c")).await;
}

#[tokio::test]
async fn what_a_dead_client_sent_still_reaches_the_broker() {
    let mut stage = Stage::open().await;
    let mut client = stage.connect().await;
    let sent = request(PRODUCE, 1, "a");
    stage.order("delay 100");
    client.write_all(&sent).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(client);
    assert_eq!(stage.seen_until_end().await, sent);
}

#[tokio::test]
async fn dripping_bytes_arrive_one_by_one_and_whole() {
    let mut stage = Stage::open().await;
    let mut client = stage.connect().await;
    stage.order("drip 500");
    let sent = request(PRODUCE, 1, "0123456789");
    client.write_all(&sent).await.unwrap();
    expect(&mut client, &answer(1, "0123456789")).await;
    let (mut reads, mut seen) = (0, Vec::new());
    while seen.len() < sent.len() {
        seen.extend(stage.seen.recv().await.unwrap());
        reads += 1;
    }
    assert_eq!(seen, sent);
    // A slow machine may join a few.
    assert!(reads > sent.len() / 4, "{reads} reads");
}

#[tokio::test]
async fn a_line_that_refuses_ends_its_connections_and_takes_no_new_ones() {
    let stage = Stage::open().await;
    let mut client = stage.connect().await;
    client.write_all(&request(PRODUCE, 1, "a")).await.unwrap();
    expect(&mut client, &answer(1, "a")).await;
    stage.order("refuse");
    assert!(rest(&mut client).await.is_empty());
    let refused = async {
        while TcpStream::connect(stage.line.listen).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, refused).await.unwrap();
    stage.order("pass");
    let mut client = stage.connect().await;
    client.write_all(&request(PRODUCE, 2, "b")).await.unwrap();
    expect(&mut client, &answer(2, "b")).await;
}

#[tokio::test]
async fn a_line_that_hangs_up_leaves_the_connections_it_has() {
    let stage = Stage::open().await;
    let mut client = stage.connect().await;
    client.write_all(&request(PRODUCE, 1, "a")).await.unwrap();
    expect(&mut client, &answer(1, "a")).await;
    stage.order("hang-up");
    assert!(rest(&mut stage.connect().await).await.is_empty());
    client.write_all(&request(PRODUCE, 2, "b")).await.unwrap();
    expect(&mut client, &answer(2, "b")).await;
}

#[tokio::test]
async fn while_the_broker_is_down_connections_are_refused() {
    let broker = free_port().await;
    let line = Arc::new(Line::new(free_port().await, broker));
    tokio::spawn(line.clone().serve());
    tokio::time::sleep(A_WHILE).await;
    assert!(TcpStream::connect(line.listen).await.is_err());
    let listener = TcpListener::bind(broker).await.unwrap();
    let reached = async {
        while TcpStream::connect(line.listen).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, reached).await.unwrap();
    drop(listener);
    let refused = async {
        while TcpStream::connect(line.listen).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, refused).await.unwrap();
}

#[tokio::test]
async fn a_lifetime_ends_connections_that_are_open_already() {
    let stage = Stage::open().await;
    let mut client = stage.connect().await;
    client.write_all(&request(PRODUCE, 1, "a")).await.unwrap();
    expect(&mut client, &answer(1, "a")).await;
    stage.order("lifetime 20 40");
    assert!(rest(&mut client).await.is_empty());
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() {
    let stage = Stage::open().await;
    for bytes in [[0xff; 12], [0; 12]] {
        let mut client = stage.connect().await;
        client.write_all(&bytes).await.unwrap();
        assert!(rest(&mut client).await.is_empty());
    }
}

#[tokio::test]
async fn orders_reach_the_lines_they_name_and_status_counts_what_was_hit() {
    let lines = [1, 2].map(|port| Arc::new(Line::new(local(port), local(9))));
    assert!(control::follow("3 freeze", &lines).is_err());
    assert!(control::follow("0 freeze", &lines).is_err());
    assert!(control::follow("freeze", &lines).is_err());
    assert_eq!(control::follow("2 freeze", &lines), Ok("ok".to_owned()));
    assert!(!lines[0].faults.borrow().freeze && lines[1].faults.borrow().freeze);
    assert_eq!(control::follow("all lose produce 1", &lines), Ok("ok".to_owned()));
    assert_eq!(lines[0].strike(Fault::Lose, Api::Produce), Some(0));
    assert_eq!(control::follow("status", &lines), Ok("1: lose=1; 2:".to_owned()));
}
