//! The times of publications: each as soon as all clients have the last one, or at a
//! fixed rate. At a fixed rate a slow server does not slow the load down: a time counts
//! from when an event was due, and includes the wait for earlier events.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client::BODIES_MAX;
use super::histogram::Histogram;
use super::load::{Delivered, Load, TIMEOUT, Together};
use super::{Result, fault};

/// The times of publications.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// For each publication, the time until the last client had all of it.
    pub(crate) last: Vec<Duration>,
    /// The times of all deliveries.
    pub(crate) all: Histogram,
}

/// Publishes with `deliver`, each time when all clients have the last publication.
pub(crate) fn one_after_the_other(
    publications: usize,
    mut deliver: impl FnMut() -> Result<Delivered>,
) -> Result<Times> {
    let mut times = Times::default();
    for _ in 0..publications {
        let delivered = deliver()?;
        times.all.merge(&delivered.all);
        times.last.push(delivered.last);
    }
    Ok(times)
}

/// Publishes events at `interval`, and returns when all clients have them.
pub(crate) fn at_intervals(
    load: &mut Load,
    events: usize,
    bytes: usize,
    interval: Duration,
) -> Result<Times> {
    let mut pace = Pace::new(load.newest(), interval);
    let mut published = 0;
    while pace.times.last.len() < events {
        let due = (published < events).then(|| pace.due(published));
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let is_due = left.is_some_and(|left| left.is_zero());
        if is_due && load.publisher.unanswered() == 0 && pace.waiting.len() < BODIES_MAX {
            pace.waiting.push_back(load.clients());
            load.publish_together(1, bytes, Together::Ndjson)?;
            published += 1;
            continue;
        }
        // A due event waits for a response, or for a client.
        let timeout = left.filter(|left| !left.is_zero()).unwrap_or(TIMEOUT);
        load.turn_with(timeout.saturating_sub(POLL_STEP), |newest, events| {
            pace.got(newest, events);
        })?;
        if pace.is_stuck() {
            return fault(format!(
                "an event was not published, or not all clients received it, within {TIMEOUT:?} \
                 after it was due. Use a lower --rate, or fewer --events"
            ));
        }
    }
    load.await_answers()?;
    Ok(pace.times)
}

/// Events at a fixed rate, numbered from 0.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    interval: Duration,
    /// The load's number of the first event.
    first: u64,
    /// The number of clients that do not have an event yet, for each event in progress,
    /// oldest first.
    waiting: VecDeque<usize>,
    /// The times of complete events.
    times: Times,
}

impl Pace {
    fn new(newest: u64, interval: Duration) -> Pace {
        Pace {
            begun: Instant::now(),
            interval,
            first: newest + 1,
            waiting: VecDeque::new(),
            times: Times::default(),
        }
    }

    fn due(&self, event: usize) -> Instant {
        let event = u32::try_from(event).expect("there are few enough");
        self.begun + self.interval * event
    }

    /// Records that a client has received events, the newest of which has this number.
    fn got(&mut self, newest: u64, events: usize) {
        let now = Instant::now();
        for number in newest + 1 - events as u64..=newest {
            let event = usize::try_from(number - self.first).expect("there are few enough");
            let time = now.saturating_duration_since(self.due(event));
            self.times.all.add(time, 1);
            let waiting = &mut self.waiting[event - self.times.last.len()];
            *waiting -= 1;
            // Clients receive them in order, so it is the oldest one.
            if *waiting == 0 {
                self.waiting.pop_front();
                self.times.last.push(time);
            }
        }
    }

    /// Returns whether the oldest incomplete event was due too long ago: clients wait for
    /// it, or it waits for the response to an earlier one.
    fn is_stuck(&self) -> bool {
        self.due(self.times.last.len()).elapsed() > TIMEOUT
    }
}

impl Times {
    /// Returns the rate at which the last client received events that were due at
    /// `interval`. `None` with too few events.
    pub(crate) fn reached(&self, interval: Duration) -> Option<f64> {
        let (first, last) = (self.last.first()?, self.last.last()?);
        let between = (self.last.len() - 1) as f64;
        let seconds = interval.as_secs_f64() * between + last.as_secs_f64() - first.as_secs_f64();
        (seconds > 0.0).then(|| between / seconds)
    }
}

/// The kernel waits for whole milliseconds; the rest is polled.
const POLL_STEP: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn a_time_is_counted_from_when_the_event_was_due() {
        let mut pace = Pace::new(40, INTERVAL);
        // As if both had been due long ago, and arrive late together.
        pace.begun = Instant::now().checked_sub(10 * INTERVAL).unwrap();
        pace.waiting.extend([2, 2]);
        pace.got(42, 2);
        assert!(pace.times.last.is_empty());
        pace.got(41, 1);
        pace.got(42, 1);
        assert_eq!((pace.times.all.total(), pace.waiting.len()), (4, 0));
        let [first, second] = pace.times.last[..] else {
            panic!("{:?}", pace.times.last);
        };
        assert!(first >= 10 * INTERVAL && second >= 9 * INTERVAL);
    }

    #[test]
    fn an_event_that_is_overdue_is_stuck_with_and_without_waiting_clients() {
        let mut pace = Pace::new(40, INTERVAL);
        for waiting in [vec![], vec![2]] {
            pace.waiting = waiting.into();
            pace.begun = Instant::now();
            assert!(!pace.is_stuck());
            pace.begun = Instant::now().checked_sub(TIMEOUT + INTERVAL).unwrap();
            assert!(pace.is_stuck());
        }
        // The next event is not due yet.
        pace.begun = Instant::now() + TIMEOUT;
        assert!(!pace.is_stuck());
    }

    #[test]
    fn a_rate_is_reached_when_times_do_not_grow() {
        let reached = |ms: &[u64]| {
            let last = ms.iter().copied().map(Duration::from_millis).collect();
            let all = Histogram::default();
            Times { last, all }.reached(INTERVAL)
        };
        assert_eq!(reached(&[250, 250, 250]), Some(10.0));
        assert_eq!(reached(&[100, 200, 300]), Some(5.0));
        assert_eq!((reached(&[100]), reached(&[])), (None, None));
    }
}
