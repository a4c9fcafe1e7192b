//! The load: requests that each have nginx log some messages, at a steady rate over several connections, and
//! the ledger of what became of them as far as the answers say.
//!
//! An answer is `WORKER FIRST MARKS NS,NS,...`: the worker, the first of its sequence numbers, a `y` (taken) or
//! `n` (refused) for each, and what each call took. A ledger line is its first three words. A request without an
//! answer writes none: what it logged is unknown, neither taken nor refused.
//!
//! Two more connections ask for /ping, whose answer, `WORKER ACKED`, tells besides when acknowledgements come in; and
//! two ask another nginx for it, the control, which has no lkfk.
//!
//! Files in the directory: `ledger`; `state`, newly written five times a second: taken, refused, unanswered;
//! `acks`, the milliseconds of the wall clock at which acknowledgements were seen; `times`, at the end, as
//! NAME=VALUE lines.

use crate::watch::now_ms;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

const CONNECTIONS: u32 = 24;
const A_REQUEST: u32 = 5;
const PINGS: u32 = 2;
/// Calls of a new worker, during which LuaJIT compiles what it will run.
const NEW: u32 = 5000;
/// As long as it takes about that many.
const NEW_MS: u128 = 3000;
const PING_EVERY: Duration = Duration::from_millis(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_AGAIN: Duration = Duration::from_millis(20);
/// A connection is made anew after so many requests, so that all workers have some.
const REQUESTS_A_CONNECTION: u32 = 500;
/// A head and a body here have some hundred bytes.
const ANSWER_BYTES: usize = 16 * 1024;

/// What the tasks of the one thread share.
struct Shared {
    port: u16,
    control: u16,
    ledger: RefCell<BufWriter<File>>,
    acks: RefCell<BufWriter<File>>,
    tally: RefCell<Tally>,
    quiet_until: Instant,
    warm_at: Instant,
}

#[derive(Default)]
struct Tally {
    taken: u64,
    refused: u64,
    unanswered: u64,
    /// Nanoseconds, before and since the end of the quiet time.
    log: [Vec<u32>; 2],
    /// Those of workers that are new.
    new: [Vec<u32>; 2],
    /// Those that refused.
    refusal: [Vec<u32>; 2],
    ping: [Vec<u32>; 2],
    /// Those of workers that are new.
    new_ping: [Vec<u32>; 2],
    control: [Vec<u32>; 2],
}

/// `chaos load PORT CONTROL-PORT RATE QUIET-SECONDS DIRECTORY`: until SIGTERM. Of the quiet time the first second does
/// not count.
pub fn main(arguments: &[&str]) -> Result<ExitCode, String> {
    let [port, control, rate, quiet, directory] = arguments else {
        return Err("chaos load: takes two ports, a rate, seconds and a directory".to_owned());
    };
    let number = |port: &str| port.parse().map_err(|_| format!("not a port: {port}"));
    let ports = [number(port)?, number(control)?];
    let rate: u32 = rate.parse().map_err(|_| format!("not a rate: {rate}"))?;
    let quiet = quiet.parse().map_err(|_| format!("not seconds: {quiet}"))?;
    crate::run(load(ports, rate.max(1), quiet, directory))?
        .map_err(|error| format!("chaos load: {error}"))
}

async fn load(
    [port, control]: [u16; 2],
    rate: u32,
    quiet: u64,
    directory: &str,
) -> io::Result<ExitCode> {
    let create =
        |name| Ok::<_, io::Error>(BufWriter::new(File::create(format!("{directory}/{name}"))?));
    let now = Instant::now();
    let shared = Shared {
        port,
        control,
        ledger: RefCell::new(create("ledger")?),
        acks: RefCell::new(create("acks")?),
        tally: RefCell::default(),
        quiet_until: now + Duration::from_secs(quiet),
        warm_at: now + Duration::from_secs(1),
    };
    // Leaked, so that tasks may borrow it: it lives as long as the process.
    let shared: &'static Shared = Box::leak(Box::new(shared));
    let mut end = signal(SignalKind::terminate())?;
    let tasks = tokio::task::LocalSet::new();
    let pace = Duration::from_secs(1) * CONNECTIONS * A_REQUEST / rate;
    for index in 0..CONNECTIONS {
        tasks.spawn_local(ask_to_log(shared, pace, pace * index / CONNECTIONS));
    }
    for _ in 0..PINGS {
        tasks.spawn_local(ping_workers(shared));
        tasks.spawn_local(ping_control(shared));
    }
    let written = tasks.run_until(async {
        let mut tick = interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                _ = tick.tick() => write_state(shared, directory)?,
                _ = end.recv() => return write_state(shared, directory),
            }
        }
    });
    written.await?;
    write_times(&mut shared.tally.borrow_mut(), directory)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes what there is, so that a ledger line is never later than the number that counts it.
