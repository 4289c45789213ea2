//! Whether a client that comes back is sent what it missed: each once, in
//! order, and told where that cannot be.

use std::time::Duration;

use super::finding::Finding;
use super::http;
use super::idle::Came;
use super::publisher::Publisher;
use super::visit::{Arrived, Tap, Visitor};

/// How long what was published is waited for.
const WAIT: Duration = Duration::from_secs(5);
/// An id that no server has given.
const UNKNOWN_ID: &str = "pushwheel-check-unknown";

const IDS: &str = "ids";
const RESUMPTION: &str = "resumption";
const BY_QUERY: &str = "resumption_by_query";
const UNKNOWN: &str = "unknown_id";

/// None of it was looked at.
pub(super) fn not_checked(why: &str) -> Vec<Finding> {
    let codes = [IDS, RESUMPTION, BY_QUERY, UNKNOWN];
    codes.map(|code| Finding::not_checked(code, why)).to_vec()
}

/// Publishes, goes away, publishes, and comes back: by header, by query, and
/// with an id that nobody knows.
pub(super) fn check(visitor: &Visitor, publisher: &Publisher) -> Vec<Finding> {
    match try_check(visitor, publisher) {
        Ok(findings) => findings,
        Err(why) => not_checked(&why),
    }
}

fn try_check(visitor: &Visitor, publisher: &Publisher) -> Result<Vec<Finding>, String> {
    let marks = ["a", "b", "c", "d", "e", "f"].map(|name| publisher.mark(name));
    let [first, second, missed, by_header, by_query, live] = &marks;
    let publish = |mark: &String| publisher.publish(mark).map_err(|refused| refused.why);

    let mut tap = visitor.open(&[])?;
    publish(first)?;
    publish(second)?;
    let seen = await_mark(visitor, &mut tap, first).map(|arrived| arrived.event.id);
    if await_mark(visitor, &mut tap, second).is_none() {
        return Err("what was published did not come: see `buffering`".into());
    }
    let Some(Some(id)) = seen.filter(|id| id.as_ref().is_some_and(|id| !id.is_empty())) else {
        let mut findings = not_checked("events have no ids to come back with");
        findings[0] = Finding::failure(
            IDS,
            "events came without ids",
            "a browser cannot say what it has seen, and what it misses while it reconnects is \
             gone: give every event an `id`",
        );
        return Ok(findings);
    };
    let ids = Finding::ok(IDS, format!("each event has one, such as `{id}`"));
    drop(tap);
    publish(missed)?;

    let mut tap = visitor.open(&[("Last-Event-ID", &id)])?;
    publish(by_header)?;
    let wanted = [second, missed, by_header];
    let by_header = judge(RESUMPTION, visitor, &mut tap, &marks, &wanted);

    let url = http::with_parameter(&visitor.url, "last_event_id", &id);
    let elsewhere = Visitor {
        url,
        ..visitor.clone()
    };
    let by_query = match elsewhere.open(&[]) {
        Ok(mut tap) => {
            publish(by_query)?;
            let wanted = [second, missed, &marks[3], by_query];
            // EventSource sends the header by itself; the query is an extra.
            let mut finding = judge(BY_QUERY, visitor, &mut tap, &marks, &wanted);
            if finding.outcome == super::finding::Outcome::Failure {
                finding = Finding::warning(
                    BY_QUERY,
                    finding.seen,
                    "EventSource cannot send the header with its first request: take the id from \
                     the query, `last_event_id`, too",
                );
            }
            finding
        }
        Err(why) => Finding::not_checked(BY_QUERY, why),
    };

    let mut tap = visitor.open(&[("Last-Event-ID", UNKNOWN_ID)])?;
    publish(live)?;
    Ok(vec![
        ids,
        by_header,
        by_query,
        unknown(visitor, &mut tap, live),
    ])
}

fn await_mark(visitor: &Visitor, tap: &mut Tap, mark: &str) -> Option<Arrived> {
    let until = visitor.clock.now() + WAIT;
    tap.find(until, |event| event.data.contains(mark), drop)
}

