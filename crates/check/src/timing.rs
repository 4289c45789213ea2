//! Whether events that were published one by one came one by one. Pure: times
//! in, a judgement out.

use std::time::Duration;

/// A delay that somebody who waits for an event would notice.
const LATE: Duration = Duration::from_secs(1);

/// An event that was published, and when it came.
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

/// How pings came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Each by itself, the slowest after so long.
    AtOnce { slowest: Duration },
    /// Most of them in heaps, of up to `largest`; somebody held one back for
    /// `held`.
    Clumped { largest: usize, held: Duration },
    /// A few in one heap, the others each by itself: a stall.
    Stalled { largest: usize, held: Duration },
    /// One by one, and even the fastest after so long.
    Late { fastest: Duration },
    /// Only so many came.
    Lost { came: usize },
    /// None came.
    Silent,
}

/// Judges pings in the order in which they were sent.
///
/// Two that came in less than half of the time that lay between their sending
/// came in one heap. Heaps of two alone are a hiccup of some machine; heaps
/// with at least half of all pings in them are somebody who gathers.
pub(super) fn judge(pings: &[Ping]) -> Flow {
    let delays: Vec<Duration> = pings.iter().filter_map(Ping::delay).collect();
    let (Some(fastest), Some(slowest)) = (delays.iter().min(), delays.iter().max()) else {
        return Flow::Silent;
    };
    if delays.len() < pings.len() {
        return Flow::Lost { came: delays.len() };
    }
    let heaps = heaps(pings);
    let largest = heaps.iter().copied().max().unwrap_or(0);
    let in_heaps: usize = heaps.iter().filter(|size| **size > 1).sum();
    let held = *slowest - *fastest;
    if largest > 2 && in_heaps * 2 >= pings.len() {
        Flow::Clumped { largest, held }
    } else if largest > 2 {
        Flow::Stalled { largest, held }
    } else if *fastest >= LATE {
        Flow::Late { fastest: *fastest }
    } else {
        Flow::AtOnce { slowest: *slowest }
    }
}

/// The sizes of the heaps in which pings came; one by itself is a heap of one.
fn heaps(pings: &[Ping]) -> Vec<usize> {
    let mut heaps = Vec::new();
    let mut before: Option<&Ping> = None;
    for ping in pings {
        let is_together = before.is_some_and(|before| {
            let came_apart = ping
                .arrived
                .unwrap_or_default()
                .saturating_sub(before.arrived.unwrap_or_default());
            came_apart * 2 < ping.sent.saturating_sub(before.sent)
        });
        match heaps.last_mut() {
            Some(heap) if is_together => *heap += 1,
            _ => heaps.push(1),
        }
        before = Some(ping);
    }
    heaps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten pings, 200 ms apart, that came after these delays, in milliseconds.
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
    fn one_by_one_is_at_once_whatever_the_way_is_long() {
        assert_eq!(judged([1; 10]), Flow::AtOnce { slowest: ms(1) });
        let jitter = [3, 80, 5, 0, 60, 90, 2, 2, 40, 9];
        assert_eq!(judged(jitter), Flow::AtOnce { slowest: ms(90) });
        assert_eq!(judged([300; 10]), Flow::AtOnce { slowest: ms(300) });
    }

    #[test]
    fn two_together_are_a_hiccup_and_more_a_stall() {
        let hiccup = [1, 1, 150, 1, 1, 1, 1, 180, 1, 1];
        assert_eq!(judged(hiccup), Flow::AtOnce { slowest: ms(180) });
        let stall = [1, 1, 401, 201, 1, 1, 1, 1, 1, 1];
        let (largest, held) = (3, ms(400));
        assert_eq!(judged(stall), Flow::Stalled { largest, held });
    }

    #[test]
    fn all_in_one_heap_at_the_end_is_a_buffer() {
        let delays = [1800, 1600, 1400, 1200, 1000, 800, 600, 400, 200, 0];
        let (largest, held) = (10, ms(1800));
        assert_eq!(judged(delays), Flow::Clumped { largest, held });
    }

    #[test]
    fn heaps_of_a_second_are_a_buffer_too() {
        let delays = [800, 600, 400, 200, 0, 800, 600, 400, 200, 0];
        let (largest, held) = (5, ms(800));
        assert_eq!(judged(delays), Flow::Clumped { largest, held });
    }

    #[test]
    fn late_and_even_is_late() {
        assert_eq!(judged([1500; 10]), Flow::Late { fastest: ms(1500) });
    }

    #[test]
    fn what_did_not_come_is_told() {
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
