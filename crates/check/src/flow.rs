//! Whether what is published comes at once: the first byte, timed pings, and
//! the same for who asks for compression.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::finding::Finding;
use super::publisher::{Publisher, Refused};
use super::timing::{Flow, Ping, judge};
use super::visit::{Clock, Look, Tap, Visitor};

/// How long the last ping is waited for.
const GRACE: Duration = Duration::from_secs(3);
/// What is published to push what a buffer holds out of it: more than
/// proxies' buffers for one answer, which have 4 to 64 KiB.
const PADDING_BYTES: usize = 64 << 10;
const PADDINGS: usize = 4;
/// Pings of the look at compression, which has to find the same.
const PACKED_PINGS: usize = 6;

/// How long each of them is waited for.
const PADDING_WAIT: Duration = Duration::from_millis(500);

/// What to do about a buffer.
const GATHERS: &str = "something on the way gathers events before it passes them on: in nginx \
                       `proxy_buffering off`, elsewhere switch off response buffering and \
                       compression for this path";

/// How many pings, and how far apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) pings: usize,
    pub(super) interval: Duration,
}

/// When a stream's body began, seen from its head at `opened`.
pub(super) fn first_byte(tap: &Tap, opened: Duration) -> Finding {
    const CODE: &str = "first_byte";
    match tap.first_byte_at {
        Some(at) => {
            let after = at.saturating_sub(opened).as_millis();
            Finding::ok(CODE, format!("{after} ms after the head"))
        }
        None => Finding::warning(
            CODE,
            "none within 3 s of the head",
            "Firefox opens a stream with its first byte, and some proxies hold back the head \
             until then: send the line `ping:` at once; if the server does, a proxy buffers it",
        ),
    }
}

/// Publishes pings at the pace, and takes note of when they come.
pub(super) fn ping(
    tap: &mut Tap,
    publisher: &Publisher,
    clock: Clock,
    pace: Pace,
) -> Result<Vec<Ping>, Refused> {
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
        note(tap, sent + pace.interval, &marks, &mut pings);
    }
    let until = clock.now() + GRACE;
    while clock.now() < until && pings.iter().any(|ping| ping.arrived.is_none()) {
        let step = (clock.now() + pace.interval).min(until);
        note(tap, step, &marks, &mut pings);
    }
    Ok(pings)
}

/// Takes note of the pings that come until then.
fn note(tap: &mut Tap, until: Duration, marks: &[String], pings: &mut [Ping]) {
    for arrived in tap.gather(until) {
        let is_it = |mark: &String| arrived.event.data.contains(&**mark);
        if let Some(ping) = marks.iter().position(is_it).and_then(|n| pings.get_mut(n)) {
            ping.arrived.get_or_insert(arrived.at);
        }
    }
}

/// What the pings came to. If none came, whether more bytes push them out.
pub(super) fn buffering(
    pings: &[Ping],
    pace: Pace,
    tap: &mut Tap,
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
                "{of} pings, {apart} ms apart, came one by one, the slowest after {} ms",
                ms(slowest)
            ),
        ),
        Flow::Clumped { largest, held } => Finding::failure(
            CODE,
            format!(
                "{of} pings, {apart} ms apart, came in clumps of up to {largest}; one was held \
                 for {} ms",
                ms(held)
            ),
            GATHERS,
        ),
        Flow::Stalled { largest, held } => Finding::warning(
            CODE,
            format!(
                "of {of} pings {largest} came at once after a stall of {} ms",
                ms(held)
            ),
            "once may be the network or a busy machine: check again, with more --pings",
        ),
        Flow::Late { fastest } => Finding::warning(
            CODE,
            format!(
                "{of} pings came one by one, none in less than {} ms",
                ms(fastest)
            ),
            "somebody on the way waits before it passes on what it has, or the server publishes \
             late: look for delays and polling",
        ),
        Flow::Lost { came } => Finding::failure(
            CODE,
            format!("of {of} pings {came} came within {} s", GRACE.as_secs()),
            "the rest is held back or lost: look for a proxy that buffers, and for a server that \
             drops events",
        ),
        Flow::Silent => {
            let seen = format!("none of {of} pings came within {} s", GRACE.as_secs());
            match came_with_padding(tap, publisher, clock) {
                true => Finding::failure(
                    CODE,
                    format!("{seen}, and they did once some 64 KiB were published behind them"),
                    GATHERS,
                ),
                false => Finding::failure(
                    CODE,
                    seen,
                    "either the publish URL is of another channel than the stream, or something \
                     on the way holds all of it back: subscribe past the proxy to tell which",
                ),
            }
        }
    }
}

