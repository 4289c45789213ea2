//! The responses to requests that `access` refuses.

use std::time::Duration;

use crate::access::{List, Refused, Right};
use pushwheel::Response;

/// The remedy where a proxy forwards requests to a server without keys.
pub(crate) const PROXY_FIX: &str = "Set --admin-key, --publish-key and --trusted-proxy; or \
                                    --allow-missing-keys, if every client of the proxy may \
                                    publish and manage";

/// After this time the key set may be there.
const KEYS_RETRY_AFTER: Duration = Duration::from_secs(10);

/// After this time the broker may be back.
const BROKER_RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn response(refused: &Refused) -> Response {
    let status = status(refused);
    let mut response = Response::error(status, refused.code(), &message(refused));
    // RFC 6750 section 3: without a credential in the request no error is named.
    let challenge = match refused {
        Refused::Missing { .. } | Refused::SubscriberUnknown => Some("Bearer"),
        _ if status == 401 => Some("Bearer error=\"invalid_token\""),
        _ => None,
    };
    if let Some(challenge) = challenge {
        let headers = response.headers_mut();
        let set = headers.insert("WWW-Authenticate", challenge);
        set.expect("the challenges are valid in a header");
    }
    match retry_after(refused) {
        Some(delay) => response.come_back_after(delay),
        None => response,
    }
}

fn status(refused: &Refused) -> u16 {
    match refused {
        Refused::Missing { .. }
        | Refused::SubscriberUnknown
        | Refused::TokenInvalid { .. }
        | Refused::TokenUnfit { .. }
        | Refused::TokenExpired
        | Refused::TokenNotYet
        | Refused::TokenAudience
        | Refused::TokenIssuer
        | Refused::TicketUnknown => 401,
        Refused::KeyWrong { .. }
        | Refused::NoAdminKey
        | Refused::MayNotFinish
        | Refused::Channel { .. }
        | Refused::TicketBeyond
        | Refused::CookieOrigin
        | Refused::PageOrigin
        | Refused::Forwarded => 403,
        Refused::Host => 421,
        Refused::TooManyForged { .. } | Refused::TooManyKeys { .. } => 429,
        Refused::TicketsTooMany { .. } | Refused::KeysMissing | Refused::NoBroker => 503,
    }
}

fn retry_after(refused: &Refused) -> Option<Duration> {
    match refused {
        Refused::TooManyForged { retry_after }
        | Refused::TooManyKeys { retry_after }
        | Refused::TicketsTooMany { retry_after } => Some(*retry_after),
        Refused::KeysMissing => Some(KEYS_RETRY_AFTER),
        Refused::NoBroker => Some(BROKER_RETRY_AFTER),
        _ => None,
    }
}

/// Returns the cause and the fix.
pub(crate) fn message(refused: &Refused) -> String {
    let text = match refused {
        Refused::Missing {
            right,
            accepts_tokens,
        } => {
            let credential = if *accepts_tokens { "TOKEN" } else { "KEY" };
            let needed = needed(*right, *accepts_tokens);
            return format!("{needed}. Send `Authorization: Bearer {credential}`");
        }
        Refused::SubscriberUnknown => {
            "this channel needs a token that lists it in its `pushwheel.subscribe`, or a ticket \
             for it. Send `Authorization: Bearer TOKEN`"
        }
        Refused::KeyWrong {
            accepts_tokens: true,
            ..
        } => {
            "this needs a key or a token, and the key in the request is not one of this \
             server's. Send another one"
        }
        Refused::KeyWrong { right, .. } => {
            let needed = needed(*right, false);
            return format!("{needed}, and the request has another key or a token. Send that key");
        }
        Refused::TokenInvalid { why } => {
            return format!("the token is invalid, because {why}. Get another one");
        }
        Refused::TokenUnfit { why } => {
            return format!(
                "the token is invalid, because {why}. Correct the program that makes the tokens"
            );
        }
        Refused::Channel { name, list } => return channel_not_allowed(name.as_deref(), *list),
        Refused::MayNotFinish => {
            "a publish key may not finish channels. Use the admin key, or start the server with \
             --publish-keys-may-finish"
        }
        Refused::NoBroker => {
            "the broker that all nodes share does not answer, and it has the tickets. Try again"
        }
        Refused::NoAdminKey => {
            "viewing and managing need the admin key, and this server has none. Start it with \
             --admin-key"
        }
        Refused::KeysMissing => {
            "the server has not fetched the keys for tokens yet. Try again later"
        }
        Refused::TokenExpired => "the token has expired. Get another one",
        Refused::TokenNotYet => {
            "the token is not valid yet, its `nbf` is in the future. Wait, or correct the clocks"
        }
        Refused::TokenAudience => {
            "the token's `aud` does not name this server. Get a token that does, or start the \
             server with --token-audience"
        }
        Refused::TokenIssuer => {
            "the token's `iss` is not an issuer that this server accepts. Get another token, or \
             start the server with --token-issuer"
        }
        Refused::TooManyForged { .. } => {
            "too many forged tokens came from this address. Try again later"
        }
        Refused::TooManyKeys { .. } => {
            "too many wrong keys came from this address. Send the right one later"
        }
        Refused::TicketUnknown => {
            "the ticket is unknown, was used, or has expired. Get another one with POST /tickets"
        }
        Refused::TicketBeyond => {
            "a ticket grants at most what the token of its maker grants. Leave out `client` and \
             `metadata`, and list only channels that the token lists"
        }
        Refused::TicketsTooMany { .. } => {
            "too many tickets are valid now, of all clients or of this token. Try again later"
        }
        Refused::CookieOrigin => {
            "the cookie came from a page of another origin. Serve the page from this server, or \
             allow its origin with --allow-origin"
        }
        Refused::PageOrigin => {
            "a page of another origin may not publish or manage. Serve the page from localhost, \
             allow its origin with --allow-origin ORIGIN, or use keys"
        }
        Refused::Host => {
            "this server listens on loopback, and the request names another host, as in DNS \
             rebinding. Connect to localhost, or start the server with --allow-host NAME, or behind a \
             proxy with --trusted-proxy"
        }
        Refused::Forwarded => {
            return format!(
                "a proxy has forwarded this request to a server without keys. {PROXY_FIX}"
            );
        }
    };
    text.to_owned()
}

