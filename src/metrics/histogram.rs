//! Durations, counted by classes.

use std::time::Duration;

/// The first class has durations up to 2^6 = 64 µs, and each bound is twice the one before,
/// so the class of a duration is its number of bits.
const FIRST_BITS: u32 = 6;

/// Number of bounds. The last is 2^23 µs, about 8.4 s; longer durations are in a class of
/// their own.
const BOUNDS: usize = 18;

/// Number of classes.
pub(super) const CLASSES: usize = BOUNDS + 1;

/// Returns the class of a duration.
pub(super) fn class_of(us: u64) -> usize {
    let bits = u64::BITS - us.saturating_sub(1).leading_zeros();
    (bits.saturating_sub(FIRST_BITS) as usize).min(BOUNDS)
}

/// Returns the longest duration of each class but the last.
fn bounds_us() -> impl Iterator<Item = u64> {
    (FIRST_BITS..).take(BOUNDS).map(|bits| 1 << bits)
}

/// Durations, counted by classes: up to 64 µs, up to twice that, and so on up to about
/// 8.4 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    pub(super) counts: [u64; CLASSES],
    pub(super) sum_us: u64,
}

impl Histogram {
    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// Returns the classes: the longest duration of each (the last one has no bound), and
    /// the number of durations in this class alone.
    pub fn classes(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = bounds_us().map(|us| Some(Duration::from_micros(us)));
        bounds.chain([None]).zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_class_and_what_is_beyond_all_to_the_last() {
        for (us, class) in [(0, 0), (1, 0), (64, 0), (65, 1), (128, 1), (129, 2)] {
            assert_eq!(class_of(us), class, "{us}");
        }
        for (class, us) in bounds_us().enumerate() {
            assert_eq!((class_of(us), class_of(us + 1)), (class, class + 1));
        }
        assert_eq!(class_of(u64::MAX), CLASSES - 1);
    }

    #[test]
    fn classes_have_their_bounds() {
        let mut histogram = Histogram::default();
        (histogram.counts[0], histogram.counts[CLASSES - 1]) = (2, 1);
        let classes: Vec<_> = histogram.classes().filter(|(_, n)| *n > 0).collect();
        assert_eq!(classes, [(Some(Duration::from_micros(64)), 2), (None, 1)]);
        assert_eq!(histogram.count(), 3);
    }
}
