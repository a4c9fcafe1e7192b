//! How many lines of the backup may be handed over, and when: `replay_rate` lines a second, in lots that are small
//! enough to be even and large enough not to keep the driver awake. Runs on the driver.

use super::auto_rate::{AutoRate, FLOOR};
use crate::config::ReplayRate;
use crate::producer::Time;
use std::time::Duration;

/// Time between lots.
const LOT: Duration = Duration::from_millis(20);
/// Microseconds without a lot that count for the rate.
const LONGEST_GAP: u64 = 2_000_000;
/// The largest lot is what the rate allows in this time.
const LARGEST_LOT: Duration = Duration::from_millis(50);
/// The largest lot of an automatic rate is no less than this: its floor is kept across the pause between two chunks.
const LARGEST_LOT_AT_FLOOR: u64 = FLOOR / 2;

pub(super) struct Pace {
    rate: Rate,
    /// Lines that the rate allows now, and when that was last reckoned.
    allowed: u64,
    reckoned: Time,
}

enum Rate {
    Fixed(u64),
    Auto(AutoRate),
}

impl Pace {
    pub fn new(now: Time, rate: ReplayRate) -> Pace {
        let rate = match rate {
            ReplayRate::Auto => Rate::Auto(AutoRate::new(now)),
            ReplayRate::Fixed(rate) => Rate::Fixed(rate),
        };
        Pace { rate, allowed: 0, reckoned: now }
    }

    /// Lines a second; `None`: any number.
    fn rate(&mut self, now: Time) -> Option<u64> {
        match &mut self.rate {
            Rate::Fixed(0) => None,
            Rate::Fixed(rate) => Some(*rate),
            Rate::Auto(auto) => auto.rate(now),
        }
    }

    /// New messages were acknowledged, the oldest of which was logged so long ago.
    pub fn acknowledged(&mut self, now: Time, messages: usize, latency: Duration) {
        if let Rate::Auto(auto) = &mut self.rate {
            auto.acknowledged(now, messages as u64, latency);
        }
    }

    /// When the next lot is due.
    pub fn next_lot(&self) -> Time {
        let one = match self.rate {
            Rate::Fixed(rate) => 1_000_000_u64.checked_div(rate).unwrap_or(0),
            Rate::Auto(_) => 0,
        };
        self.reckoned + LOT.max(Duration::from_micros(one))
    }

    /// How many lines may be handed over now.
    pub fn allowance(&mut self, now: Time) -> usize {
        let Some(rate) = self.rate(now) else {
            self.reckoned = now;
            return usize::MAX;
        };
        self.reckoned = self.reckoned.max(Time(now.0.saturating_sub(LONGEST_GAP)));
        let gained = now.since(self.reckoned).as_micros() as u64 * rate / 1_000_000;
        if gained > 0 {
            self.reckoned = self.reckoned + Duration::from_micros(gained * 1_000_000 / rate);
            self.allowed = (self.allowed + gained).min(self.largest_lot(rate));
        }
        self.allowed as usize
    }

    fn largest_lot(&self, rate: u64) -> u64 {
        let largest = rate * LARGEST_LOT.as_millis() as u64 / 1000;
        match self.rate {
            Rate::Fixed(_) => largest.max(1),
            Rate::Auto(_) => largest.max(LARGEST_LOT_AT_FLOOR),
        }
    }

