//! A TCP proxy that knows where Kafka's frames begin, and breaks them where it is told to.
//!
//! One [`Line`] per broker: a port of ours that clients are sent to, and the broker behind it. What is wrong
//! with a line stands in its [`Faults`]; orders change them while connections are open, and a connection
//! follows at its next frame, or at once where it is to stop moving or to end.
//!
//! Invariants:
//! - Bytes keep their order and their values in each direction. What a fault cuts off is never sent later.
//! - A side that ends is followed by the other only when all that was under way to it has been delivered: bytes
//!   of a dead client still reach the broker, however long they are held back.
//! - No length from a peer sizes a buffer.

mod control;
mod fault;
mod frame;
mod relay;
#[cfg(test)]
mod tests;

use fault::{Api, Fault, Faults};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// Between looks for a broker that is down.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// `chaos proxy CONTROL-PORT LISTEN-PORT=BROKER-ADDRESS...`: until it is killed.
pub fn main(arguments: &[&str]) -> Result<ExitCode, String> {
    let Some((control, lines)) = arguments.split_first() else {
        return Err("chaos proxy: no control port".to_owned());
    };
    let control: u16 = control.parse().map_err(|_| format!("not a port: {control}"))?;
    let mut all = Vec::new();
    for line in lines {
        let parts = line.split_once('=');
        let parsed = parts.and_then(|(port, to)| Some((port.parse().ok()?, to.parse().ok()?)));
        let (port, broker): (u16, SocketAddr) =
            parsed.ok_or_else(|| format!("not PORT=ADDRESS: {line}"))?;
        all.push(Arc::new(Line::new(local(port), broker)));
    }
    crate::run(async {
        for line in &all {
            tokio::spawn(line.clone().serve());
        }
        control::serve(local(control), all).await
    })?
    .map_err(|error| format!("control port: {error}"))
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The way to one broker.
struct Line {
    listen: SocketAddr,
    broker: SocketAddr,
    faults: watch::Sender<Faults>,
    /// Rings when the broker could not be reached.
    unreachable: Notify,
    /// How often each thing happened, for `status`.
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Line {
    fn new(listen: SocketAddr, broker: SocketAddr) -> Line {
        Line {
            listen,
            broker,
            faults: watch::Sender::new(Faults::default()),
            unreachable: Notify::new(),
            counts: Mutex::new(BTreeMap::new()),
        }
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().expect("nobody panics with it").entry(what).or_default() += 1;
    }

    /// Uses up one of the times that `fault` was ordered for this API; returns its byte, if it has one.
    fn strike(&self, fault: Fault, api: Api) -> Option<u64> {
        let mut hit = None;
        self.faults.send_if_modified(|faults| {
            hit = faults.take(fault, api);
            false
        });
        if hit.is_some() {
            self.count(fault.name());
        }
        hit
    }

    /// Returns once the faults are as `wanted`.
    async fn until(&self, wanted: impl FnMut(&Faults) -> bool) -> Faults {
        let mut faults = self.faults.subscribe();
        let reached = faults.wait_for(wanted).await;
        reached.expect("the sender is ours").clone()
    }

    /// Takes connections while the line is not to refuse them, and the broker is there: a broker that is
    /// down refuses them itself.
    async fn serve(self: Arc<Self>) {
        loop {
            self.until(|faults| !faults.refuse).await;
            if TcpStream::connect(self.broker).await.is_err() {
                sleep(LOOK_AGAIN).await;
                continue;
            }
            let listener = match TcpListener::bind(self.listen).await {
                Ok(listener) => listener,
                Err(error) => {
                    eprintln!("{}: {error}", self.listen);
                    sleep(LOOK_AGAIN).await;
                    continue;
                }
            };
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = self.until(|faults| faults.refuse) => break,
                    () = self.unreachable.notified() => break,
                };
                match accepted {
                    Ok((client, _)) => drop(tokio::spawn(self.clone().connect(client))),
                    Err(error) => eprintln!("{}: {error}", self.listen),
                }
            }
        }
    }

    async fn connect(self: Arc<Self>, client: TcpStream) {
        self.count("connections");
        if self.until(|faults| !faults.freeze).await.hang_up {
            return self.count("hang-up");
        }
        match TcpStream::connect(self.broker).await {
            Ok(broker) => relay::run(&self, client, broker).await,
            Err(_) => {
                self.count("unreachable");
                self.unreachable.notify_waiters();
            }
        }
    }
}
