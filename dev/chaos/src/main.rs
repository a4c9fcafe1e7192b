//! What `dev/chaos.sh` runs beside nginx and Kafka. One program, since the parts share what a payload is:
//!
//! ```text
//! chaos proxy    stands between lkfk and the brokers, and breaks what it is told to break
//! chaos load     asks nginx to log, at a steady rate, and writes down what log() took
//! chaos watch    sees when the queue of a dead worker is taken over, and when it is empty
//! chaos keep     keeps the lines of backup files that are removed
//! chaos judge    compares what was taken with what two readers found in Kafka, and the backup
//! chaos figures  says how long what took
//! ```
//! None of them shares code with lkfk: what they say about it is not its own opinion.

mod figures;
mod judge;
mod keep;
mod load;
mod proxy;
mod watch;

use std::process::ExitCode;

const USAGE: &str = "usage: chaos proxy CONTROL-PORT LISTEN-PORT=BROKER-ADDRESS...
       chaos load PORT RATE QUIET-SECONDS DIRECTORY
       chaos watch QUEUE-DIRECTORY FILE
       chaos keep BACKUP-DIRECTORY FILE TOPIC...
       chaos judge RUN LEDGER BACKUP-DIRECTORY REMOVED RECORDS strict|lenient REPEATS READER=FILE...
       chaos figures DIRECTORY";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.split_first() {
        Some((&"proxy", rest)) => proxy::main(rest),
        Some((&"load", rest)) => load::main(rest),
        Some((&"watch", rest)) => watch::main(rest),
        Some((&"keep", rest)) => keep::main(rest),
        Some((&"judge", rest)) => judge::main(rest),
        Some((&"figures", rest)) => figures::main(rest),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(code) => code,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

/// A runtime for one thread, and what runs on it until it returns.
fn run<T>(task: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| format!("no runtime: {error}"))?.block_on(task))
}
