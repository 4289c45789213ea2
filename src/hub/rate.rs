//! A limit on a rate. Pure: the time is an argument.

use std::time::Duration;

/// A number per second on average, and a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rate {
    /// The average number per second.
    pub per_second: f64,
    /// The number at once, after a long enough pause.
    pub burst: u32,
}

impl Rate {
    /// Returns a rate of `count` per second, with a burst of the same number, at least 1.
    ///
    /// # Panics
    /// When the rate is not a positive number.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    pub fn per_second(count: f64) -> Rate {
        assert!(
            count.is_finite() && count > 0.0,
            "a rate is a positive number"
        );
        Rate {
            per_second: count,
            burst: (count.ceil() as u32).max(1),
        }
    }

    /// Sets the burst, at least 1.
    #[must_use]
    pub fn burst(mut self, count: u32) -> Rate {
        self.burst = count.max(1);
        self
    }
}

/// What is left of a rate: a token bucket, which fills by time.
/// Channels have one for their own limit; this is for limits that a program
/// sets on something else, such as what one address may publish.
///
/// Times are milliseconds of any clock that never goes back; one that is earlier
/// than another before counts as that.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    left: f64,
    filled_at_ms: u64,
}

impl Bucket {
    /// Returns a full bucket.
    #[must_use]
    pub fn new(rate: Rate, now_ms: u64) -> Bucket {
        Bucket {
            left: f64::from(rate.burst),
            filled_at_ms: now_ms,
        }
    }

    /// Takes `count` tokens.
    ///
    /// # Errors
    /// When too few are left: the time after which there are enough. Then none are
    /// taken. More than a full bucket holds is allowed when the bucket is full, and the
    /// bucket is in debt.
    pub fn take(&mut self, rate: Rate, count: usize, now_ms: u64) -> Result<(), Duration> {
        let passed_ms = now_ms.saturating_sub(self.filled_at_ms);
        let full = f64::from(rate.burst);
        #[allow(
            clippy::cast_precision_loss,
            reason = "a few milliseconds in 285,000 years"
        )]
        let filled = self.left + passed_ms as f64 / 1000.0 * rate.per_second;
        self.left = filled.min(full);
        // Threads that take tokens at once may have read the time in another order.
        self.filled_at_ms = self.filled_at_ms.max(now_ms);
        #[allow(clippy::cast_precision_loss, reason = "no batch has 2^52 events")]
        let count = count as f64;
        let needed = count.min(full);
        if self.left < needed {
            let seconds = (needed - self.left) / rate.per_second;
            return Err(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        }
        self.left -= count;
        Ok(())
    }

    /// Returns whether the bucket is full, so that it need not be kept.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "a few milliseconds in 285,000 years"
    )]
    pub fn is_full(&self, rate: Rate, now_ms: u64) -> bool {
        let passed_ms = now_ms.saturating_sub(self.filled_at_ms);
        self.left + passed_ms as f64 / 1000.0 * rate.per_second >= f64::from(rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_and_then_the_rate_holds() {
        let rate = Rate::per_second(10.0).burst(3);
        let mut bucket = Bucket::new(rate, 0);
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, 1, 0), Ok(()));
        }
        assert_eq!(bucket.take(rate, 1, 0), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(rate, 1, 100), Ok(()));
        assert!(bucket.take(rate, 1, 150).is_err());
        assert!(!bucket.is_full(rate, 150));
        assert!(bucket.is_full(rate, 400));
    }

    #[test]
    fn no_time_is_counted_twice() {
        let rate = Rate::per_second(10.0).burst(1);
        let mut bucket = Bucket::new(rate, 0);
        assert_eq!(bucket.take(rate, 1, 100), Ok(()));
        assert!(bucket.take(rate, 1, 50).is_err());
        assert!(bucket.take(rate, 1, 150).is_err());
        assert_eq!(bucket.take(rate, 1, 200), Ok(()));
    }

    #[test]
    fn a_batch_larger_than_the_bucket_is_paid_for_after() {
        let rate = Rate::per_second(1.0).burst(2);
        let mut bucket = Bucket::new(rate, 0);
        assert_eq!(bucket.take(rate, 5, 0), Ok(()));
        assert_eq!(bucket.take(rate, 1, 0), Err(Duration::from_secs(4)));
    }
}
