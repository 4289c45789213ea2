//! Whether published events arrive immediately: the first byte, timed pings, and the same
//! with compression.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::finding::Finding;
use super::publisher::{Publisher, Rejected};
use super::request::{Clock, Part, Requester, StreamReader};
use super::timing::{Flow, Ping, judge};

/// The maximum wait for the last ping.
const GRACE: Duration = Duration::from_secs(3);
/// Padding that pushes events out of a buffer: more than a proxy's buffer for a response,
/// which has 4 to 64 KiB.
const PADDING_BYTES: usize = 64 << 10;
const PADDINGS: usize = 4;
/// The number of pings of the check of compression.
const PACKED_PINGS: usize = 6;

/// The wait after each padding.
const PADDING_WAIT: Duration = Duration::from_millis(500);

/// The fix for a buffer.
const BUFFERS: &str = "a proxy buffers the response. In nginx set `proxy_buffering off`, elsewhere \
                       switch off response buffering and compression for this path";

/// The number of pings, and their distance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) pings: usize,
    pub(super) interval: Duration,
}

/// Returns the finding for the time from the head, at `opened`, to the first byte.
pub(super) fn first_byte(reader: &StreamReader, opened: Duration) -> Finding {
    const CODE: &str = "first_byte";
    match reader.first_byte_at {
        Some(at) => {
            let after = at.saturating_sub(opened).as_millis();
            Finding::ok(CODE, format!("{after} ms after the head"))
        }
        None => Finding::warning(
            CODE,
            "none within 3 s of the head",
            "Firefox opens a stream with its first byte, and some proxies hold the head back until \
             then. Send the line `ping:` immediately. If the server does, a proxy buffers it",
        ),
    }
}

/// Publishes pings at the pace, and returns when they arrived.
pub(super) fn ping(
    reader: &mut StreamReader,
    publisher: &Publisher,
    clock: Clock,
    pace: Pace,
) -> Result<Vec<Ping>, Rejected> {
    let marks: Vec<String> = (0..pace.pings)
        .map(|n| publisher.mark(&format!("ping {n}")))
        .collect();
    let mut pings: Vec<Ping> = Vec::with_capacity(pace.pings);
    for mark in &marks {
        let sent = clock.now();
        publisher.publish(mark)?;
        pings.push(Ping {
            sent,
            arrived: None,
        });
        note(reader, sent + pace.interval, &marks, &mut pings);
    }
    let until = clock.now() + GRACE;
    while clock.now() < until && pings.iter().any(|ping| ping.arrived.is_none()) {
        let step = (clock.now() + pace.interval).min(until);
        note(reader, step, &marks, &mut pings);
    }
    Ok(pings)
}

/// Records the pings that arrive until then.
fn note(reader: &mut StreamReader, until: Duration, marks: &[String], pings: &mut [Ping]) {
    for arrived in reader.gather(until) {
        let is_it = |mark: &String| arrived.event.data.contains(&**mark);
        if let Some(ping) = marks.iter().position(is_it).and_then(|n| pings.get_mut(n)) {
            ping.arrived.get_or_insert(arrived.at);
        }
    }
}

/// Judges the pings. If none arrived, checks whether more bytes push them out.
pub(super) fn buffering(
    pings: &[Ping],
    pace: Pace,
    reader: &mut StreamReader,
    publisher: &Publisher,
    clock: Clock,
) -> Finding {
    const CODE: &str = "buffering";
    let (of, apart) = (pings.len(), pace.interval.as_millis());
    let ms = |time: Duration| time.as_millis();
    match judge(pings) {
        Flow::AtOnce { slowest } => Finding::ok(
            CODE,
            format!(
                "{of} pings, {apart} ms apart, arrived one by one, the slowest after {} ms",
                ms(slowest)
            ),
        ),
        Flow::Clumped { largest, held } => Finding::failure(
            CODE,
            format!(
                "{of} pings, {apart} ms apart, arrived in groups of up to {largest}; one was \
                 delayed by {} ms",
                ms(held)
            ),
            BUFFERS,
        ),
        Flow::Stalled { largest, held } => Finding::warning(
            CODE,
            format!(
                "{largest} of {of} pings arrived together after a pause of {} ms",
                ms(held)
            ),
            "one pause may be the network or a busy machine. Check again, with more --pings",
        ),
        Flow::Late { fastest } => Finding::warning(
            CODE,
            format!(
                "{of} pings arrived one by one, none in less than {} ms",
                ms(fastest)
            ),
            "a proxy waits before it forwards data, or the server publishes late. Look for delays \
             and polling",
        ),
        Flow::Lost { came } => Finding::failure(
            CODE,
            format!("{came} of {of} pings arrived within {} s", GRACE.as_secs()),
            "the others are buffered or lost. Look for a proxy that buffers, and for a server that \
             drops events",
        ),
        Flow::Silent => {
            let seen = format!("none of {of} pings arrived within {} s", GRACE.as_secs());
            match arrives_with_padding(reader, publisher, clock) {
                true => Finding::failure(
                    CODE,
                    format!("{seen}, but they arrived after 64 KiB or more were published"),
                    BUFFERS,
                ),
                false => Finding::failure(
                    CODE,
                    seen,
                    "the publish URL is for another channel than the stream, or a proxy holds all \
                     events back. Subscribe without the proxy to find out which",
                ),
            }
        }
    }
}

