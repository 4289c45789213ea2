//! A stream that is left alone: what keeps it alive, and who ends it.

use std::time::Duration;

use super::finding::Finding;
use super::visit::{Arrived, Look, Tap};

/// From this silence on, something on the way is likely to end the stream:
/// Heroku after 55 s, nginx and AWS's load balancers after 60.
const SILENCE_MAX: Duration = Duration::from_secs(55);
/// Bytes that came so shortly before an end say that silence was not why.
const NOT_SILENT: Duration = Duration::from_secs(1);
/// How far a measured cut-off may be from the one that is known.
const TOLERANCE: Duration = Duration::from_millis(1500);

/// Who ends a stream after so many seconds of silence, unless told otherwise.
const KNOWN: [(u64, &str, &str); 6] = [
    (30, "some proxies", "their read or response time-out"),
    (
        50,
        "HAProxy as Debian configures it",
        "`timeout server` and `timeout client`",
    ),
    (
        55,
        "Heroku's router",
        "nothing: send heartbeats at least every 50 s",
    ),
    (
        60,
        "nginx and AWS's load balancers",
        "`proxy_read_timeout` (nginx), the idle timeout (AWS)",
    ),
    (
        100,
        "Cloudflare",
        "nothing, on most plans: send heartbeats at least every 90 s",
    ),
    (300, "Azure's Application Gateway", "its request time-out"),
];

/// How many events that came are kept, to come back with their ids.
const EVENTS_KEPT: usize = 2;

/// What was seen of a stream that was left alone. However much comes, it grows
/// no further.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// How long it was looked at.
    watched: Duration,
    /// How often bytes came, and how often without an event. The first ones are
    /// the greeting, and count for neither.
    pieces: usize,
    beats: usize,
    has_events: bool,
    /// When bytes came last.
    last: Duration,
    longest_silence: Duration,
    /// When it ended, and how.
    ended: Option<(Duration, String)>,
    /// The first events that came.
    pub(super) events: Vec<Arrived>,
}

impl Watch {
    /// Looks at a stream for so long, or to its end. Times are counted from
    /// its opening.
    pub(super) fn keep(tap: &mut Tap, opened: Duration, time: Duration) -> Watch {
        let mut watch = Watch {
            watched: time,
            ..Watch::default()
        };
        // Who opened it has waited for its greeting, with which events may come.
        if let Some(at) = tap.first_byte_at {
            watch.events.extend(tap.take().take(EVENTS_KEPT));
            watch.note(at.saturating_sub(opened), watch.events.len());
        }
        loop {
            match tap.look(opened + time) {
                Look::Bytes { at, events } if at < opened + time => {
                    watch.note(at.saturating_sub(opened), events);
                    let room = EVENTS_KEPT - watch.events.len();
                    watch.events.extend(tap.take().take(room));
                }
                Look::Bytes { .. } | Look::Nothing => return watch,
                Look::End { at, why } => {
                    watch.ended = Some((at.saturating_sub(opened), why));
                    return watch;
                }
            }
        }
    }

    fn note(&mut self, at: Duration, events: usize) {
        self.longest_silence = self.longest_silence.max(at.saturating_sub(self.last));
        self.last = at;
        self.has_events |= events > 0;
        self.beats += usize::from(self.pieces > 0 && events == 0);
        self.pieces += 1;
    }

    pub(super) fn judge(&self) -> [Finding; 2] {
        [self.heartbeat(), self.cut_off()]
    }

    fn end(&self) -> Duration {
        self.ended.as_ref().map_or(self.watched, |(at, _)| *at)
    }

    /// The longest time without bytes, the one before the end included.
    fn longest_silence(&self) -> Duration {
        let last = self.end().saturating_sub(self.last);
        self.longest_silence.max(last)
    }

