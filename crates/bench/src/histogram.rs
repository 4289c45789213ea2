//! Latencies of very many deliveries, in little memory.

use std::time::Duration;

/// Latencies in nanoseconds, to two significant digits.
#[derive(Clone, Debug)]
pub(crate) struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Histogram(hdrhistogram::Histogram::new(2).expect("two digits are in the range"))
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, time: Duration, count: usize) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        (self.0.record_n(ns, count as u64)).expect("it grows as needed");
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        self.0.add(&other.0).expect("it grows as needed");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of latencies.
    pub(crate) fn total(&self) -> u64 {
        self.0.len()
    }

    /// Returns the latency in milliseconds that this share does not exceed, at most 1 %
    /// too high.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_1_percent() {
        let (mut fast, mut slow) = (Histogram::default(), Histogram::default());
        for us in 1..=5_000 {
            fast.add(Duration::from_micros(us), 1);
            slow.add(Duration::from_micros(5_000 + us), 1);
        }
        slow.merge(&fast);
        assert_eq!(slow.total(), 10_000);
        for share in [0.01, 0.5, 0.99, 1.0] {
            let ratio = slow.quantile_ms(share) / (share * 10.0);
            assert!((1.0..1.01).contains(&ratio), "{share}: {ratio}");
        }
    }
}