fn write_state(shared: &Shared, directory: &str) -> io::Result<()> {
    shared.ledger.borrow_mut().flush()?;
    shared.acks.borrow_mut().flush()?;
    let tally = shared.tally.borrow();
    let text = format!("{} {} {}\n", tally.taken, tally.refused, tally.unanswered);
    fs::write(format!("{directory}/state.new"), text)?;
    fs::rename(format!("{directory}/state.new"), format!("{directory}/state"))
}

/// Quiet values first; 0 where there are none.
fn write_times(tally: &mut Tally, directory: &str) -> io::Result<()> {
    let mut out = File::create(format!("{directory}/times"))?;
    let Tally { log, new, refusal, ping, new_ping, control, .. } = tally;
    let all = [
        ("log", log),
        ("new", new),
        ("refusal", refusal),
        ("ping", ping),
        ("new_ping", new_ping),
        ("control", control),
    ];
    for (what, values) in all {
        for (phase, values) in ["quiet", "faults"].iter().zip(values) {
            values.sort_unstable();
            for (name, per_mille) in [("p50", 500), ("p99", 990), ("p999", 999), ("max", 1000)] {
                writeln!(out, "{what}_{phase}_{name}={}", quantile(values, per_mille))?;
            }
        }
    }
    Ok(())
}

/// Of sorted values: the smallest that so many thousandths do not exceed.
pub fn quantile<T: Copy + Default>(values: &[T], per_mille: usize) -> T {
    let rank = (values.len() * per_mille).div_ceil(1000);
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

// ------------------------------------------------------------------------------------------ requests

async fn ask_to_log(shared: &Shared, pace: Duration, offset: Duration) {
    sleep(offset).await;
    let mut tick = interval(pace);
    // A server that was away is not given everything at once.
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let Some(mut http) = Http::connect(shared.port).await else { continue };
        for _ in 0..REQUESTS_A_CONNECTION {
            tick.tick().await;
            let answer = http.get(&format!("/log?n={A_REQUEST}")).await;
            if answer.as_deref().and_then(|answer| enter(shared, answer)).is_none() {
                shared.tally.borrow_mut().unanswered += u64::from(A_REQUEST);
                break;
            }
        }
    }
}

/// Enters an answer into the ledger; `None` when it is not one.
fn enter(shared: &Shared, answer: &str) -> Option<()> {
    let words: Vec<&str> = answer.split_ascii_whitespace().collect();
    let [worker, first, marks, took] = words[..] else { return None };
    let tally = &mut *shared.tally.borrow_mut();
    writeln!(shared.ledger.borrow_mut(), "{worker} {first} {marks}").ok()?;
    let taken = marks.bytes().filter(|mark| *mark == b'y').count();
    tally.taken += taken as u64;
    tally.refused += (marks.len() - taken) as u64;
    if let Some(phase) = shared.phase() {
        let new = first.parse::<u32>().ok()? <= NEW;
        let values = if new { &mut tally.new } else { &mut tally.log };
        let times = took.split(',').filter_map(|ns| ns.parse::<u32>().ok());
        for (ns, mark) in times.zip(marks.bytes()) {
            values[phase].push(ns);
            if mark == b'n' {
                tally.refusal[phase].push(ns);
            }
        }
    }
    Some(())
}

