//! A stream that is left alone: what keeps it alive, and who ends it.

use std::time::Duration;

use super::finding::Finding;
use super::visit::{Arrived, Look, Tap};

/// From this silence on, something on the way is likely to end the stream:
/// Heroku after 55 s, nginx and AWS's load balancers after 60.
const SILENCE_MAX: Duration = Duration::from_secs(55);
/// From this silence on a heartbeat is missed: the HTML Standard advises one
/// every 15 s or so (9.2.7).
const SILENCE_ADVISED: Duration = Duration::from_secs(17);
/// What comes so soon after other bytes belongs to them: a greeting, or an event
/// that was written in several pieces.
const TOGETHER: Duration = Duration::from_millis(500);
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

/// How many ids of events that came are kept, to come back with.
const IDS_KEPT: usize = 2;

/// The events that came of a stream to which nobody of us publishes.
#[derive(Clone, Debug, Default)]
pub(super) struct Came {
    pub(super) events: usize,
    /// The first ids. A greeting may have none.
    pub(super) ids: Vec<String>,
}

impl Came {
    fn note(&mut self, arrived: Arrived) {
        self.events += 1;
        let id = arrived.event.id.filter(|id| !id.is_empty());
        if self.ids.len() < IDS_KEPT {
            self.ids.extend(id);
        }
    }
}

/// What was seen of a stream that was left alone. However much comes, it grows
/// no further.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// How long it was looked at.
    watched: Duration,
    /// Whether bytes came. The first ones are the greeting, and no heartbeat.
    is_greeted: bool,
    /// How often bytes came by themselves and without an event.
    beats: usize,
    /// Whether what came last is one of these.
    is_beat: bool,
    /// When bytes came last.
    last: Duration,
    longest_silence: Duration,
    /// When it ended, and how.
    ended: Option<(Duration, String)>,
    pub(super) came: Came,
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
            tap.take().for_each(|arrived| watch.came.note(arrived));
            watch.note(at.saturating_sub(opened), watch.came.events);
        }
        loop {
            match tap.look(opened + time) {
                Look::Bytes { at, events } if at < opened + time => {
                    watch.note(at.saturating_sub(opened), events);
                    tap.take().for_each(|arrived| watch.came.note(arrived));
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
        let silence = at.saturating_sub(self.last);
        if events > 0 {
            // What was taken for a heartbeat was the beginning of an event.
            self.beats -= usize::from(self.is_beat && silence < TOGETHER);
            self.is_beat = false;
        } else if self.is_greeted && silence >= TOGETHER {
            self.beats += 1;
            self.is_beat = true;
        }
        self.longest_silence = self.longest_silence.max(silence);
        self.last = at;
        self.is_greeted = true;
    }

    pub(super) fn judge(&self) -> [Finding; 2] {
        [self.heartbeat(), self.cut_off()]
    }

    fn end(&self) -> Duration {
        self.ended.as_ref().map_or(self.watched, |(at, _)| *at)
    }

    /// The time without bytes before the end.
    fn last_silence(&self) -> Duration {
        self.end().saturating_sub(self.last)
    }

    /// The longest time without bytes, the one before the end included.
    fn longest_silence(&self) -> Duration {
        self.longest_silence.max(self.last_silence())
    }

    fn heartbeat(&self) -> Finding {
        const CODE: &str = "heartbeat";
        const ADVICE: &str = "send the line `ping:` every 15 to 25 s: many proxies end a stream \
                              that is silent for 55 s, and a client that has lost its \
                              connection notices late";
        const LOOK_LONGER: &str = "look longer with `--idle 65`; if none comes, send the line \
                                   `ping:` every 15 to 25 s: some proxies end a stream that is \
                                   silent for 30 s, and many after 60";
        let longest = self.longest_silence();
        let silence = format!("{:.1} s", longest.as_secs_f64());
        if longest >= SILENCE_MAX {
            return Finding::warning(CODE, format!("silence for {silence}"), ADVICE);
        }
        if self.beats > 0 {
            let seen = format!("{} seen; no silence was longer than {silence}", self.beats);
            return Finding::ok(CODE, seen);
        }
        if self.ended.is_some() && self.last_silence() >= NOT_SILENT {
            return Finding::warning(
                CODE,
                "none before the stream ended in silence",
                "have the server send the line `ping:` before that: see `idle_cut_off`",
            );
        }
        if longest >= SILENCE_ADVISED {
            let seen = format!("none in {silence} of silence");
            return Finding::warning(CODE, seen, LOOK_LONGER);
        }
        let why = format!(
            "no silence was longer than {silence}: look longer, with `--idle 65`, at a quiet channel"
        );
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
        let silence = self.last_silence();
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
            "have the server send heartbeats more often than every {:.0} s, or raise the time-out \
             of who ends it",
            silence.as_secs_f64()
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
        let watch = watch(10, &[0], None);
        assert_eq!(outcomes(&watch), [Outcome::NotChecked, Outcome::Ok]);
    }

    #[test]
    fn no_heartbeat_in_the_default_time_is_a_warning_whatever_came_before() {
        assert_eq!(watch(20, &[0], None).heartbeat().outcome, Outcome::Warning);
        let mut watch = watch(20, &[], None);
        watch.note(Duration::ZERO, 1);
        watch.note(Duration::from_secs(1), 1);
        let finding = watch.heartbeat();
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.seen.contains("19.0 s"), "{}", finding.seen);
        assert!(finding.advice.unwrap().contains("--idle 65"));
    }

    #[test]
    fn a_busy_stream_needs_no_heartbeat() {
        let mut watch = watch(20, &[], None);
        for at in (0..20).step_by(4) {
            watch.note(Duration::from_secs(at), 1);
        }
        assert_eq!(watch.heartbeat().outcome, Outcome::NotChecked);
    }

    #[test]
    fn pieces_of_a_greeting_or_an_event_are_no_heartbeats() {
        let ms = Duration::from_millis;
        let mut watch = watch(20, &[], None);
        for (at, events) in [(0, 0), (100, 0), (1500, 0), (1501, 0), (1502, 1)] {
            watch.note(ms(at), events);
        }
        assert_eq!(watch.heartbeat().outcome, Outcome::Warning);
        watch.note(ms(15_000), 0);
        assert_eq!(watch.heartbeat().outcome, Outcome::Ok);
    }

    #[test]
    fn an_end_in_silence_misses_a_heartbeat() {
        let watch = watch(20, &[0], Some(5));
        assert_eq!(outcomes(&watch), [Outcome::Warning, Outcome::Failure]);
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
