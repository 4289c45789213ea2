//! Whether a client that reconnects receives the events that it missed, each once and in
//! order, or a gap.

use std::time::Duration;

use super::finding::Finding;
use super::http;
use super::idle::Received;
use super::publisher::Publisher;
use super::request::{Arrived, Requester, StreamReader};

/// The maximum wait for a published event.
const WAIT: Duration = Duration::from_secs(5);
/// An id that no server has assigned.
const UNKNOWN_ID: &str = "pushwheel-check-unknown";

const IDS: &str = "ids";
const RESUMPTION: &str = "resumption";
const BY_QUERY: &str = "resumption_by_query";
const UNKNOWN: &str = "unknown_id";

/// The findings if nothing was checked.
pub(super) fn not_checked(why: &str) -> Vec<Finding> {
    let codes = [IDS, RESUMPTION, BY_QUERY, UNKNOWN];
    codes.map(|code| Finding::not_checked(code, why)).to_vec()
}

/// Publishes, disconnects, publishes, and reconnects: with the header, with the query, and
/// with an unknown id.
pub(super) fn check(requester: &Requester, publisher: &Publisher) -> Vec<Finding> {
    match try_check(requester, publisher) {
        Ok(findings) => findings,
        Err(why) => not_checked(&why),
    }
}

fn try_check(requester: &Requester, publisher: &Publisher) -> Result<Vec<Finding>, String> {
    let marks = ["a", "b", "c", "d", "e", "f"].map(|name| publisher.mark(name));
    let [first, second, missed, by_header, by_query, live] = &marks;
    let publish = |mark: &String| publisher.publish(mark).map_err(|rejected| rejected.why);

    let mut reader = requester.open(&[])?;
    publish(first)?;
    publish(second)?;
    let seen = await_mark(requester, &mut reader, first).map(|arrived| arrived.event.id);
    if await_mark(requester, &mut reader, second).is_none() {
        return Err("a published event did not arrive: see `buffering`".into());
    }
    let Some(Some(id)) = seen.filter(|id| id.as_ref().is_some_and(|id| !id.is_empty())) else {
        let mut findings = not_checked("events have no ids");
        findings[0] = Finding::failure(
            IDS,
            "events without ids",
            "a browser that reconnects cannot report its position, and misses events. Send an `id` \
             with every event",
        );
        return Ok(findings);
    };
    let ids = Finding::ok(IDS, format!("every event has one, such as `{id}`"));
    drop(reader);
    publish(missed)?;

    let mut reader = requester.open(&[("Last-Event-ID", &id)])?;
    publish(by_header)?;
    let wanted = [second, missed, by_header];
    let by_header = judge(RESUMPTION, requester, &mut reader, &marks, &wanted);

    let url = http::with_parameter(&requester.url, "last_event_id", &id);
    let elsewhere = Requester {
        url,
        ..requester.clone()
    };
    let by_query = match elsewhere.open(&[]) {
        Ok(mut reader) => {
            publish(by_query)?;
            let wanted = [second, missed, &marks[3], by_query];
            // EventSource sends the header, so the query is optional.
            let mut finding = judge(BY_QUERY, requester, &mut reader, &marks, &wanted);
            if finding.outcome == super::finding::Outcome::Failure {
                finding = Finding::warning(
                    BY_QUERY,
                    finding.seen,
                    "EventSource cannot send the header with its first request. Accept the id in \
                     the query parameter `last_event_id` too",
                );
            }
            finding
        }
        Err(why) => Finding::not_checked(BY_QUERY, why),
    };

    let mut reader = requester.open(&[("Last-Event-ID", UNKNOWN_ID)])?;
    publish(live)?;
    Ok(vec![
        ids,
        by_header,
        by_query,
        unknown(requester, &mut reader, live),
    ])
}

fn await_mark(requester: &Requester, reader: &mut StreamReader, mark: &str) -> Option<Arrived> {
    let until = requester.clock.now() + WAIT;
    reader.find(until, |event| event.data.contains(mark), drop)
}

