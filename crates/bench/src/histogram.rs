//! Times in buckets: what very many deliveries took, in little memory.

use std::time::Duration;

/// Counts by time, each bucket a 32nd wider than the one before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// Buckets in which a time doubles.
const STEPS: u32 = 32;

impl Histogram {
    pub(crate) fn add(&mut self, time: Duration, count: usize) {
        let bucket = bucket(time);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += count as u64;
        self.total += count as u64;
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// How many times it holds.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The time, in milliseconds, below which this share of all lies; at most
    /// 3% too high.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let rank = share * self.total as f64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= rank {
                return ceiling_ns(bucket) / 1e6;
            }
        }
        ceiling_ns(self.counts.len()) / 1e6
    }
}

/// Below 64 ns a bucket is a nanosecond; above, the highest bit and the five
/// below it say which it is.
fn bucket(time: Duration) -> usize {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
    let shift = ns.ilog2().saturating_sub(STEPS.ilog2());
    let step = usize::try_from(ns >> shift).expect("below 64");
    (shift * STEPS) as usize + step
}

fn ceiling_ns(bucket: usize) -> f64 {
    let steps = STEPS as usize;
    let shift = (bucket / steps).saturating_sub(1);
    ((bucket - shift * steps + 1) as f64) * 2_f64.powf(shift as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_3_percent() {
        let mut histogram = Histogram::default();
        for us in 1..=10_000 {
            histogram.add(Duration::from_micros(us), 1);
        }
        for share in [0.01, 0.5, 0.99, 1.0] {
            let off = histogram.quantile_ms(share) / (share * 10.0);
            assert!((1.0..1.035).contains(&off), "{share}: {off}");
        }
    }

    #[test]
    fn buckets_rise_without_holes() {
        let times = (0..2_000).map(Duration::from_nanos);
        let buckets: Vec<usize> = times.map(bucket).collect();
        assert!(buckets.windows(2).all(|w| w[1] - w[0] <= 1));
        assert!(bucket(Duration::MAX) < 2_000);
    }
}
