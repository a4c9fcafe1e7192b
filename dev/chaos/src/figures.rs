//! The figures of a run, out of what was written down in its directory: how long log() and /ping took, and how soon all
//! was well again after outages and kills.
//!
//! `times` and `acks` are the load's, `watched` is that of `chaos watch`; `kills` has lines `MILLISECONDS PID`, and
//! `events` among others `MILLISECONDS back OUTAGE MILLISECONDS`, the end of an outage.

use crate::load::quantile;
use std::collections::HashMap;
use std::fs;
use std::process::ExitCode;

/// The lines of the table, and whose times they are.
const ROWS: [(&str, &str); 10] = [
    ("log(), quiet", "log_quiet"),
    ("log(), with faults", "log_faults"),
    ("a new worker's, quiet", "new_quiet"),
    ("a new worker's, with faults", "new_faults"),
    ("those that refused", "refusal_faults"),
    ("/ping, quiet", "ping_quiet"),
    ("/ping, with faults", "ping_faults"),
    ("a new worker's, with faults", "new_ping_faults"),
    ("without lkfk, quiet", "control_quiet"),
    ("without lkfk, with faults", "control_faults"),
];

const NOT_SEEN: &str = "not seen";

/// `chaos figures DIRECTORY`
pub fn main(arguments: &[&str]) -> Result<ExitCode, String> {
    let [directory] = arguments else {
        return Err("chaos figures: takes a directory".to_owned());
    };
    let read = |name: &str| {
        let file = format!("{directory}/{name}");
        fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))
    };
    let (kills, watched) = (read("kills")?, read("watched")?);
    print!("{}", table(&Times::parse(&read("times")?)));
    println!(
        "  first acknowledgement after an outage: {}",
        recoveries(&read("events")?, &read("acks")?)
    );
    println!(
        "  a killed worker's queue was taken over after {}",
        told(delays(&kills, &watched, "adopted"))
    );
    println!("  and was empty after {}", told(delays(&kills, &watched, "gone")));
    Ok(ExitCode::SUCCESS)
}

/// Nanoseconds by name, as WHAT_PHASE_QUANTILE.
struct Times<'a>(HashMap<&'a str, f64>);

impl<'a> Times<'a> {
    fn parse(text: &'a str) -> Times<'a> {
        let pair = |line: &'a str| {
            let (name, value) = line.split_once('=')?;
            Some((name, value.parse().ok()?))
        };
        Times(text.lines().filter_map(pair).collect())
    }

    /// Nothing where nothing was measured.
    fn get(&self, phase: &str, quantile: &str) -> Option<f64> {
        self.0.get(format!("{phase}_{quantile}").as_str()).copied().filter(|value| *value > 0.0)
    }

    /// The 99th percentile with faults by the quiet one.
    fn change(&self, what: &str) -> Option<f64> {
        Some(
            self.get(&format!("{what}_faults"), "p99")?
                / self.get(&format!("{what}_quiet"), "p99")?,
        )
    }
}

/// In microseconds. The machine is not the same from minute to minute, and is shared with all that the faults set in
/// motion: hence the nginx without lkfk.
fn table(times: &Times) -> String {
    let mut text =
        "                                      p50       p99     p99.9        most   microseconds\n".to_owned();
    for (name, phase) in ROWS {
        let cell = |quantile| times.get(phase, quantile).map(|nanoseconds| nanoseconds / 1000.0);
        let cells = match cell("max") {
            Some(most) => {
                let [p50, p99, p999] =
                    ["p50", "p99", "p999"].map(|quantile| cell(quantile).unwrap_or(0.0));
                format!("{p50:9.2} {p99:9.2} {p999:9.2} {most:11.0}")
            }
            None => format!("{0:>9} {0:>9} {0:>9} {0:>11}", "-"),
        };
        text += &format!("  {name:<29} {cells}\n");
    }
    let change = match (times.change("ping"), times.change("control")) {
        (Some(with), Some(without)) => format!("{:+.1} %", 100.0 * (with / without - 1.0)),
        _ => NOT_SEEN.to_owned(),
    };
    text + &format!(
        "  what the faults added to /ping's p99, beyond what the machine added without lkfk: {change}\n\n"
    )
}

