//! Whether what is published can turn into another field or event: line ends
//! and NUL in data, names and ids.

use std::time::Duration;

use super::finding::Finding;
use super::message::Message;
use super::publisher::Publisher;
use super::stream::Event;
use super::visit::{Tap, Visitor};

const CODE: &str = "injection";
/// How long what was published is waited for.
const WAIT: Duration = Duration::from_secs(5);
/// What must not come out as the name or the id of an event, or begin its data.
const EVIL: &str = "pushwheel-check-injected";

/// The ways to end a line, and what some readers end a text at.
const ENDS: [(&str, &str); 4] = [("CR", "\r"), ("LF", "\n"), ("CR LF", "\r\n"), ("NUL", "\0")];

/// Where bytes are put.
#[derive(Clone, Copy, Debug)]
enum Field {
    Data,
    Name,
    Id,
}

const FIELDS: [(&str, Field); 3] = [
    ("data", Field::Data),
    ("names", Field::Name),
    ("ids", Field::Id),
];

/// Publishes events that would like to be two.
pub(super) fn check(visitor: &Visitor, publisher: &Publisher) -> Finding {
    let mut tap = match visitor.open(&[]) {
        Ok(tap) => tap,
        Err(why) => return Finding::not_checked(CODE, why),
    };
    let mut leaks: Vec<String> = Vec::new();
    let mut refused = 0;
    let mut tried = 0;
    for (what, field) in FIELDS {
        // Text has no name and no id.
        if publisher.is_text && !matches!(field, Field::Data) {
            continue;
        }
        for (end, bytes) in ENDS {
            tried += 1;
            match attempt(visitor, publisher, &mut tap, field, bytes) {
                Ok(Attempt::Refused) => refused += 1,
                Ok(Attempt::Passed) => {}
                Ok(Attempt::Leaked) => leaks.push(format!("{end} in {what}")),
                Err(why) => return Finding::not_checked(CODE, why),
            }
        }
    }
    let fields = match publisher.is_text {
        true => "data",
        false => "data, names and ids",
    };
    match leaks.is_empty() {
        true => Finding::ok(
            CODE,
            format!(
                "CR, LF, CR LF and NUL in {fields}: of {tried} {refused} were refused, none came out as another field or event"
            ),
        ),
        false => Finding::failure(
            CODE,
            format!("{} came out as another field or event", leaks.join(", ")),
            "whoever may publish may forge events: split data at CR, LF and CR LF into lines of \
             their own, and refuse line ends and NUL in names and ids",
        ),
    }
}

enum Attempt {
    Refused,
    Passed,
    Leaked,
}

fn attempt(
    visitor: &Visitor,
    publisher: &Publisher,
    tap: &mut Tap,
    field: Field,
    end: &str,
) -> Result<Attempt, String> {
    let forged = format!(
        "x{end}event: {EVIL}{end}id: {EVIL}{end}data: {EVIL}{end}{end}data: {EVIL}{end}{end}"
    );
    let mark = publisher.mark("forged");
    let data = format!("{mark}{forged}");
    let message = match field {
        Field::Data => Message {
            data: &data,
            ..Message::default()
        },
        Field::Name => Message {
            event: &forged,
            data: &mark,
            ..Message::default()
        },
        Field::Id => Message {
            id: Some(&forged),
            data: &mark,
            ..Message::default()
        },
    };
    let is_refused = match publisher.send(&message) {
        Ok(()) => false,
        Err(refused)
            if refused
                .status
                .is_some_and(|status| (400..500).contains(&status)) =>
        {
            true
        }
        Err(refused) => return Err(refused.why),
    };
    // All that came of it lies before what is published next.
    let after = publisher.mark("after");
    publisher.publish(&after).map_err(|refused| refused.why)?;
    let mut has_leaked = false;
    let until = visitor.clock.now() + WAIT;
    let found = tap.find(
        until,
        |event| event.data.contains(&after),
        |arrived| has_leaked |= is_forged(&arrived.event),
    );
    match (found, has_leaked) {
        (_, true) => Ok(Attempt::Leaked),
        (Some(arrived), _) if is_forged(&arrived.event) => Ok(Attempt::Leaked),
        (Some(_), false) if is_refused => Ok(Attempt::Refused),
        (Some(_), false) => Ok(Attempt::Passed),
        (None, false) => Err("what was published did not come: see `buffering`".into()),
    }
}

/// Whether an event is made of what was another's data, name or id.
fn is_forged(event: &Event) -> bool {
    let id = event.id.as_deref().unwrap_or_default();
    event.name == EVIL || id == EVIL || event.data.lines().next() == Some(EVIL)
}

#[cfg(test)]
mod tests {
    use super::super::stream::Reader;
    use super::*;

    fn forged(stream: &str) -> bool {
        let (mut reader, mut has_leaked) = (Reader::default(), false);
        let pushed = reader.push(stream.as_bytes(), |event| has_leaked |= is_forged(&event));
        pushed.unwrap();
        has_leaked
    }

    #[test]
    fn what_stays_data_is_not_forged() {
        assert!(!forged(
            "data: mark x\ndata: event: pushwheel-check-injected\ndata: \n\n"
        ));
        assert!(!forged("id: xpushwheel-check-injected\ndata: mark\n\n"));
    }

    #[test]
    fn a_field_or_event_that_came_of_data_is_forged() {
        for stream in [
            "data: mark x\nevent: pushwheel-check-injected\n\n",
            "data: mark x\rid: pushwheel-check-injected\r\r",
            "data: mark x\r\n\r\ndata: pushwheel-check-injected\n\n",
        ] {
            assert!(forged(stream), "{stream:?}");
        }
    }
}