/// Holds what comes, up to the last of `wanted`, against what should.
fn judge(
    code: &'static str,
    visitor: &Visitor,
    tap: &mut Tap,
    marks: &[String],
    wanted: &[&String],
) -> Finding {
    let mut came: Vec<usize> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mark_of = |data: &str| marks.iter().position(|mark| data.contains(&**mark));
    let Some(last) = wanted.last() else {
        return Finding::not_checked(code, "nothing was published");
    };
    let until = visitor.clock.now() + WAIT;
    let found = tap.find(
        until,
        |event| event.data.contains(&***last),
        |arrived| match mark_of(&arrived.event.data) {
            Some(mark) => came.push(mark),
            None => names.push(arrived.event.name),
        },
    );
    if let Some(arrived) = found {
        came.extend(mark_of(&arrived.event.data));
    }
    let wanted: Vec<usize> = wanted.iter().filter_map(|mark| mark_of(mark)).collect();
    if came == wanted {
        return Finding::ok(code, "what was missed came first, in order, each once");
    }
    let missing = wanted.iter().filter(|mark| !came.contains(mark)).count();
    let mut unique = came.clone();
    unique.sort_unstable();
    unique.dedup();
    if names.iter().any(|name| name == "pushwheel.gap") {
        return Finding::failure(
            code,
            "the server says that what was missed is gone, seconds after it was published",
            "let it keep more of its history (`pushwheel serve --history-events`)",
        );
    }
    if missing > 0 {
        return Finding::failure(
            code,
            format!(
                "{missing} of {} events did not come to who came back",
                wanted.len()
            ),
            "what a client misses while it reconnects is gone: keep a history, resume after \
             `Last-Event-ID`, and see that the proxy passes this header on",
        );
    }
    let seen = match unique.len() < came.len() {
        true => "events came twice to who came back",
        false => "events came in another order, or again, to who came back",
    };
    let advice = "send what came after `Last-Event-ID`, in the order in which it was published, \
                  and nothing else";
    Finding::failure(code, seen, advice)
}

/// What comes before `live` says whether the client is told.
fn unknown(visitor: &Visitor, tap: &mut Tap, live: &str) -> Finding {
    let until = visitor.clock.now() + WAIT;
    let mut told: Option<String> = None;
    let found = tap.find(
        until,
        |event| event.data.contains(live),
        |arrived| {
            told.get_or_insert(arrived.event.name);
        },
    );
    let advice = "a client whose id is too old cannot know that it has missed something: send an \
                  event first that says so, as `pushwheel.gap`";
    match (told, found) {
        (Some(name), _) if name == "pushwheel.gap" => {
            Finding::ok(UNKNOWN, "it is told, by an event `pushwheel.gap`")
        }
        (Some(name), _) => {
            let name = if name.is_empty() { "message" } else { &name };
            Finding::ok(
                UNKNOWN,
                format!("it is answered with an event `{name}` first"),
            )
        }
        (None, Some(_)) => Finding::warning(UNKNOWN, "it is passed over in silence", advice),
        (None, None) => Finding::failure(
            UNKNOWN,
            "a client with an id that nobody knows is sent nothing at all",
            "let it hear what is published from then on, and tell it of the gap",
        ),
    }
}

/// Without publishing: whether events that came had ids, and the second one is
/// sent to who comes back with the first.
pub(super) fn check_seen(visitor: &Visitor, came: &Came) -> Vec<Finding> {
    let mut findings = not_checked("it needs --publish-url");
    match &*came.ids {
        // One by itself may be a greeting.
        [] if came.events > 1 => {
            findings[0] = Finding::failure(
                IDS,
                "events came without ids",
                "a browser cannot say what it has seen: give every event an `id`",
            );
        }
        [] => findings[0] = Finding::not_checked(IDS, "it needs --publish-url, or more events"),
        [id, ..] => findings[0] = Finding::ok(IDS, format!("events have them, such as `{id}`")),
    }
    findings[1] = match &*came.ids {
        [first, second, ..] => resumption_seen(visitor, first, second),
        _ => {
            let why = "it needs --publish-url, or a stream on which two events with ids come";
            Finding::not_checked(RESUMPTION, why)
        }
    };
    findings
}

fn resumption_seen(visitor: &Visitor, first: &str, second: &str) -> Finding {
    let mut tap = match visitor.open(&[("Last-Event-ID", first)]) {
        Ok(tap) => tap,
        Err(why) => return Finding::not_checked(RESUMPTION, why),
    };
    let until = visitor.clock.now() + WAIT;
    let mut is_anew = false;
    let found = tap.find(
        until,
        |event| event.id.as_deref() == Some(second),
        |arrived| is_anew |= arrived.event.id.as_deref() == Some(first),
    );
    match found {
        Some(_) if is_anew => Finding::failure(
            RESUMPTION,
            "the event of the id came again before the one after it",
            "who comes back is sent what it has seen: begin after `Last-Event-ID`, see that the \
             proxy passes this header on, and give no id twice",
        ),
        Some(_) => Finding::ok(RESUMPTION, "the event after the id came again"),
        None => Finding::failure(
            RESUMPTION,
            "the event after the id did not come again",
            "keep a history, resume after `Last-Event-ID`, and see that the proxy passes this \
             header on",
        ),
    }
}
