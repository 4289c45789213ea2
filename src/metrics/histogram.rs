//! How long things take: times counted by classes.

use std::time::Duration;

/// The bounds of the classes, in microseconds. What takes longer than the last
/// is in a class of its own.
pub(super) const BOUNDS_US: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// How many classes there are.
pub(super) const CLASSES: usize = BOUNDS_US.len() + 1;

/// The class of a time. Most are of the first, which is found at once.
pub(super) fn class_of(us: u64) -> usize {
    if us <= BOUNDS_US[0] {
        return 0;
    }
    BOUNDS_US.partition_point(|bound| *bound < us)
}

/// Times, counted by classes from 50 µs to 10 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    pub(super) counts: [u64; CLASSES],
    pub(super) sum_us: u64,
}

impl Histogram {
    /// How many times were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All times together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// Each class: the longest time that belongs to it (the last one has no
    /// bound) and how many there were, of this class alone.
    pub fn classes(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = BOUNDS_US.iter().map(|us| Some(Duration::from_micros(*us)));
        bounds.chain([None]).zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_class_and_what_is_beyond_all_to_the_last() {
        for (us, class) in [(0, 0), (50, 0), (51, 1), (100, 1), (101, 2), (1_000, 4)] {
            assert_eq!(class_of(us), class, "{us}");
        }
        assert_eq!(class_of(10_000_000), CLASSES - 2);
        assert_eq!(class_of(u64::MAX), CLASSES - 1);
        for (class, us) in BOUNDS_US.into_iter().enumerate() {
            assert_eq!(class_of(us), class);
        }
    }

    #[test]
    fn classes_have_their_bounds() {
        let mut histogram = Histogram::default();
        (histogram.counts[0], histogram.counts[CLASSES - 1]) = (2, 1);
        let classes: Vec<_> = histogram.classes().filter(|(_, n)| *n > 0).collect();
        assert_eq!(classes, [(Some(Duration::from_micros(50)), 2), (None, 1)]);
        assert_eq!(histogram.count(), 3);
    }
}