fn arrives_with_padding(reader: &mut StreamReader, publisher: &Publisher, clock: Clock) -> bool {
    let wanted = publisher.mark("ping 0");
    for _ in 0..PADDINGS {
        if publisher.publish(&"x".repeat(PADDING_BYTES)).is_err() {
            return false;
        }
        let until = clock.now() + PADDING_WAIT;
        if reader
            .find(until, |event| event.data.contains(&wanted), drop)
            .is_some()
        {
            return true;
        }
    }
    false
}

/// For a stream whose head does not arrive: checks whether published bytes push it out.
pub(super) fn held_head(requester: &Requester, publisher: &Publisher) -> Finding {
    const CODE: &str = "buffering";
    let (sender, answers) = channel();
    let asks = requester.clone();
    let asking = thread::Builder::new().name("pushwheel-ask".into());
    let asking = asking.spawn(move || sender.send(asks.get(&[]).is_ok()));
    if let Err(error) = asking {
        return Finding::not_checked(CODE, format!("cannot start a thread ({error})"));
    }
    for n in 1..=PADDINGS {
        if let Err(rejected) = publisher.publish(&"x".repeat(PADDING_BYTES)) {
            return Finding::not_checked(CODE, rejected.why);
        }
        if answers.recv_timeout(PADDING_WAIT) == Ok(true) {
            let seen = format!(
                "the head arrived after {} KiB were published to the stream",
                (n * PADDING_BYTES) >> 10
            );
            return Finding::failure(CODE, seen, BUFFERS);
        }
    }
    Finding::not_checked(CODE, "no head arrived, although events were published")
}

/// Checks whether compression delays events, for clients that accept it. Compressed data is
/// not decoded: each ping has to bring bytes.
pub(super) fn compression(
    requester: &Requester,
    publisher: Option<&Publisher>,
    pace: Pace,
) -> Finding {
    const CODE: &str = "compression";
    let seen = match requester.get(&[("Accept-Encoding", "gzip, deflate, br, zstd")]) {
        Ok(seen) => seen,
        Err(error) => return Finding::not_checked(CODE, super::http::reason(&error)),
    };
    let coding = super::head::text(seen.headers(), "content-encoding").to_owned();
    if coding.is_empty() || coding == "identity" {
        return Finding::ok(CODE, "no compression, even if the client accepts it");
    }
    let Some(publisher) = publisher else {
        let why = format!(
            "the stream is compressed ({coding}); only --publish-url shows whether events are delayed"
        );
        return Finding::not_checked(CODE, why);
    };
    let clock = requester.clock;
    let mut reader = match StreamReader::new(seen, clock) {
        Ok(reader) => reader,
        Err(why) => return Finding::not_checked(CODE, why),
    };
    reader.await_first_byte();
    let pings = match packed_pings(&mut reader, publisher, clock, pace.interval) {
        Ok(pings) => pings,
        Err(rejected) => return Finding::not_checked(CODE, rejected.why),
    };
    match judge(&pings) {
        Flow::AtOnce { slowest } | Flow::Late { fastest: slowest } => {
            let ms = slowest.as_millis();
            Finding::ok(
                CODE,
                format!("{coding}, and each ping arrived within {ms} ms"),
            )
        }
        _ => Finding::failure(
            CODE,
            format!("{coding}: pings are delayed that arrive one by one without compression"),
            "the compressor does not flush after each event. Switch compression off for \
             text/event-stream (nginx: remove it from `gzip_types`), or flush after each event",
        ),
    }
}

fn packed_pings(
    reader: &mut StreamReader,
    publisher: &Publisher,
    clock: Clock,
    interval: Duration,
) -> Result<Vec<Ping>, Rejected> {
    let mut pings: Vec<Ping> = Vec::with_capacity(PACKED_PINGS);
    let mut came: Vec<Duration> = Vec::new();
    for n in 0..PACKED_PINGS {
        let sent = clock.now();
        publisher.publish(&publisher.mark(&format!("packed {n}")))?;
        pings.push(Ping {
            sent,
            arrived: None,
        });
        while let Part::Bytes { at, .. } = reader.next_part(sent + interval) {
            came.push(at);
        }
    }
    if let Part::Bytes { at, .. } = reader.next_part(clock.now() + GRACE.min(interval * 4)) {
        came.push(at);
    }
    for ping in &mut pings {
        ping.arrived = came.iter().copied().find(|at| *at >= ping.sent);
    }
    Ok(pings)
}
