//! Whether events that were published one by one arrive one by one. Pure: times in, a
//! judgement out.

use std::time::Duration;

/// A delay that a user notices.
const LATE: Duration = Duration::from_secs(1);

/// The times of a published event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    /// Just before it was published.
    pub(super) sent: Duration,
    pub(super) arrived: Option<Duration>,
}

impl Ping {
    fn delay(&self) -> Option<Duration> {
        Some(self.arrived?.saturating_sub(self.sent))
    }
}

/// How pings arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// One by one, the slowest after this time.
    AtOnce { slowest: Duration },
    /// Most of them in groups of up to `largest`; one was delayed by `held`.
    Clumped { largest: usize, held: Duration },
    /// A few in one group, the others one by one: a pause.
    Stalled { largest: usize, held: Duration },
    /// One by one, but even the fastest after this time.
    Late { fastest: Duration },
    /// Only some arrived.
    Lost { came: usize },
    /// None arrived.
    Silent,
}

/// Judges pings in the order in which they were sent.
///
/// Two pings are in one group if they arrived in less than half of the time between their
/// sending. Groups of two are jitter. Groups that contain at least half of all pings are a
/// buffer.
pub(super) fn judge(pings: &[Ping]) -> Flow {
    let delays: Vec<Duration> = pings.iter().filter_map(Ping::delay).collect();
    let (Some(fastest), Some(slowest)) = (delays.iter().min(), delays.iter().max()) else {
        return Flow::Silent;
    };
    if delays.len() < pings.len() {
        return Flow::Lost { came: delays.len() };
    }
    let groups = groups(pings);
    let largest = groups.iter().copied().max().unwrap_or(0);
    let in_groups: usize = groups.iter().filter(|size| **size > 1).sum();
    let held = *slowest - *fastest;
    if largest > 2 && in_groups * 2 >= pings.len() {
        Flow::Clumped { largest, held }
    } else if largest > 2 {
        Flow::Stalled { largest, held }
    } else if *fastest >= LATE {
        Flow::Late { fastest: *fastest }
    } else {
        Flow::AtOnce { slowest: *slowest }
    }
}

/// Returns the sizes of the groups in which pings arrived.
fn groups(pings: &[Ping]) -> Vec<usize> {
    let mut groups = Vec::new();
    let mut before: Option<&Ping> = None;
    for ping in pings {
        let is_together = before.is_some_and(|before| {
            let came_apart = ping
                .arrived
                .unwrap_or_default()
                .saturating_sub(before.arrived.unwrap_or_default());
            came_apart * 2 < ping.sent.saturating_sub(before.sent)
        });
        match groups.last_mut() {
            Some(group) if is_together => *group += 1,
            _ => groups.push(1),
        }
        before = Some(ping);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten pings, 200 ms apart, that arrived after these delays, in milliseconds.
    fn judged(delays: [u64; 10]) -> Flow {
        let pings = (0..).zip(delays).map(|(n, delay)| Ping {
            sent: ms(n * 200),
            arrived: Some(ms(n * 200 + delay)),
        });
        judge(&pings.collect::<Vec<_>>())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_by_one_is_at_once_however_long_the_way_is() {
        assert_eq!(judged([1; 10]), Flow::AtOnce { slowest: ms(1) });
        let jitter = [3, 80, 5, 0, 60, 90, 2, 2, 40, 9];
        assert_eq!(judged(jitter), Flow::AtOnce { slowest: ms(90) });
        assert_eq!(judged([300; 10]), Flow::AtOnce { slowest: ms(300) });
    }

    #[test]
    fn two_together_are_jitter_and_more_are_a_pause() {
        let jitter = [1, 1, 150, 1, 1, 1, 1, 180, 1, 1];
        assert_eq!(judged(jitter), Flow::AtOnce { slowest: ms(180) });
        let stall = [1, 1, 401, 201, 1, 1, 1, 1, 1, 1];
        let (largest, held) = (3, ms(400));
        assert_eq!(judged(stall), Flow::Stalled { largest, held });
    }

    #[test]
    fn all_in_one_group_at_the_end_is_a_buffer() {
        let delays = [1800, 1600, 1400, 1200, 1000, 800, 600, 400, 200, 0];
        let (largest, held) = (10, ms(1800));
        assert_eq!(judged(delays), Flow::Clumped { largest, held });
    }

    #[test]
    fn groups_of_a_second_are_a_buffer_too() {
        let delays = [800, 600, 400, 200, 0, 800, 600, 400, 200, 0];
        let (largest, held) = (5, ms(800));
        assert_eq!(judged(delays), Flow::Clumped { largest, held });
    }

    #[test]
    fn late_and_even_is_late() {
        assert_eq!(judged([1500; 10]), Flow::Late { fastest: ms(1500) });
    }

    #[test]
    fn missing_pings_are_counted() {
        let ping = |arrived| Ping {
            sent: ms(0),
            arrived,
        };
        assert_eq!(judge(&[ping(None), ping(None)]), Flow::Silent);
        assert_eq!(
            judge(&[ping(Some(ms(1))), ping(None)]),
            Flow::Lost { came: 1 }
        );
        assert_eq!(judge(&[]), Flow::Silent);
    }
}