impl Shared {
    fn phase(&self) -> Option<usize> {
        let now = Instant::now();
        (now > self.warm_at).then_some(usize::from(now > self.quiet_until))
    }
}

/// Asks for /ping, and hands on each answer with the nanoseconds that it took.
async fn ping(port: u16, mut answered: impl FnMut(&str, u32)) {
    let mut tick = interval(PING_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let Some(mut http) = Http::connect(port).await else { continue };
        for _ in 0..REQUESTS_A_CONNECTION {
            tick.tick().await;
            let sent = Instant::now();
            let Some(answer) = http.get("/ping").await else { break };
            answered(answer.trim(), u32::try_from(sent.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
    }
}

/// Of the workers under test.
async fn ping_workers(shared: &Shared) {
    let mut acked: HashMap<String, u64> = HashMap::new();
    let answered = |answer: &str, took| {
        let Some((worker, count)) = answer.split_once(' ') else { return };
        if let Some(phase) = shared.phase() {
            let tally = &mut *shared.tally.borrow_mut();
            let values = if is_new(worker) { &mut tally.new_ping } else { &mut tally.ping };
            values[phase].push(took);
        }
        let count = count.parse().unwrap_or(0);
        let before = acked.insert(worker.to_owned(), count);
        if before.is_some_and(|before| before < count) {
            // A full disk ends the run elsewhere.
            let _ = writeln!(shared.acks.borrow_mut(), "{}", now_ms());
        }
    };
    ping(shared.port, answered).await;
}

async fn ping_control(shared: &Shared) {
    let answered = |_: &str, took| {
        if let Some(phase) = shared.phase() {
            shared.tally.borrow_mut().control[phase].push(took);
        }
    };
    ping(shared.control, answered).await;
}

/// Of a worker's name, which is its pid and the milliseconds of its start.
fn is_new(worker: &str) -> bool {
    let start = worker.split_once('-').and_then(|(_, ms)| ms.parse::<u128>().ok());
    start.is_none_or(|start| now_ms().saturating_sub(start) < NEW_MS)
}

/// A connection that is kept.
struct Http(TcpStream);

impl Http {
    /// `None` after a pause: nobody listens.
    async fn connect(port: u16) -> Option<Http> {
        let connected = timeout(ANSWER_WITHIN, TcpStream::connect(("127.0.0.1", port))).await;
        match connected {
            Ok(Ok(stream)) if stream.set_nodelay(true).is_ok() => Some(Http(stream)),
            _ => {
                sleep(CONNECT_AGAIN).await;
                None
            }
        }
    }

    /// The body of a 200, which says its length; `None` for all else.
    async fn get(&mut self, path: &str) -> Option<String> {
        timeout(ANSWER_WITHIN, self.exchange(path)).await.ok()?
    }

    async fn exchange(&mut self, path: &str) -> Option<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: chaos\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::with_capacity(512);
        loop {
            if self.0.read_buf(&mut answer).await.ok()? == 0 || answer.len() > ANSWER_BYTES {
                return None;
            }
            let text = std::str::from_utf8(&answer).ok()?;
            if let Some(body) = body(text) {
                return body.map(str::to_owned);
            }
        }
    }
}

/// `None`: more has to come; `Some(None)`: not a 200 with a length.
fn body(answer: &str) -> Option<Option<&str>> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if head.starts_with("HTTP/1.1 200 ") => body.get(..length).map(Some),
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_given_when_it_is_whole() {
        let head = "HTTP/1.1 200 OK\r\nServer: nginx\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(body("HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(body(&format!("{head}hell")), None);
        assert_eq!(body(&format!("{head}hello")), Some(Some("hello")));
        assert_eq!(body(&head.replace("200", "500")), Some(None));
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nhello"), Some(None));
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values: Vec<u32> = (1..=1000).collect();
        assert_eq!(quantile(&values, 500), 500);
        assert_eq!(quantile(&values, 999), 999);
        assert_eq!(quantile(&values, 1000), 1000);
        assert_eq!(quantile(&[7], 500), 7);
        assert_eq!(quantile::<u32>(&[], 990), 0);
    }
}
