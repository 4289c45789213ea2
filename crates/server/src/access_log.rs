//! The access log and the event log: a record of the crate `log` for each
//! request, each stream's begin and end, and each publish, with its facts as
//! fields. How they are written, and where to, is for whoever installs a logger.
//!
//! Whatever a client has chosen comes as the value of a field, never in a
//! message, and secrets in a query do not come at all: nor in a name, where
//! they come to be if the query was not begun with a `?`. No text of a client takes
//! more than 1 KiB of a line.

use std::sync::Arc;
use std::time::Duration;

use super::access::{LOGGED_BYTES_MAX, logged_target, logged_text};
use super::context::Live;
use pushwheel::{Channel, EngineBuilder, Published, Request, Response, Subscription};

/// The target of the records of requests.
pub const ACCESS_LOG: &str = "pushwheel::access";
/// The target of the records of streams and of what is published.
pub const EVENT_LOG: &str = "pushwheel::events";

/// Has every request logged, as long as the rules say so.
pub(super) fn keep(engine: EngineBuilder, live: &Live) -> EngineBuilder {
    let (answered, refused) = (live.clone(), live.clone());
    engine
        .after(move |request, response| tell_answered(&answered, request, response))
        .on_refusal(move |rejection| {
            if refused.rules().access_log {
                log::info!(
                    target: ACCESS_LOG,
                    address:% = rejection.address,
                    status = rejection.status,
                    code = rejection.code;
                    "malformed request"
                );
            }
        })
}

fn tell_answered(live: &Live, request: &Request, response: &Response) {
    if !live.rules().access_log {
        return;
    }
    log::info!(
        target: ACCESS_LOG,
        address:% = request.client_address(),
        method = &*logged_text(request.method().as_str()),
        path = &*logged_target(request.target()),
        status = response.status_code(),
        code = response.error_code(),
        bytes = response.body_bytes(),
        duration_ms = as_ms(request.age());
        "{}", if response.is_stream() { "stream" } else { "request" }
    );
}

/// Has a stream's begin and end logged.
pub(super) fn follow(live: &Live, request: &Request, subscription: Subscription) -> Subscription {
    if !live.rules().event_log {
        return subscription;
    }
    let channels = names_of(subscription.channels());
    let (address, stopwatch) = (request.client_address(), live.stopwatch);
    let (begun, opened) = (stopwatch.now(), channels.clone());
    subscription
        .on_connect(move |client, _| {
            log::info!(
                target: EVENT_LOG,
                client = &*logged_text(&client.id.to_string()),
                channels = &*opened,
                address:% = address;
                "stream begins"
            );
        })
        .on_disconnect(move |client, reason| {
            log::info!(
                target: EVENT_LOG,
                client = &*logged_text(&client.id.to_string()),
                channels = &*channels,
                address:% = address,
                reason = reason.as_str(),
                behind = client.behind,
                lasted_s = as_s(stopwatch.now().saturating_sub(begun));
                "stream ends"
            );
        })
}

/// Returns the names of a stream's channels in one text, which is as long as one
/// name at most: both records of the stream share it, for as long as it lasts.
fn names_of(channels: &[Channel]) -> Arc<str> {
    let mut names = String::new();
    for channel in channels {
        if !names.is_empty() {
            names.push('/');
        }
        names += channel.name();
        if names.len() > LOGGED_BYTES_MAX {
            break;
        }
    }
    logged_text(&names).into()
}

/// Logs what was published to one channel, or to all.
pub(super) fn tell_published(
    live: &Live,
    request: &Request,
    channel: Option<&str>,
    published: &Published,
) {
    if live.rules().event_log {
        let channel = channel.map(logged_text);
        log::info!(
            target: EVENT_LOG,
            channel = channel.as_deref(),
            id = &*logged_text(&published.id.to_string()),
            events = published.events,
            clients = published.clients,
            address:% = request.client_address();
            "published"
        );
    }
}

/// Milliseconds, with microseconds behind the point.
fn as_ms(time: Duration) -> f64 {
    micros(time) / 1e3
}

/// Seconds, with microseconds behind the point.
fn as_s(time: Duration) -> f64 {
    // Divided once: what was divided before is between the numbers that there
    // are, and is written with sixteen digits.
    micros(time) / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "285 years")]
fn micros(time: Duration) -> f64 {
    time.as_micros() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_to_the_microsecond() {
        for (us, s, ms) in [
            (0, "0", "0"),
            (143, "0.000143", "0.143"),
            (2_007_751, "2.007751", "2007.751"),
            (86_399_999_999, "86399.999999", "86399999.999"),
        ] {
            let time = Duration::from_micros(us) + Duration::from_nanos(999);
            assert_eq!(as_s(time).to_string(), s);
            assert_eq!(as_ms(time).to_string(), ms);
        }
    }
}
