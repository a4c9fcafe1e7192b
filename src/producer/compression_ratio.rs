//! What compression leaves of a batch: measured when one is encoded, and expected of a topic's next ones, so that batches
//! are closed by what they take on the wire.
//!
//! A topic's estimate goes by Java's rule (`CompressionRatioEstimator`): a batch that shrank less raises it at once, one that
//! shrank more lowers it by a small step, so that a batch larger than expected stays rare.

/// Encoded size to size without compression, in 65536ths. Without compression it is 1, since sizes are upper bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ratio(u32);

impl Ratio {
    /// Nothing is compressed.
    pub const ONE: Ratio = Ratio(1 << 16);

    /// Batches are never expected to shrink to less, so that their size in memory is bounded by the configured one.
    const LEAST_EXPECTED: Ratio = Ratio(Ratio::ONE.0 / 16);

    /// The ratio of two sizes, 1 at most.
    pub fn between(encoded: usize, plain: usize) -> Ratio {
        let ratio = (encoded as u64 * u64::from(Ratio::ONE.0)).div_ceil(plain.max(1) as u64);
        Ratio(ratio.min(u64::from(Ratio::ONE.0)) as u32)
    }

    /// What is left of so many bytes.
    pub fn of(self, bytes: usize) -> usize {
        (bytes as u64 * u64::from(self.0)).div_ceil(u64::from(Ratio::ONE.0)) as usize
    }
}

impl Default for Ratio {
    fn default() -> Ratio {
        Ratio::ONE
    }
}

/// What a topic's batches came to.
#[derive(Debug, Default)]
pub(super) struct Estimate(Ratio);

impl Estimate {
    /// By how much a batch that shrank more lowers it, and one that shrank less raises it at least.
    const DOWN: u32 = Ratio::ONE.0 / 200;
    const UP: u32 = Ratio::ONE.0 / 20;

    /// A batch came to this.
    pub fn observe(&mut self, seen: Ratio) {
        let expected = &mut self.0.0;
        *expected = match seen.0 > *expected {
            true => (*expected + Self::UP).max(seen.0).min(Ratio::ONE.0),
            false => expected.saturating_sub(Self::DOWN).max(seen.0),
        };
    }

    /// A batch was too large for a broker: nothing is expected of the next ones.
    pub fn reset(&mut self) {
        self.0 = Ratio::ONE;
    }

    /// What is expected of the next batch, a twentieth more than of the last ones.
    pub fn expected(&self) -> Ratio {
        let expected = self.0.0 + self.0.0 / 20;
        Ratio(expected.clamp(Ratio::LEAST_EXPECTED.0, Ratio::ONE.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_compression_sizes_stay_as_they_are() {
        for bytes in [0, 1, 61, 1_000_003, 1 << 30] {
            assert_eq!(Ratio::ONE.of(bytes), bytes);
            assert_eq!(Estimate::default().expected().of(bytes), bytes);
        }
        assert_eq!(Ratio::between(0, 0), Ratio(0));
        assert_eq!(Ratio::between(500, 400), Ratio::ONE);
    }

    #[test]
    fn a_measured_size_is_not_below_what_it_was() {
        for (encoded, plain) in [(1, 3), (177, 1000), (333_333, 1_000_000), (999, 1000)] {
            let again = Ratio::between(encoded, plain).of(plain);
            assert!((encoded..=encoded + 1 + plain / 65536).contains(&again), "{encoded} {again}");
        }
    }

    #[test]
    fn the_estimate_goes_down_slowly_and_up_at_once() {
        let mut estimate = Estimate::default();
        let small = Ratio::between(1, 5);
        for _ in 0..100 {
            estimate.observe(small);
        }
        let on_the_way_down = estimate.expected().of(1000);
        assert!((500..600).contains(&on_the_way_down), "{on_the_way_down}");
        (0..100).for_each(|_| estimate.observe(small));
        assert!((200..=212).contains(&estimate.expected().of(1000)));
        estimate.observe(Ratio::between(1, 2));
        assert!((500..=526).contains(&estimate.expected().of(1000)));
        estimate.reset();
        assert_eq!(estimate.expected(), Ratio::ONE);
    }

    #[test]
    fn batches_are_at_most_sixteen_times_as_large_in_memory() {
        let mut estimate = Estimate::default();
        (0..300).for_each(|_| estimate.observe(Ratio::between(1, 1000)));
        assert_eq!(estimate.expected().of(1_600_000), 100_000);
    }
}
