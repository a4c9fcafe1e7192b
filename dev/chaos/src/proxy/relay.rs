//! One connection through the proxy: two directions, each with a task half that reads frames and decides what
//! becomes of them, and one that writes when it is time. In between lies a short queue, so that a delay is a
//! latency and not a rate.

use super::Line;
use super::fault::{Api, Fault};
use super::frame::{self, Head};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};

const CHUNK: usize = 16 * 1024;
/// Pieces between reader and writer. At 16 KiB a second's worth of a fast connection.
const PIECES: usize = 256;
/// Requests without an answer that are remembered; with acks=0 there never is one.
const OUTSTANDING: usize = 1024;
const TICK: Duration = Duration::from_millis(1);

/// What the writer gets.
enum Piece {
    Bytes {
        due: Instant,
        bytes: Vec<u8>,
    },
    /// The connection ends here, all before it delivered.
    Cut,
}

/// A request whose answer has not come.
struct Asked {
    correlation_id: i32,
    api: Api,
    /// Its answer ends the connection.
    lose: bool,
}

/// The connection is to end at once, both sides of it.
struct Ended;

/// Relays until both directions are over, or a fault ends the connection.
pub async fn run(line: &Line, mut client: TcpStream, mut broker: TcpStream) {
    for side in [&client, &broker] {
        // Else dripping bytes would be gathered into packets.
        if side.set_nodelay(true).is_err() {
            return;
        }
    }
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    let asked = Mutex::new(VecDeque::new());
    let (requests_in, requests_out) = mpsc::channel(PIECES);
    let (answers_in, answers_out) = mpsc::channel(PIECES);
    let directions = async {
        tokio::try_join!(
            async { Ok(read_requests(line, from_client, requests_in, &asked).await) },
            write(line, requests_out, to_broker),
            async { Ok(read_answers(line, from_broker, answers_in, &asked).await) },
            write(line, answers_out, to_client),
        )
    };
    tokio::select! {
        _ = directions => {}
        _ = line.until(|faults| faults.refuse) => {}
        () = end_of_life(line) => line.count("lifetime"),
    }
}

/// Returns when a connection of this line has lived long enough.
async fn end_of_life(line: &Line) {
    loop {
        let faults = line.until(|faults| faults.lifetime.is_some()).await;
        let Some((from, to)) = faults.lifetime else { continue };
        tokio::select! {
            () = time::sleep(between(from, to)) => return,
            _ = line.until(|faults| faults.lifetime.is_none()) => {}
        }
    }
}

/// Somewhere between the two. The clock's nanoseconds are as random as this needs.
fn between(from: Duration, to: Duration) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |since| u64::from(since.subsec_nanos()));
    let spread = (to - from).as_micros() as u64 + 1;
    from + Duration::from_micros(nanos.wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread)
}

// ------------------------------------------------------------------------------------------- reading

async fn read_requests(
    line: &Line,
    mut from: impl AsyncRead + Unpin,
    to: mpsc::Sender<Piece>,
    asked: &Mutex<VecDeque<Asked>>,
) -> Option<()> {
    let mut due = Instant::now();
    loop {
        line.until(|faults| !faults.freeze).await;
        let head = frame::read_request(&mut from).await?;
        if head.api == Api::Produce {
            line.count("produce");
        }
        due = due.max(arrival(line));
        if let Some(byte) = line.strike(Fault::CutRequest, head.api) {
            pass(line, &mut from, &to, due, head, Some(byte)).await?;
            return to.send(Piece::Cut).await.ok();
        }
        remember(asked, line, &head);
        pass(line, &mut from, &to, due, head, None).await?;
    }
}

