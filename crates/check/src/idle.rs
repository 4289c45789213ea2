//! A silent stream: what keeps it open, and what ends it.

use std::time::Duration;

use super::finding::Finding;
use super::request::{Arrived, Part, StreamReader};

/// A silence after which a proxy probably ends the stream: Heroku after 55 s, nginx and
/// AWS load balancers after 60 s.
const SILENCE_MAX: Duration = Duration::from_secs(55);
/// A silence without a heartbeat that is reported: the HTML Standard (9.2.7) advises one
/// about every 15 s.
const SILENCE_ADVISED: Duration = Duration::from_secs(17);
/// Bytes within this time after others belong to them: the opening, or an event in several
/// pieces.
const TOGETHER: Duration = Duration::from_millis(500);
/// Silence was not the reason for an end within this time after bytes.
const NOT_SILENT: Duration = Duration::from_secs(1);
/// The maximum difference between a measured timeout and a known one.
const TOLERANCE: Duration = Duration::from_millis(1500);

/// Default idle timeouts, in seconds, with their owner and their setting.
const KNOWN: [(u64, &str, &str); 6] = [
    (30, "some proxies", "their read or response timeout"),
    (
        50,
        "HAProxy in Debian's configuration",
        "`timeout server` and `timeout client`",
    ),
    (55, "Heroku's router", "nothing, it is fixed"),
    (
        60,
        "nginx and AWS load balancers",
        "`proxy_read_timeout` (nginx), the idle timeout (AWS)",
    ),
    (100, "Cloudflare", "nothing, it is fixed on most plans"),
    (300, "Azure Application Gateway", "its request timeout"),
];

/// The number of event ids that are kept, for the check of resumption.
const IDS_KEPT: usize = 2;

/// The events of a stream to which this program does not publish.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    pub(super) events: usize,
    /// The first ids. The opening may have none.
    pub(super) ids: Vec<String>,
}

impl Received {
    fn note(&mut self, arrived: Arrived) {
        self.events += 1;
        let id = arrived.event.id.filter(|id| !id.is_empty());
        if self.ids.len() < IDS_KEPT {
            self.ids.extend(id);
        }
    }
}

/// The observations of a silent stream. Its size does not depend on the stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// How long the stream was watched.
    watched: Duration,
    /// Whether bytes have arrived. The first ones are the opening, not a heartbeat.
    is_opened: bool,
    /// How often bytes arrived alone and without an event.
    beats: usize,
    /// Whether the last bytes are one of these.
    is_beat: bool,
    /// When the last bytes arrived.
    last: Duration,
    longest_silence: Duration,
    /// When and how it ended.
    ended: Option<(Duration, String)>,
    pub(super) received: Received,
}

impl Watch {
    /// Watches a stream for a time, or to its end. Times count from its opening.
    pub(super) fn keep(reader: &mut StreamReader, opened: Duration, time: Duration) -> Watch {
        let mut watch = Watch {
            watched: time,
            ..Watch::default()
        };
        // The first bytes have arrived already, perhaps with events.
        if let Some(at) = reader.first_byte_at {
            reader
                .take()
                .for_each(|arrived| watch.received.note(arrived));
            watch.note(at.saturating_sub(opened), watch.received.events);
        }
        loop {
            match reader.next_part(opened + time) {
                Part::Bytes { at, events } if at < opened + time => {
                    watch.note(at.saturating_sub(opened), events);
                    reader
                        .take()
                        .for_each(|arrived| watch.received.note(arrived));
                }
                Part::Bytes { .. } | Part::Nothing => return watch,
                Part::End { at, why } => {
                    watch.ended = Some((at.saturating_sub(opened), why));
                    return watch;
                }
            }
        }
    }

    fn note(&mut self, at: Duration, events: usize) {
        let silence = at.saturating_sub(self.last);
        if events > 0 {
            // The last heartbeat was in fact the beginning of an event.
            self.beats -= usize::from(self.is_beat && silence < TOGETHER);
            self.is_beat = false;
        } else if self.is_opened && silence >= TOGETHER {
            self.beats += 1;
            self.is_beat = true;
        }
        self.longest_silence = self.longest_silence.max(silence);
        self.last = at;
        self.is_opened = true;
    }

    pub(super) fn judge(&self) -> [Finding; 2] {
        [self.heartbeat(), self.cut_off()]
    }