/// For each end of an outage, what it was and the seconds to the first acknowledgement.
fn recoveries(events: &str, acks: &str) -> String {
    let acks: Vec<u64> = acks.lines().filter_map(|line| line.parse().ok()).collect();
    let recovery = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "back", outage, at] = words[..] else { return None };
        let at: u64 = at.parse().ok()?;
        let first = acks.iter().find(|ack| **ack >= at);
        Some(match first {
            Some(first) => format!("{outage} {:.1} s", (first - at) as f64 / 1000.0),
            None => format!("{outage} never"),
        })
    };
    let all: Vec<String> = events.lines().filter_map(recovery).collect();
    if all.is_empty() { "there was none".to_owned() } else { all.join(", ") }
}

/// Milliseconds from the kill of each worker to what became of its queue.
fn delays(kills: &str, watched: &str, what: &str) -> Vec<u64> {
    let number = |word: Option<&str>| word?.parse::<u64>().ok();
    let kill = |line: &str| {
        let mut words = line.split_whitespace();
        let at = number(words.next())?;
        Some((number(words.next())?, at))
    };
    let mut killed: HashMap<u64, u64> = kills.lines().filter_map(kill).collect();
    let mut delay = |line: &str| {
        let mut words = line.split_whitespace();
        let at = number(words.next())?;
        if words.next() != Some(what) {
            return None;
        }
        Some(at.saturating_sub(killed.remove(&number(words.next())?)?))
    };
    watched.lines().filter_map(&mut delay).collect()
}

fn told(mut delays: Vec<u64>) -> String {
    delays.sort_unstable();
    let Some(most) = delays.last() else { return NOT_SEEN.to_owned() };
    format!(
        "{} ms in the median, {} ms at 99 %, {most} ms at most ({})",
        quantile(&delays, 500),
        quantile(&delays, 990),
        delays.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLS: &str = "1000 7\n2000 8\n3000 9\n";

    #[test]
    fn a_delay_is_counted_from_the_kill_of_that_worker_and_once() {
        let watched =
            "1200 adopted 7\n1300 gone 7\n2050 adopted 8\n9000 adopted 7\n9000 adopted 5\n";
        assert_eq!(delays(KILLS, watched, "adopted"), [200, 50]);
        assert_eq!(delays(KILLS, watched, "gone"), [300]);
        assert_eq!(
            told(delays(KILLS, watched, "adopted")),
            "50 ms in the median, 200 ms at 99 %, 200 ms at most (2)"
        );
        assert_eq!(told(delays(KILLS, "", "adopted")), "not seen");
    }

    #[test]
    fn a_recovery_is_the_first_acknowledgement_after_the_end_of_the_outage() {
        let events = "50 fault outage 6\n90 back outage 100\n800 back refuse 900\n";
        assert_eq!(recoveries(events, "99\n1350\n1400\n"), "outage 1.2 s, refuse 0.5 s");
        assert_eq!(recoveries(events, "99\n400\n"), "outage 0.3 s, refuse never");
        assert_eq!(recoveries("50 fault outage 6\n", "99\n"), "there was none");
    }

    #[test]
    fn the_change_leaves_out_what_the_machine_did_without_lkfk() {
        let text = "ping_quiet_p50=500\nping_quiet_p99=1000\nping_quiet_p999=1500\nping_quiet_max=2500\n\
                    ping_faults_p99=3000\ncontrol_quiet_p99=1000\ncontrol_faults_p99=2000\n";
        let table = table(&Times::parse(text));
        let row =
            |name: &str| table.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        assert_eq!(
            row("/ping, quiet"),
            "  /ping, quiet                       0.50      1.00      1.50           2"
        );
        assert_eq!(
            row("log(), quiet").split_whitespace().collect::<Vec<_>>(),
            ["log(),", "quiet", "-", "-", "-", "-"]
        );
        assert!(table.ends_with("without lkfk: +50.0 %\n\n"), "{table}");
    }

    #[test]
    fn what_was_not_measured_is_not_seen() {
        assert!(table(&Times::parse("ping_quiet_p99=0\n")).ends_with("without lkfk: not seen\n\n"));
    }
}