async fn read_answers(
    line: &Line,
    mut from: impl AsyncRead + Unpin,
    to: mpsc::Sender<Piece>,
    asked: &Mutex<VecDeque<Asked>>,
) -> Option<()> {
    let mut due = Instant::now();
    loop {
        line.until(|faults| !faults.freeze).await;
        let head = frame::read_answer(&mut from).await?;
        due = due.max(arrival(line));
        let (api, lose) = recall(asked, head.correlation_id);
        if lose {
            return to.send(Piece::Cut).await.ok();
        }
        if line.strike(Fault::Swallow, api).is_some() {
            let rest =
                tokio::io::copy(&mut (&mut from).take(head.rest), &mut tokio::io::sink()).await;
            rest.ok()?;
            continue;
        }
        if let Some(byte) = line.strike(Fault::CutAnswer, api) {
            pass(line, &mut from, &to, due, head, Some(byte)).await?;
            return to.send(Piece::Cut).await.ok();
        }
        if api == Api::Produce {
            line.count("produce-answers");
        }
        pass(line, &mut from, &to, due, head, None).await?;
    }
}

/// When a frame that arrived now is to be written.
fn arrival(line: &Line) -> Instant {
    let faults = line.faults.borrow();
    let (delay, jitter) = (faults.delay, faults.jitter);
    Instant::now() + between(delay.saturating_sub(jitter), delay + jitter)
}

fn remember(asked: &Mutex<VecDeque<Asked>>, line: &Line, head: &Head) {
    let lose = line.strike(Fault::Lose, head.api).is_some();
    let mut asked = asked.lock().expect("nobody panics with it");
    if asked.len() == OUTSTANDING {
        asked.pop_front();
    }
    asked.push_back(Asked { correlation_id: head.correlation_id, api: head.api, lose });
}

/// A broker answers in order: what was asked before this and has no answer will have none.
fn recall(asked: &Mutex<VecDeque<Asked>>, correlation_id: i32) -> (Api, bool) {
    let mut asked = asked.lock().expect("nobody panics with it");
    let Some(at) = asked.iter().position(|asked| asked.correlation_id == correlation_id) else {
        return (Api::Any, false);
    };
    let found = asked.drain(..=at).next_back();
    found.map_or((Api::Any, false), |found| (found.api, found.lose))
}

/// Passes a frame on, or its first bytes: as many as `only` modulo its length. `None` when either side ended.
async fn pass(
    line: &Line,
    from: &mut (impl AsyncRead + Unpin),
    to: &mpsc::Sender<Piece>,
    due: Instant,
    head: Head,
    only: Option<u64>,
) -> Option<()> {
    let mut left = only.map_or(head.frame_bytes(), |only| only % head.frame_bytes());
    let mut bytes = head.bytes;
    bytes.truncate(left.min(bytes.len() as u64) as usize);
    left -= bytes.len() as u64;
    to.send(Piece::Bytes { due, bytes }).await.ok()?;
    while left > 0 {
        line.until(|faults| !faults.freeze).await;
        let mut bytes = vec![0; left.min(CHUNK as u64) as usize];
        let read = from.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
        bytes.truncate(read);
        left -= read as u64;
        to.send(Piece::Bytes { due, bytes }).await.ok()?;
    }
    Some(())
}

// ------------------------------------------------------------------------------------------- writing

/// Writes until the reader has ended. A side that takes nothing any more is no reason to end the connection:
/// what it sent before may still be under way.
async fn write(
    line: &Line,
    mut pieces: mpsc::Receiver<Piece>,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), Ended> {
    while let Some(piece) = pieces.recv().await {
        let Piece::Bytes { due, bytes } = piece else {
            let _ = to.flush().await;
            return Err(Ended);
        };
        time::sleep_until(due).await;
        let faults = line.until(|faults| !faults.freeze).await;
        let written = match faults.drip {
            None => to.write_all(&bytes).await,
            Some(rate) => drip(line, &mut to, &bytes, rate).await,
        };
        if written.is_err() {
            return Ok(());
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}

/// Writes byte by byte, `rate` a second, for as long as the line drips.
async fn drip(
    line: &Line,
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    rate: u64,
) -> std::io::Result<()> {
    let in_a_tick = (rate / 1000).max(1) as usize;
    for (index, byte) in bytes.iter().enumerate() {
        if index % in_a_tick == 0 {
            time::sleep(TICK.max(Duration::from_secs(1) / rate.min(1000) as u32)).await;
            let faults = line.until(|faults| !faults.freeze).await;
            if faults.drip.is_none() {
                return to.write_all(&bytes[index..]).await;
            }
        }
        to.write_all(&[*byte]).await?;
    }
    Ok(())
}