/// Compares the events that arrive, up to the last of `wanted`, with those that should.
fn judge(
    code: &'static str,
    requester: &Requester,
    reader: &mut StreamReader,
    marks: &[String],
    wanted: &[&String],
) -> Finding {
    let mut received: Vec<usize> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mark_of = |data: &str| marks.iter().position(|mark| data.contains(&**mark));
    let Some(last) = wanted.last() else {
        return Finding::not_checked(code, "nothing was published");
    };
    let until = requester.clock.now() + WAIT;
    let found = reader.find(
        until,
        |event| event.data.contains(&***last),
        |arrived| match mark_of(&arrived.event.data) {
            Some(mark) => received.push(mark),
            None => names.push(arrived.event.name),
        },
    );
    if let Some(arrived) = found {
        received.extend(mark_of(&arrived.event.data));
    }
    let wanted: Vec<usize> = wanted.iter().filter_map(|mark| mark_of(mark)).collect();
    if received == wanted {
        return Finding::ok(code, "missed events arrived first, in order, each once");
    }
    let missing = wanted
        .iter()
        .filter(|mark| !received.contains(mark))
        .count();
    let mut unique = received.clone();
    unique.sort_unstable();
    unique.dedup();
    if names.iter().any(|name| name == "pushwheel.gap") {
        return Finding::failure(
            code,
            "the server reports a gap, seconds after the events were published",
            "keep more history (`pushwheel serve --history-events`)",
        );
    }
    if missing > 0 {
        return Finding::failure(
            code,
            format!(
                "{missing} of {} events did not arrive after a reconnection",
                wanted.len()
            ),
            "clients lose events while they reconnect. Keep a history, resume after \
             `Last-Event-ID`, and let the proxy forward this header",
        );
    }
    let seen = match unique.len() < received.len() {
        true => "events arrived twice after a reconnection",
        false => "events arrived in another order after a reconnection",
    };
    let advice = "send the events after `Last-Event-ID`, in the order in which they were \
                  published, and no others";
    Finding::failure(code, seen, advice)
}

/// Checks for an event before `live` that reports the gap.
fn unknown(requester: &Requester, reader: &mut StreamReader, live: &str) -> Finding {
    let until = requester.clock.now() + WAIT;
    let mut report: Option<String> = None;
    let found = reader.find(
        until,
        |event| event.data.contains(live),
        |arrived| {
            report.get_or_insert(arrived.event.name);
        },
    );
    let advice = "a client whose id is too old cannot detect that it missed events. Send an event \
                  such as `pushwheel.gap` first";
    match (report, found) {
        (Some(name), _) if name == "pushwheel.gap" => Finding::ok(
            UNKNOWN,
            "the client receives an event `pushwheel.gap` first",
        ),
        (Some(name), _) => {
            let name = if name.is_empty() { "message" } else { &name };
            Finding::ok(
                UNKNOWN,
                format!("the client receives an event `{name}` first"),
            )
        }
        (None, Some(_)) => Finding::warning(UNKNOWN, "the id is ignored", advice),
        (None, None) => Finding::failure(
            UNKNOWN,
            "a client with an unknown id receives nothing",
            "send new events to it, and report the gap",
        ),
    }
}

/// Without publishing: checks whether events have ids, and whether the second one arrives
/// after a reconnection with the id of the first.
pub(super) fn check_seen(requester: &Requester, received: &Received) -> Vec<Finding> {
    let mut findings = not_checked("needs --publish-url");
    match &*received.ids {
        // A single one may be the opening.
        [] if received.events > 1 => {
            findings[0] = Finding::failure(
                IDS,
                "events without ids",
                "a browser that reconnects cannot report its position. Send an `id` with every event",
            );
        }
        [] => findings[0] = Finding::not_checked(IDS, "needs --publish-url, or more events"),
        [id, ..] => findings[0] = Finding::ok(IDS, format!("events have ids, such as `{id}`")),
    }
    findings[1] = match &*received.ids {
        [first, second, ..] => resumption_seen(requester, first, second),
        _ => {
            let why = "needs --publish-url, or a stream with two events with ids";
            Finding::not_checked(RESUMPTION, why)
        }
    };
    findings
}

fn resumption_seen(requester: &Requester, first: &str, second: &str) -> Finding {
    let mut reader = match requester.open(&[("Last-Event-ID", first)]) {
        Ok(reader) => reader,
        Err(why) => return Finding::not_checked(RESUMPTION, why),
    };
    let until = requester.clock.now() + WAIT;
    let mut is_repeated = false;
    let found = reader.find(
        until,
        |event| event.id.as_deref() == Some(second),
        |arrived| is_repeated |= arrived.event.id.as_deref() == Some(first),
    );
    match found {
        Some(_) if is_repeated => Finding::failure(
            RESUMPTION,
            "the event with the id arrived again",
            "start after `Last-Event-ID`, let the proxy forward this header, and use no id twice",
        ),
        Some(_) => Finding::ok(RESUMPTION, "the event after the id arrived again"),
        None => Finding::failure(
            RESUMPTION,
            "the event after the id did not arrive again",
            "keep a history, resume after `Last-Event-ID`, and let the proxy forward this header",
        ),
    }
}
