//! Settings that the server starts with and that are hardly what was meant: it
//! warns of them, and a check takes them for mistakes.

use super::{Arguments, Settings};
use crate::cli::{Failure, settings};

/// What is doubtful about settings, each with what to do about it.
pub(crate) fn doubts(settings: &Settings) -> Vec<Failure> {
    let mut doubts = settings::strange_variables::<Arguments>();
    doubts.extend(events_beyond_bodies(settings));
    doubts
}

/// Events that may be larger than the bodies that they come in.
fn events_beyond_bodies(settings: &Settings) -> Vec<Failure> {
    const KEY: &str = "event_bytes";
    let arguments = &settings.arguments;
    let body_bytes = arguments.limits.max_body_bytes;
    let doubt = |event_bytes: usize| {
        format!(
            "an event can hardly have {event_bytes} bytes, for the body that it comes in has \
             {body_bytes} at most: give --max-body-bytes {event_bytes} or more, or a smaller \
             --event-bytes"
        )
    };
    let for_all = arguments.channels.event_bytes;
    let mut doubts = Vec::new();
    // Whoever has made bodies smaller than the default means all events.
    if settings.is_set(KEY) && for_all > body_bytes {
        doubts.push(settings.blame(&[KEY], doubt(for_all)));
    }
    for (index, rule) in settings.rules.iter().enumerate() {
        let event_bytes = rule.options.event_bytes;
        if event_bytes != for_all && event_bytes > body_bytes {
            doubts.push(settings.blame_rule(index, &doubt(event_bytes)));
        }
    }
    doubts
}