    fn heartbeat(&self) -> Finding {
        const CODE: &str = "heartbeat";
        const ADVICE: &str = "send a comment (`:` and an empty line) every 15 to 25 s: much on the \
                              way ends a stream that is silent for 55 s, and who has lost it \
                              notices late";
        // Between heartbeats the end of the watch says nothing.
        let silence = match self.beats {
            0 => self.longest_silence(),
            _ => self.longest_silence,
        };
        let s = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        if silence >= SILENCE_MAX {
            return Finding::warning(CODE, format!("silence for {}", s(silence)), ADVICE);
        }
        if self.beats > 0 {
            let seen = format!(
                "{} seen; no silence was longer than {}",
                self.beats,
                s(silence)
            );
            return Finding::ok(CODE, seen);
        }
        let why = match self.has_events {
            true => format!(
                "events came all the time, with pauses of up to {}: look at a quiet channel",
                s(silence)
            ),
            false => format!("none within {}; look longer with --idle 65", s(self.end())),
        };
        Finding::not_checked(CODE, why)
    }

    fn cut_off(&self) -> Finding {
        const CODE: &str = "idle_cut_off";
        let Some((at, how)) = &self.ended else {
            let silence = self.longest_silence().as_secs_f64();
            let seen = format!(
                "still open after {} s, with silences of up to {silence:.1} s",
                self.watched.as_secs()
            );
            return Finding::ok(CODE, seen);
        };
        let silence = at.saturating_sub(self.last);
        let (at, seconds) = (at.as_secs_f64(), silence.as_secs_f64());
        if silence < NOT_SILENT {
            return Finding::failure(
                CODE,
                format!("the stream ended after {at:.1} s, just after bytes had come: {how}"),
                "something limits how long a stream may live, or the server has ended it: look \
                 for a limit on whole requests or connections",
            );
        }
        Finding::failure(
            CODE,
            format!("the stream ended after {seconds:.1} s of silence: {how}"),
            who(silence),
        )
    }
}

/// Who is known to end streams after such a silence.
fn who(silence: Duration) -> String {
    let known = KNOWN.iter().find(|(seconds, ..)| {
        let wanted = Duration::from_secs(*seconds);
        silence.abs_diff(wanted) <= TOLERANCE
    });
    match known {
        Some((seconds, who, what)) => format!(
            "{who} do so after {seconds} s: raise {what}, and have the server send heartbeats more \
             often than that"
        ),
        None => format!(
            "have the server send heartbeats more often than every {} s, or raise the time-out of \
             who ends it",
            silence.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Outcome;
    use super::*;

    /// Watched for so many seconds, with bytes without events at these.
    fn watch(watched: u64, beats: &[u64], ended: Option<u64>) -> Watch {
        let s = Duration::from_secs;
        let mut watch = Watch {
            watched: s(watched),
            ended: ended.map(|at| (s(at), "it was closed".into())),
            ..Watch::default()
        };
        for at in beats {
            watch.note(s(*at), 0);
        }
        watch
    }

    fn outcomes(watch: &Watch) -> [Outcome; 2] {
        watch.judge().map(|finding| finding.outcome)
    }

    #[test]
    fn heartbeats_keep_a_stream_alive() {
        let watch = watch(65, &[0, 15, 30, 45, 60], None);
        assert_eq!(outcomes(&watch), [Outcome::Ok, Outcome::Ok]);
        assert!(watch.heartbeat().seen.contains("15.0 s"));
    }

    #[test]
    fn no_heartbeat_in_a_short_time_says_nothing() {
        let watch = watch(20, &[0], None);
        assert_eq!(outcomes(&watch), [Outcome::NotChecked, Outcome::Ok]);
    }

    #[test]
    fn silence_is_a_warning_and_so_is_a_rare_heartbeat() {
        assert_eq!(watch(60, &[0], None).heartbeat().outcome, Outcome::Warning);
        let rare = watch(130, &[0, 58, 116], None);
        assert_eq!(rare.heartbeat().outcome, Outcome::Warning);
    }

    #[test]
    fn an_end_in_silence_names_who_is_known_for_it() {
        for (ended, who) in [
            (30, "some proxies"),
            (55, "Heroku"),
            (61, "nginx"),
            (100, "Cloudflare"),
            (10, "every 10 s"),
        ] {
            let finding = watch(120, &[0], Some(ended)).cut_off();
            assert_eq!(finding.outcome, Outcome::Failure);
            assert!(finding.advice.unwrap().contains(who), "{ended}");
        }
    }

    #[test]
    fn an_end_that_comes_with_bytes_is_no_idle_cut_off() {
        let finding = watch(120, &[0, 15, 30], Some(30)).cut_off();
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.seen.contains("just after bytes"));
    }
}
