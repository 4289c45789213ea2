//! The one place where the engine reads a clock.
//!
//! Everything else takes the time as an argument, in milliseconds since the
//! hub was made, so that a simulated run repeats itself to the last byte.
//!
//! Intervals are counted by a clock that never goes back, and that counts on while
//! the machine is suspended: ages, deadlines and credentials run out meanwhile. What
//! is shown or compared with times from outside is the wall clock's, which may be
//! corrected at any moment. So it is read again each time, and a time of the first
//! clock is placed relative to it.

#[cfg(feature = "internals")]
use std::sync::atomic::AtomicU64;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A hub's time: the system's, or counters that a test moves.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// What is added to the system's time: a restored history is older than
    /// this clock.
    ahead_ms: u64,
    /// What the wall clock would have shown when this clock stood at zero, in
    /// milliseconds since 1970. It changes when the wall clock is corrected.
    zero_ms: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
enum Source {
    System(Moment),
    #[cfg(feature = "internals")]
    Manual {
        now_ms: Arc<AtomicU64>,
        wall_ms: Option<Arc<AtomicU64>>,
    },
}

/// How far the two clocks may differ before the wall clock counts as corrected. Two
/// readings are never at one moment, and a time that is shown twice should be the
/// same.
const TOLERANCE_MS: i64 = 100;

/// A moment of a clock that counts while the machine is suspended, where the system
/// has one.
#[derive(Clone, Copy, Debug)]
struct Moment(
    #[cfg(target_os = "linux")] Duration,
    #[cfg(not(target_os = "linux"))] std::time::Instant,
);

impl Moment {
    #[cfg(target_os = "linux")]
    fn now() -> Moment {
        use nix::time::{ClockId, clock_gettime};
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME);
        Moment(now.expect("Linux has had this clock since 2.6.39").into())
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::disallowed_methods, reason = "this is the edge")]
    fn now() -> Moment {
        Moment(std::time::Instant::now())
    }

    fn elapsed(self) -> Duration {
        #[cfg(target_os = "linux")]
        return Moment::now().0.saturating_sub(self.0);
        #[cfg(not(target_os = "linux"))]
        return self.0.elapsed();
    }
}

/// Returns whole milliseconds; `u64::MAX` for a longer time.
pub(crate) fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the milliseconds since 1970; 0 for an earlier time.
fn since_1970_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, as_ms)
}

/// What the wall clock shows now, in milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "this is the edge")]
pub(crate) fn wall_now_ms() -> u64 {
    since_1970_ms(SystemTime::now())
}

impl Clock {
    /// Returns the system's clock, counted from now.
    #[must_use]
    pub fn system() -> Clock {
        Clock::new(Source::System(Moment::now()), 0)
    }