    fn end(&self) -> Duration {
        self.ended.as_ref().map_or(self.watched, |(at, _)| *at)
    }

    /// Returns the time without bytes before the end.
    fn last_silence(&self) -> Duration {
        self.end().saturating_sub(self.last)
    }

    /// Returns the longest time without bytes, the one before the end included.
    fn longest_silence(&self) -> Duration {
        self.longest_silence.max(self.last_silence())
    }

    fn heartbeat(&self) -> Finding {
        const CODE: &str = "heartbeat";
        const ADVICE: &str = "send the line `ping:` every 15 to 25 s. Many proxies end a stream \
                              after 55 s of silence, and a client with a broken connection \
                              notices late";
        const WATCH_LONGER: &str = "watch longer with `--idle 65`. If no heartbeat arrives, send \
                                    the line `ping:` every 15 to 25 s: some proxies end a stream \
                                    after 30 s of silence, and many after 60 s";
        let longest = self.longest_silence();
        let silence = format!("{:.1} s", longest.as_secs_f64());
        if longest >= SILENCE_MAX {
            return Finding::warning(CODE, format!("{silence} of silence"), ADVICE);
        }
        if self.beats > 0 {
            let seen = format!("{} arrived; the longest silence was {silence}", self.beats);
            return Finding::ok(CODE, seen);
        }
        if self.ended.is_some() && self.last_silence() >= NOT_SILENT {
            return Finding::warning(
                CODE,
                "none before the stream ended in silence",
                "send the line `ping:` more often: see `idle_cut_off`",
            );
        }
        if longest >= SILENCE_ADVISED {
            let seen = format!("none in {silence} of silence");
            return Finding::warning(CODE, seen, WATCH_LONGER);
        }
        let why =
            format!("the longest silence was {silence}. Use a quiet channel, and `--idle 65`");
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
                format!("the stream ended after {at:.1} s, just after bytes ({how})"),
                "the server ended the stream, or a limit on the duration of a request or connection \
                 did. Look for such a limit",
            );
        }
        Finding::failure(
            CODE,
            format!("the stream ended after {seconds:.1} s of silence ({how})"),
            fix_for(silence),
        )
    }
}

/// Returns the fix for an end after a silence.
fn fix_for(silence: Duration) -> String {
    let known = KNOWN.iter().find(|(seconds, ..)| {
        let wanted = Duration::from_secs(*seconds);
        silence.abs_diff(wanted) <= TOLERANCE
    });
    match known {
        Some((seconds, owner, setting)) => format!(
            "{owner}: {seconds} s by default. Change {setting}, and send heartbeats more often \
             than that"
        ),
        None => format!(
            "send heartbeats more often than every {:.0} s, or raise the timeout of the proxy that \
             ends it",
            silence.as_secs_f64()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Outcome;
    use super::*;

    /// Watched for some seconds, with heartbeats at these times.
    fn watch(watched: u64, beats: &[u64], ended: Option<u64>) -> Watch {
        let s = Duration::from_secs;
        let mut watch = Watch {
            watched: s(watched),
            ended: ended.map(|at| (s(at), "closed".into())),
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
    fn no_heartbeat_in_a_short_time_is_not_a_finding() {
        let watch = watch(10, &[0], None);
        assert_eq!(outcomes(&watch), [Outcome::NotChecked, Outcome::Ok]);
    }

    #[test]
    fn no_heartbeat_in_the_default_time_is_a_warning_even_after_events() {
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
    fn pieces_of_an_opening_or_an_event_are_not_heartbeats() {
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
    fn an_end_in_silence_names_the_proxy_with_this_timeout() {
        for (ended, part) in [
            (30, "some proxies"),
            (55, "Heroku"),
            (61, "nginx"),
            (100, "Cloudflare"),
            (10, "every 10 s"),
        ] {
            let finding = watch(120, &[0], Some(ended)).cut_off();
            assert_eq!(finding.outcome, Outcome::Failure);
            assert!(finding.advice.unwrap().contains(part), "{ended}");
        }
    }

    #[test]
    fn an_end_just_after_bytes_is_not_an_idle_timeout() {
        let finding = watch(120, &[0, 15, 30], Some(30)).cut_off();
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.seen.contains("just after bytes"));
    }
}
