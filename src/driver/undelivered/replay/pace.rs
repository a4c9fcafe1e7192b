//! How many lines of the backup may be handed over, and when: `replay_rate` lines a second, in lots that are small
//! enough to be even and large enough not to keep the driver awake. Runs on the driver.

use crate::producer::Time;
use std::time::Duration;

/// Time between lots.
const LOT: Duration = Duration::from_millis(20);
/// Microseconds without a lot that count for the rate.
const LONGEST_GAP: u64 = 2_000_000;
/// The largest lot is what the rate allows in this time.
const LARGEST_LOT: Duration = Duration::from_millis(50);

pub(super) struct Pace {
    /// Lines a second; 0: any number.
    rate: u64,
    /// Lines that the rate allows now, and when that was last reckoned.
    allowed: u64,
    reckoned: Time,
}

impl Pace {
    pub fn new(now: Time, rate: u64) -> Pace {
        Pace { rate, allowed: 0, reckoned: now }
    }

    /// When the next lot is due.
    pub fn next_lot(&self) -> Time {
        let one = Duration::from_micros(1_000_000_u64.checked_div(self.rate).unwrap_or(0));
        self.reckoned + LOT.max(one)
    }

    /// How many lines may be handed over now.
    pub fn allowance(&mut self, now: Time) -> usize {
        if self.rate == 0 {
            return usize::MAX;
        }
        self.reckoned = self.reckoned.max(Time(now.0.saturating_sub(LONGEST_GAP)));
        let gained = now.since(self.reckoned).as_micros() as u64 * self.rate / 1_000_000;
        if gained > 0 {
            self.reckoned = self.reckoned + Duration::from_micros(gained * 1_000_000 / self.rate);
            let most = self.rate * LARGEST_LOT.as_millis() as u64 / 1000;
            self.allowed = (self.allowed + gained).min(most.max(1));
        }
        self.allowed as usize
    }

    /// So many were handed over.
    pub fn spend(&mut self, lines: usize) {
        self.allowed = self.allowed.saturating_sub(lines as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dsk_05_the_rate_is_kept_however_often_it_is_asked() {
        for (rate, every_us) in [(1, 700), (50, 13_000), (1_000, 20_000), (1_000, 1), (7_000, 999)]
        {
            let mut pace = Pace::new(Time(0), rate);
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
        assert_eq!(Pace::new(Time(0), 0).allowance(Time(0)), usize::MAX);
    }
}