    /// Returns a clock that stands still until another number of milliseconds is
    /// stored in `now_ms`. Its wall clock starts at the Unix epoch.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn manual(now_ms: Arc<AtomicU64>) -> Clock {
        let wall_ms = None;
        Clock::new(Source::Manual { now_ms, wall_ms }, 0)
    }

    /// Returns such a clock with a wall clock that shows `wall_ms`, in milliseconds
    /// since 1970.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn manual_with_wall(now_ms: Arc<AtomicU64>, wall_ms: Arc<AtomicU64>) -> Clock {
        let wall_ms = Some(wall_ms);
        Clock::new(Source::Manual { now_ms, wall_ms }, 0)
    }

    /// Returns a clock of the same source that stood at zero at least `ms` ago.
    pub(crate) fn begun_ago(&self, ms: u64) -> Clock {
        let shown_ms = self.now_ms() - self.ahead_ms;
        Clock::new(self.source.clone(), ms.saturating_sub(shown_ms))
    }

    fn new(source: Source, ahead_ms: u64) -> Clock {
        let clock = Clock {
            source,
            ahead_ms,
            zero_ms: Arc::default(),
        };
        clock.zero_ms.store(clock.read_zero_ms(), Ordering::Relaxed);
        clock
    }

    /// Returns the milliseconds since this clock was made. Never goes back.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "584 million years")]
    pub fn now_ms(&self) -> u64 {
        let shown_ms = match &self.source {
            Source::System(start) => start.elapsed().as_millis() as u64,
            #[cfg(feature = "internals")]
            Source::Manual { now_ms, .. } => now_ms.load(Ordering::Relaxed),
        };
        self.ahead_ms + shown_ms
    }

    /// Returns the same in microseconds, to measure with.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        let shown_us = match &self.source {
            Source::System(start) => {
                let shown = start.elapsed();
                shown.as_secs() * 1_000_000 + u64::from(shown.subsec_micros())
            }
            #[cfg(feature = "internals")]
            Source::Manual { now_ms, .. } => now_ms.load(Ordering::Relaxed) * 1000,
        };
        self.ahead_ms * 1000 + shown_us
    }

    /// Returns for how long there has been this clock: of a restored history, not
    /// since that began.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_micros(self.now_us() - self.ahead_ms * 1000)
    }

    /// Returns what the wall clock, as it goes now, showed at `at_ms` of this clock.
    #[must_use]
    pub fn wall(&self, at_ms: u64) -> SystemTime {
        let (noted_ms, read_ms) = (self.zero_ms.load(Ordering::Relaxed), self.read_zero_ms());
        let is_corrected = (read_ms - noted_ms).abs() > TOLERANCE_MS;
        let zero_ms = if is_corrected { read_ms } else { noted_ms };
        if is_corrected {
            self.zero_ms.store(zero_ms, Ordering::Relaxed);
        }
        let at_ms = zero_ms.saturating_add_unsigned(at_ms);
        UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or(0))
    }

    /// Returns what the wall clock shows now, as it is. A clock of a test has the system's
    /// if it has none of its own.
    pub(crate) fn read_wall_ms(&self) -> u64 {
        match &self.source {
            #[cfg(feature = "internals")]
            Source::Manual {
                wall_ms: Some(wall_ms),
                ..
            } => wall_ms.load(Ordering::Relaxed),
            _ => wall_now_ms(),
        }
    }

    /// Returns what the wall clock shows now, in milliseconds since 1970.
    pub(crate) fn wall_ms(&self) -> u64 {
        since_1970_ms(self.wall(self.now_ms()))
    }

    /// Returns what the wall clock shows, less the time of this clock.
    fn read_zero_ms(&self) -> i64 {
        let wall_ms = match &self.source {
            Source::System(_) => wall_now_ms(),
            #[cfg(feature = "internals")]
            Source::Manual { wall_ms: None, .. } => return 0,
            #[cfg(feature = "internals")]
            Source::Manual {
                wall_ms: Some(wall_ms),
                ..
            } => wall_ms.load(Ordering::Relaxed),
        };
        wall_ms
            .cast_signed()
            .wrapping_sub(self.now_ms().cast_signed())
    }
}

#[cfg(all(test, feature = "internals"))]
mod tests {
    use super::*;

    /// 2026-01-01, in milliseconds.
    const NEW_YEAR_MS: u64 = 1_767_225_600_000;

    #[test]
    fn wall_time_follows_a_correction() {
        let [now, wall] = [0, 1000].map(|ms| Arc::new(AtomicU64::new(ms)));
        let clock = Clock::manual_with_wall(now.clone(), wall.clone());
        let shown_ms = |at_ms| {
            let since = clock.wall(at_ms).duration_since(UNIX_EPOCH);
            since.unwrap().as_millis()
        };
        assert_eq!((shown_ms(0), shown_ms(500)), (1000, 1500));
        // The machine had no time until its network was up.
        now.store(60_000, Ordering::Relaxed);
        wall.store(NEW_YEAR_MS, Ordering::Relaxed);
        assert_eq!(shown_ms(60_000), u128::from(NEW_YEAR_MS));
        assert_eq!(shown_ms(0), u128::from(NEW_YEAR_MS - 60_000));
        // It was an hour fast.
        wall.store(NEW_YEAR_MS - 3_600_000, Ordering::Relaxed);
        assert_eq!(shown_ms(60_000), u128::from(NEW_YEAR_MS - 3_600_000));
    }

    #[test]
    fn a_time_that_is_shown_twice_is_the_same() {
        let [now, wall] = [0, NEW_YEAR_MS].map(|ms| Arc::new(AtomicU64::new(ms)));
        let clock = Clock::manual_with_wall(now.clone(), wall.clone());
        let first = clock.wall(7);
        for apart_ms in [1, 30, 99] {
            now.store(5000, Ordering::Relaxed);
            wall.store(NEW_YEAR_MS + 5000 + apart_ms, Ordering::Relaxed);
            assert_eq!(clock.wall(7), first, "{apart_ms}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_clock_counts_while_the_machine_is_suspended() {
        use nix::time::{ClockId, clock_gettime};
        // A machine that was never suspended shows the same on both: what is asked
        // here is which of the two is read.
        let at = || Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
        let (before, moment, after) = (at(), Moment::now().0, at());
        assert!((before..=after).contains(&moment));
    }
}
