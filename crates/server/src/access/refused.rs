//! Why somebody may not. The codes are part of the interface: they never change.

use std::borrow::Cow;
use std::time::Duration;

use pushwheel::{IntoResponse, Response};

/// A credential that is missing, wrong, or not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No credential, and this is what would do.
    Missing {
        code: &'static str,
        needed: &'static str,
    },
    /// A key that is not the one needed.
    KeyWrong {
        needed: &'static str,
    },
    /// A key, where it is the admin key that is needed and there is none.
    NoAdminKey,
    /// A token that cannot be right whenever it comes.
    TokenInvalid {
        why: &'static str,
    },
    /// A token like which every other would be that its program makes. What is
    /// told repeats the token only where that is signed.
    TokenUnfit {
        why: Cow<'static, str>,
    },
    TokenExpired,
    TokenNotYet,
    TokenAudience,
    TokenIssuer,
    /// So many forged tokens came from this address that no more are verified.
    TooManyForged {
        retry_after: Duration,
    },
    /// So many wrong keys came from this address that no key is compared.
    TooManyKeys {
        retry_after: Duration,
    },
    TicketUnknown,
    /// The credential does not list this channel, or every one.
    Channel {
        name: Option<String>,
        list: List,
    },
    /// A ticket that gives more than its maker has.
    TicketBeyond,
    TicketsTooMany {
        retry_after: Duration,
    },
    /// A cookie came from a page that is not known.
    Origin,
}

/// Where a credential lists channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    TokenSubscribe,
    TokenPublish,
    TicketSubscribe,
}

impl List {
    /// What the credential is called, and the list in it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            List::TokenSubscribe => ("token", "pushwheel.subscribe"),
            List::TokenPublish => ("token", "pushwheel.publish"),
            List::TicketSubscribe => ("ticket", "subscribe"),
        }
    }
}

impl Refused {
    pub(super) fn invalid(why: &'static str) -> Refused {
        Refused::TokenInvalid { why }
    }

    pub(super) fn unfit(why: impl Into<Cow<'static, str>>) -> Refused {
        Refused::TokenUnfit { why: why.into() }
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Refused::Missing { code, .. } => code,
            Refused::KeyWrong { .. } | Refused::NoAdminKey => "key_wrong",
            Refused::TokenInvalid { .. } | Refused::TokenUnfit { .. } => "token_invalid",
            Refused::TokenExpired => "token_expired",
            Refused::TokenNotYet => "token_not_yet_valid",
            Refused::TokenAudience => "token_audience",
            Refused::TokenIssuer => "token_issuer",
            Refused::TooManyForged { .. } => "too_many_forged",
            Refused::TooManyKeys { .. } => "too_many_wrong_keys",
            Refused::TicketUnknown => "ticket_unknown",
            Refused::Channel { .. } => "channel_not_allowed",
            Refused::TicketBeyond => "ticket_not_allowed",
            Refused::TicketsTooMany { .. } => "too_many_tickets",
            Refused::Origin => "origin_not_allowed",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Refused::Missing { .. }
            | Refused::TokenInvalid { .. }
            | Refused::TokenUnfit { .. }
            | Refused::TokenExpired
            | Refused::TokenNotYet
            | Refused::TokenAudience
            | Refused::TokenIssuer
            | Refused::TicketUnknown => 401,
            Refused::KeyWrong { .. }
            | Refused::NoAdminKey
            | Refused::Channel { .. }
            | Refused::TicketBeyond
            | Refused::Origin => 403,
            Refused::TooManyForged { .. } | Refused::TooManyKeys { .. } => 429,
            Refused::TicketsTooMany { .. } => 503,
        }
    }

    fn message(&self) -> String {
        let text = match self {
            Refused::Missing { code, needed } => {
                let what = match *code {
                    "key_missing" => "KEY",
                    _ => "TOKEN",
                };
                return format!("{needed}: send Authorization: Bearer {what}");
            }
            Refused::KeyWrong { needed } => {
                return format!(
                    "{needed}, and the key that was sent is another: send the one that the server \
                     was started with"
                );
            }
            Refused::TokenInvalid { why } => {
                return format!("the token is not accepted, {why}: get another");
            }
            Refused::TokenUnfit { why } => {
                return format!(
                    "the token is not accepted, {why}: correct the program that makes tokens"
                );
            }
            Refused::Channel { name, list } => {
                let (credential, list) = list.names();
                return match name {
                    Some(name) => format!(
                        "the {credential} does not list the channel `{name}` in its `{list}`: \
                         get one that does"
                    ),
                    None => format!(
                        "this is for every channel: it needs a key, or a {credential} that lists \
                         `*` in its `{list}`"
                    ),
                };
            }
            Refused::NoAdminKey => {
                "looking and managing need the admin key, and this server has none: start it with \
                 --admin-key"
            }
            Refused::TokenExpired => "the token has expired: get another",
            Refused::TokenNotYet => {
                "the token does not hold yet, its `nbf` is later: wait, or set the clocks"
            }
            Refused::TokenAudience => {
                "the token's `aud` is not for this server: get one that is, or start the server \
                 with --token-audience"
            }
            Refused::TokenIssuer => {
                "the token's `iss` is not one of those that are believed here: get one that is, \
                 or start the server with --token-issuer"
            }
            Refused::TooManyForged { .. } => {
                "too many forged tokens came from this address: come again later"
            }
            Refused::TooManyKeys { .. } => {
                "too many wrong keys came from this address. Send the right one later"
            }
            Refused::TicketUnknown => {
                "there is no such ticket: it was used, or has expired; get another with POST \
                 /tickets"
            }
            Refused::TicketBeyond => {
                "a ticket gives at most what its maker's token does: leave out `client` and \
                 `metadata`, and name only channels that the token lists"
            }
            Refused::TicketsTooMany { .. } => {
                "too many tickets are out, in all or by this token: ask for one later"
            }
            Refused::Origin => {
                "a cookie counts only for pages of this server's own origin, or of one that it \
                 was started with: --allow-origin"
            }
        };
        text.to_owned()
    }

    /// What `WWW-Authenticate` says (RFC 6750 section 3).
    fn challenge(&self) -> Option<&'static str> {
        match self {
            Refused::Missing { .. } => Some("Bearer"),
            _ if self.status() == 401 => Some("Bearer error=\"invalid_token\""),
            _ => None,
        }
    }

    /// For what passes by itself: after what time.
    fn passes_after(&self) -> Option<Duration> {
        match self {
            Refused::TooManyForged { retry_after }
            | Refused::TooManyKeys { retry_after }
            | Refused::TicketsTooMany { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = Response::error(self.status(), self.code(), &self.message());
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge() {
            let set = headers.insert("WWW-Authenticate", challenge);
            set.expect("this can be a header");
        }
        match self.passes_after() {
            Some(delay) => response.come_back_after(delay),
            None => response,
        }
    }
}