fn needed(right: Right, accepts_tokens: bool) -> &'static str {
    match (right, accepts_tokens) {
        (Right::Publish, true) => {
            "publishing needs a token that lists the channel in its `pushwheel.publish`, or a key"
        }
        (Right::Publish, false) => "publishing needs the publish key or the admin key",
        (Right::Finish, true) => {
            "finishing needs a token that lists the channel in its `pushwheel.finish`, or a key"
        }
        (Right::Finish, false) => "finishing needs the admin key",
        (Right::MakeTickets, true) => "making tickets needs a token or a key",
        (Right::MakeTickets, false) => "making tickets needs the publish key or the admin key",
        (Right::Manage, _) => "viewing and managing need the admin key",
    }
}

fn channel_not_allowed(name: Option<&str>, list: List) -> String {
    let (credential, list) = match list {
        List::TokenSubscribe => ("token", "pushwheel.subscribe"),
        List::TokenPublish => ("token", "pushwheel.publish"),
        List::TokenFinish => ("token", "pushwheel.finish"),
        List::TicketSubscribe => ("ticket", "subscribe"),
    };
    match name {
        Some(name) => format!(
            "the {credential} does not list the channel `{name}` in its `{list}`. Get one that does"
        ),
        None => format!(
            "this request is for all channels. It needs a key, or a {credential} that lists `*` \
             in its `{list}`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(response: &Response) -> Option<&str> {
        response.headers().get("WWW-Authenticate")
    }

    #[test]
    fn a_refusal_has_a_status_and_a_challenge_where_another_credential_helps() {
        let (accepts_tokens, right) = (false, Right::Publish);
        let retry_after = Duration::from_secs(1);
        let missing = Some("Bearer");
        let invalid = Some("Bearer error=\"invalid_token\"");
        for (refused, status, wanted) in [
            (
                Refused::Missing {
                    right,
                    accepts_tokens,
                },
                401,
                missing,
            ),
            (Refused::SubscriberUnknown, 401, missing),
            (Refused::TokenExpired, 401, invalid),
            (Refused::TicketUnknown, 401, invalid),
            (
                Refused::KeyWrong {
                    right,
                    accepts_tokens,
                },
                403,
                None,
            ),
            (Refused::CookieOrigin, 403, None),
            (Refused::Forwarded, 403, None),
            (Refused::Host, 421, None),
            (Refused::TooManyKeys { retry_after }, 429, None),
            (Refused::TicketsTooMany { retry_after }, 503, None),
        ] {
            let response = response(&refused);
            assert_eq!(response.status_code(), status, "{refused:?}");
            assert_eq!(response.error_code(), Some(refused.code()));
            assert_eq!(challenge(&response), wanted, "{refused:?}");
        }
    }
}