    /// So many were handed over.
    pub fn spend(&mut self, lines: usize) {
        self.allowed = self.allowed.saturating_sub(lines as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::random::Random;

    #[test]
    fn dsk_05_the_rate_is_kept_however_often_it_is_asked() {
        for (rate, every_us) in [(1, 700), (50, 13_000), (1_000, 20_000), (1_000, 1), (7_000, 999)]
        {
            let mut pace = Pace::new(Time(0), ReplayRate::Fixed(rate));
            let (mut now, mut sent) = (0, 0);
            while now < 10_000_000_u64.min(every_us * 100_000) {
                now += every_us;
                let lot = pace.allowance(Time(now));
                pace.spend(lot);
                sent += lot as u64;
            }
            let due = rate * now / 1_000_000;
            assert!(sent <= due && sent + rate / 20 + 1 >= due, "{sent} of {due} at {rate}/s");
        }
    }

    #[test]
    fn a_rate_of_0_is_none() {
        assert_eq!(Pace::new(Time(0), ReplayRate::Fixed(0)).allowance(Time(0)), usize::MAX);
    }

    /// A cluster that takes so many messages a second, first come, first served, and answers what it has taken after
    /// `rtt_us`, give or take a tenth. New messages come in batches, every 10 ms.
    struct Cluster {
        capacity: u64,
        rtt_us: u64,
        /// When it has taken all that it was sent.
        busy_until: u64,
        random: Random,
        acks: Vec<(u64, u64, u64)>,
        latencies: Vec<u64>,
    }

    /// What was acknowledged in a simulated time.
    struct Seen {
        replayed: u64,
        new: u64,
        /// 99th percentile of new messages' latency, in microseconds.
        p99: u64,
    }

    impl Cluster {
        fn new(seed: u64, capacity: u64, rtt_us: u64) -> Cluster {
            let random = Random::new(seed);
            let (acks, latencies) = (Vec::new(), Vec::new());
            Cluster { capacity, rtt_us, busy_until: 0, random, acks, latencies }
        }

        /// Sends a batch; returns when it is acknowledged.
        fn send(&mut self, now: u64, messages: u64) -> u64 {
            self.busy_until = self.busy_until.max(now) + messages * 1_000_000 / self.capacity;
            let jitter = self.random.below(self.rtt_us / 5 + 1);
            self.busy_until + self.rtt_us * 9 / 10 + jitter
        }

        /// Runs from `from` to `to` (milliseconds) with `rate` new messages a second.
        fn run(&mut self, pace: &mut Pace, from: u64, to: u64, rate: u64) -> Seen {
            let mut seen = Seen { replayed: 0, new: 0, p99: 0 };
            self.latencies.clear();
            for ms in from..to {
                let now = ms * 1_000;
                if ms % 10 == 0 && rate > 0 {
                    let batch = rate / 100 / 2 + self.random.below(rate / 100 + 1);
                    let at = self.send(now, batch);
                    self.acks.push((at, batch, now));
                }
                self.acks.sort_unstable();
                let due = self.acks.partition_point(|(at, ..)| *at <= now);
                for (_, batch, sent) in self.acks.drain(..due) {
                    seen.new += batch;
                    self.latencies.push(now - sent);
                    let latency = Duration::from_micros(now - sent);
                    pace.acknowledged(Time(now), batch as usize, latency);
                }
                if ms % 20 == 0 {
                    // A chunk in hand has at most so many lines.
                    let lot = pace.allowance(Time(now)).min(4_096);
                    pace.spend(lot);
                    self.send(now, lot as u64);
                    seen.replayed += lot as u64;
                }
            }
            self.latencies.sort_unstable();
            seen.p99 = self.latencies.get(self.latencies.len() * 99 / 100).copied().unwrap_or(0);
            seen
        }
    }

    fn auto() -> Pace {
        Pace::new(Time(0), ReplayRate::Auto)
    }

    #[test]
    fn flt_21_without_new_messages_replay_takes_whatever_there_is() {
        let mut pace = auto();
        let mut cluster = Cluster::new(1, 1_000_000, 2_000);
        cluster.run(&mut pace, 0, 1_500, 0);
        assert_eq!(pace.allowance(Time(1_500_000)), usize::MAX);
    }

    #[test]
    fn flt_21_beside_new_messages_replay_takes_as_much_as_they_and_no_more() {
        for seed in 0..20 {
            for rate in [5_000, 50_000] {
                let (mut pace, mut cluster) = (auto(), Cluster::new(seed, 1_000_000, 5_000));
                cluster.run(&mut pace, 0, 30_000, rate);
                let seen = cluster.run(&mut pace, 30_000, 58_000, rate);
                assert!(seen.replayed <= seen.new + rate / 20, "{} of {}", seen.replayed, seen.new);
                assert!(seen.replayed > seen.new * 7 / 10, "{} of {}", seen.replayed, seen.new);
            }
        }
    }

    #[test]
    fn flt_21_new_messages_keep_their_latency_where_the_brokers_have_little_to_spare() {
        for seed in 0..20 {
            for (rate, capacity) in [(20_000, 30_000), (50_000, 60_000), (5_000, 7_000)] {
                let run = |mut pace: Pace| {
                    Cluster::new(seed, capacity, 20_000).run(&mut pace, 0, 120_000, rate)
                };
                // The floor is there whatever it costs.
                let at_floor = run(Pace::new(Time(0), ReplayRate::Fixed(FLOOR)));
                let seen = run(auto());
                // A tenth, and the step of this clock.
                let (p99, bound) = (seen.p99, at_floor.p99 * 11 / 10 + 1_000);
                assert!(p99 <= bound, "{p99} of {bound}, {rate} of {capacity}, seed {seed}");
                if capacity == 30_000 {
                    assert!(seen.replayed > 2 * at_floor.replayed, "{}", seen.replayed);
                }
                assert!(seen.replayed >= 118 * FLOOR, "{}", seen.replayed);
            }
        }
    }

    #[test]
    fn flt_21_the_floor_wins_over_few_new_messages_and_slow_ones() {
        for seed in 0..20 {
            for (rate, capacity) in [(200, 1_000_000), (5_000, 6_100)] {
                let (mut pace, mut cluster) = (auto(), Cluster::new(seed, capacity, 5_000));
                let seen = cluster.run(&mut pace, 0, 60_000, rate);
                assert!(seen.replayed >= 58 * FLOOR, "{}", seen.replayed);
            }
        }
    }

    #[test]
    fn flt_21_replay_goes_on_at_any_rate_once_nothing_new_comes_and_gives_way_again() {
        let (mut pace, mut cluster) = (auto(), Cluster::new(7, 1_000_000, 5_000));
        cluster.run(&mut pace, 0, 10_000, 2_000);
        let idle = cluster.run(&mut pace, 10_000, 20_000, 0);
        assert!(idle.replayed > 8 * 50 * 4_096, "{}", idle.replayed);
        let busy = cluster.run(&mut pace, 20_000, 40_000, 2_000);
        assert!(busy.replayed <= busy.new + FLOOR + 4_096, "{} of {}", busy.replayed, busy.new);
    }
}
