//! Whether line ends and NUL in data, names and ids can become another field or event.

use std::time::Duration;

use super::finding::Finding;
use super::message::Message;
use super::publisher::Publisher;
use super::request::{Requester, StreamReader};
use super::stream::Event;

const CODE: &str = "injection";
/// The maximum wait for a published event.
const WAIT: Duration = Duration::from_secs(5);
/// A text that must not arrive as the name or the id of an event, or at the start of data.
const EVIL: &str = "pushwheel-check-injected";

/// The line ends, and a character at which some parsers end a text.
const ENDS: [(&str, &str); 4] = [("CR", "\r"), ("LF", "\n"), ("CR LF", "\r\n"), ("NUL", "\0")];

/// The field that contains the bytes.
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

/// Publishes events that a server without protection turns into two.
pub(super) fn check(requester: &Requester, publisher: &Publisher) -> Finding {
    let mut reader = match requester.open(&[]) {
        Ok(reader) => reader,
        Err(why) => return Finding::not_checked(CODE, why),
    };
    let mut leaks: Vec<String> = Vec::new();
    let mut rejected = 0;
    let mut tried = 0;
    for (what, field) in FIELDS {
        // Plain text has no name and no id.
        if publisher.is_text && !matches!(field, Field::Data) {
            continue;
        }
        for (end, bytes) in ENDS {
            tried += 1;
            match attempt(requester, publisher, &mut reader, field, bytes) {
                Ok(Attempt::Rejected) => rejected += 1,
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
                "CR, LF, CR LF and NUL in {fields}: {rejected} of {tried} were rejected, none became another field or event"
            ),
        ),
        false => Finding::failure(
            CODE,
            format!("{} became another field or event", leaks.join(", ")),
            "publishers can forge events. Split data into lines at CR, LF and CR LF, and reject \
             line ends and NUL in names and ids",
        ),
    }
}

enum Attempt {
    Rejected,
    Passed,
    Leaked,
}

fn attempt(
    requester: &Requester,
    publisher: &Publisher,
    reader: &mut StreamReader,
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
    let is_rejected = match publisher.send(&message) {
        Ok(()) => false,
        Err(error)
            if error
                .status
                .is_some_and(|status| (400..500).contains(&status)) =>
        {
            true
        }
        Err(error) => return Err(error.why),
    };
    // Everything that results from it arrives before the next event.
    let after = publisher.mark("after");
    publisher.publish(&after).map_err(|error| error.why)?;
    let mut has_leaked = false;
    let until = requester.clock.now() + WAIT;
    let found = reader.find(
        until,
        |event| event.data.contains(&after),
        |arrived| has_leaked |= is_forged(&arrived.event),
    );
    match (found, has_leaked) {
        (_, true) => Ok(Attempt::Leaked),
        (Some(arrived), _) if is_forged(&arrived.event) => Ok(Attempt::Leaked),
        (Some(_), false) if is_rejected => Ok(Attempt::Rejected),
        (Some(_), false) => Ok(Attempt::Passed),
        (None, false) => Err("a published event did not arrive: see `buffering`".into()),
    }
}

/// Returns whether an event was made from the data, name or id of another one.
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
    fn text_that_stays_data_is_not_forged() {
        assert!(!forged(
            "data: mark x\ndata: event: pushwheel-check-injected\ndata: \n\n"
        ));
        assert!(!forged("id: xpushwheel-check-injected\ndata: mark\n\n"));
    }

    #[test]
    fn a_field_or_event_that_data_became_is_forged() {
        for stream in [
            "data: mark x\nevent: pushwheel-check-injected\n\n",
            "data: mark x\rid: pushwheel-check-injected\r\r",
            "data: mark x\r\n\r\ndata: pushwheel-check-injected\n\n",
        ] {
            assert!(forged(stream), "{stream:?}");
        }
    }
}