fn came_with_padding(tap: &mut Tap, publisher: &Publisher, clock: Clock) -> bool {
    let wanted = publisher.mark("ping 0");
    for _ in 0..PADDINGS {
        if publisher.publish(&"x".repeat(PADDING_BYTES)).is_err() {
            return false;
        }
        let until = clock.now() + PADDING_WAIT;
        if tap
            .find(until, |event| event.data.contains(&wanted), drop)
            .is_some()
        {
            return true;
        }
    }
    false
}

/// Of a stream whose head does not come: whether bytes that are published to it
/// push it out.
pub(super) fn held_head(visitor: &Visitor, publisher: &Publisher) -> Finding {
    const CODE: &str = "buffering";
    let (sender, answers) = channel();
    let asks = visitor.clone();
    let asking = thread::Builder::new().name("pushwheel-ask".into());
    let asking = asking.spawn(move || sender.send(asks.get(&[]).is_ok()));
    if let Err(error) = asking {
        return Finding::not_checked(CODE, format!("there is no thread to be had: {error}"));
    }
    for n in 1..=PADDINGS {
        if let Err(refused) = publisher.publish(&"x".repeat(PADDING_BYTES)) {
            return Finding::not_checked(CODE, refused.why);
        }
        if answers.recv_timeout(PADDING_WAIT) == Ok(true) {
            let seen = format!(
                "the head came once {} KiB were published to the stream",
                (n * PADDING_BYTES) >> 10
            );
            return Finding::failure(CODE, seen, GATHERS);
        }
    }
    Finding::not_checked(CODE, "no head came, whatever was published")
}

/// Whether compression, for who asks for it, holds events back. What is
/// compressed is not read: each ping has to bring bytes.
pub(super) fn compression(visitor: &Visitor, publisher: Option<&Publisher>, pace: Pace) -> Finding {
    const CODE: &str = "compression";
    let seen = match visitor.get(&[("Accept-Encoding", "gzip, deflate, br, zstd")]) {
        Ok(seen) => seen,
        Err(error) => return Finding::not_checked(CODE, error.to_string()),
    };
    let coding = super::head::text(seen.headers(), "content-encoding").to_owned();
    if coding.is_empty() || coding == "identity" {
        return Finding::ok(CODE, "the stream is not compressed for who asks for it");
    }
    let Some(publisher) = publisher else {
        let why = format!(
            "the stream is compressed ({coding}); that nothing is held back shows only with --publish-url"
        );
        return Finding::not_checked(CODE, why);
    };
    let clock = visitor.clock;
    let mut tap = match Tap::new(seen, clock) {
        Ok(tap) => tap,
        Err(why) => return Finding::not_checked(CODE, why),
    };
    tap.await_first_byte();
    let pings = match packed_pings(&mut tap, publisher, clock, pace.interval) {
        Ok(pings) => pings,
        Err(refused) => return Finding::not_checked(CODE, refused.why),
    };
    match judge(&pings) {
        Flow::AtOnce { slowest } | Flow::Late { fastest: slowest } => {
            let ms = slowest.as_millis();
            Finding::ok(CODE, format!("{coding}, and each ping came within {ms} ms"))
        }
        _ => Finding::failure(
            CODE,
            format!("{coding}: pings are held back that come one by one uncompressed"),
            "who compresses does not flush after each event: switch compression off for \
             text/event-stream (nginx: leave it out of `gzip_types`), or have it flush",
        ),
    }
}

fn packed_pings(
    tap: &mut Tap,
    publisher: &Publisher,
    clock: Clock,
    interval: Duration,
) -> Result<Vec<Ping>, Refused> {
    let mut pings: Vec<Ping> = Vec::with_capacity(PACKED_PINGS);
    let mut came: Vec<Duration> = Vec::new();
    for n in 0..PACKED_PINGS {
        let sent = clock.now();
        publisher.publish(&publisher.mark(&format!("packed {n}")))?;
        pings.push(Ping {
            sent,
            arrived: None,
        });
        while let Look::Bytes { at, .. } = tap.look(sent + interval) {
            came.push(at);
        }
    }
    if let Look::Bytes { at, .. } = tap.look(clock.now() + GRACE.min(interval * 4)) {
        came.push(at);
    }
    for ping in &mut pings {
        ping.arrived = came.iter().copied().find(|at| *at >= ping.sent);
    }
    Ok(pings)
}
