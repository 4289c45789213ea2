//! The access log and the event log: a record of the crate `log`, with fields, for each
//! request, each start and end of a stream, and each publish. The program's logger decides
//! on their form and destination.
//!
//! A text of a client is always the value of a field, never part of a message, and takes at
//! most 1 KiB. Secrets are hidden, in a query and in a path, where they are if the client
//! forgot the `?`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::access::{LOGGED_BYTES_MAX, logged_target, logged_text};
use super::context::Context;
use pushwheel::{Channel, EngineBuilder, Published, Request, Response, Subscription};

/// The target of log records about requests.
pub const ACCESS_LOG: &str = "pushwheel::access";
/// The target of log records about streams and published events.
pub const EVENT_LOG: &str = "pushwheel::events";

/// Adds hooks that log every request while the configuration has the access log on.
pub(super) fn install(engine: EngineBuilder, context: &Context) -> EngineBuilder {
    let (answered, refused) = (context.clone(), context.clone());
    engine
        .after(move |request, response| log_request(&answered, request, response))
        .on_refusal(move |rejection| {
            if refused.config().access_log {
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

fn log_request(context: &Context, request: &Request, response: &Response) {
    if !context.config().access_log {
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

/// Adds hooks that log the start and the end of a stream, if the event log is on.
pub(super) fn log_stream(
    context: &Context,
    request: &Request,
    subscription: Subscription,
) -> Subscription {
    if !context.config().event_log {
        return subscription;
    }
    let channels = names_of(subscription.channels());
    let (address, stopwatch) = (request.client_address(), context.stopwatch);
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

/// Warns of a rejected subscription, at most once a minute. An `EventSource` hides the
/// status from its page, so the developer sees the reason only here.
pub(super) fn warn_of_rejection(context: &Context, request: &Request, response: &Response) {
    if context.subscription_warning.is_due() {
        log::warn!(
            address:% = request.client_address(),
            path = &*logged_target(request.target()),
            status = response.status_code(),
            code = response.error_code();
            "a subscription was rejected. There may be more: see pushwheel_refusals_total and \
             --access-log"
        );
    }
}

/// Returns the names of a stream's channels in one text, as long as one name at most. Both
/// records of the stream share it.
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

/// Logs a publish to one channel, or to all.
pub(super) fn log_publish(address: SocketAddr, channels: &[String], published: &Published) {
    let id = published.id.as_ref();
    let id = id.map(|id| logged_text(&id.to_string()).into_owned());
    let log = |channel: Option<&str>| {
        log::info!(
            target: EVENT_LOG,
            channel = channel,
            id = id.as_deref(),
            events = published.events,
            clients = published.clients,
            address:% = address;
            "published"
        );
    };
    if channels.is_empty() {
        log(None);
    }
    for channel in channels {
        log(Some(&logged_text(channel)));
    }
}

/// Returns milliseconds with three decimals.
fn as_ms(time: Duration) -> f64 {
    micros(time) / 1e3
}

/// Returns seconds with six decimals.
fn as_s(time: Duration) -> f64 {
    // Divides once: a second division would leave a rounding error of sixteen digits.
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
