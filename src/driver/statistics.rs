//! The statistics of a producer: the table's rows, and how often there was a report of each kind.

use super::context::{Context, Shared};
use crate::producer::Producer;
use crate::report_kind::ReportKind;
use crate::stats::{self, ROWS};

/// The names of all statistics, in the order of their numbers.
pub fn names() -> impl Iterator<Item = &'static str> {
    let rows = ROWS.iter().map(|row| row.name);
    rows.chain(ReportKind::ALL.iter().map(|kind| kind.counter()))
}

impl Shared {
    /// The statistic of this number, counted as [`names`] does.
    pub fn statistic(&self, number: usize) -> Option<u64> {
        match ROWS.get(number) {
            Some(row) => Some(row.value(&self.stats)),
            None => {
                let kind = ReportKind::ALL.get(number - ROWS.len())?;
                Some(self.log.counts().of(*kind))
            }
        }
    }
}

/// Brings the statistics up to date that the producer counts.
pub(super) fn publish(cx: &Context<'_>, producer: &Producer, spilling: u64) {
    cx.shared.lua.topics.set_waiting_if_wanted(producer.waiting_records());
    let stats = &cx.shared.stats;
    let counts = producer.counts();
    stats::set(&stats.waitbuf, producer.in_flight_records());
    stats::set(&stats.batches_sent, counts.batches);
    stats::set(&stats.batch_records_max, counts.batch_records_max);
    stats::set(&stats.requests_sent, counts.requests);
    stats::set(&stats.batches_retried, counts.retries);
    stats::set(&stats.resent_in_doubt_cnt, counts.resent_in_doubt);
    stats::set(&stats.metadata_requests_sent, counts.metadata_requests);
    stats::set(&stats.throttle_ms, counts.throttled_ms);
    stats::set(&stats.connections_broken, counts.broken_connections);
    stats::set(&stats.spill_waiting, spilling);
    stats::set(&stats.log_lines_dropped, cx.shared.log.dropped());
}

#[cfg(test)]
mod tests {
    use super::super::report::queue::QueueReport;
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::collections::HashSet;

    #[test]
    fn each_statistic_has_a_number_and_a_name_of_its_own() {
        let shared = Shared::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        stats::set(&shared.stats.wakeups, 7);
        shared.report(&QueueReport::Starved);
        let seen: Vec<(&str, u64)> = names()
            .enumerate()
            .map(|(number, name)| (name, shared.statistic(number).unwrap()))
            .filter(|(_, value)| *value > 0)
            .collect();
        assert_eq!(seen, [("wakeups", 7), ("reported_queue_starved", 1)]);
        let all: HashSet<&str> = names().collect();
        assert_eq!(all.len(), names().count());
        assert_eq!(shared.statistic(all.len()), None);
    }
}
