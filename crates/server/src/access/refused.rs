//! The reasons for which a request is refused. `errors` maps each one to its response.

use std::borrow::Cow;
use std::time::Duration;

use super::keys::Right;

/// A credential that is missing, wrong, or not enough; or a request from a page or a
/// proxy that may not send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No credential. `accepts_tokens`: a token is enough for this right too.
    Missing {
        right: Right,
        accepts_tokens: bool,
    },
    /// No credential, where a channel needs a token or a ticket.
    SubscriberUnknown,
    /// A key, but not one that has the right.
    KeyWrong {
        right: Right,
        accepts_tokens: bool,
    },
    /// A publish key, which has no right to finish.
    MayNotFinish,
    /// A key, where only the admin key has the right, and the server has none.
    NoAdminKey,
    /// A token that is never valid.
    TokenInvalid {
        why: &'static str,
    },
    /// A signed token with a mistake of the program that made it. `why` may repeat
    /// parts of the token, because it is signed.
    TokenUnfit {
        why: Cow<'static, str>,
    },
    /// No key of the server has signed the token, and its key set was not fetched yet.
    KeysMissing,
    TokenExpired,
    TokenNotYet,
    TokenAudience,
    TokenIssuer,
    /// Too many forged tokens came from this address: no more are verified.
    TooManyForged {
        retry_after: Duration,
    },
    /// Too many wrong keys came from this address: no key is compared.
    TooManyKeys {
        retry_after: Duration,
    },
    TicketUnknown,
    /// The credential does not list this channel, or without a name all channels.
    Channel {
        name: Option<String>,
        list: List,
    },
    /// A ticket that would grant more than its maker has.
    TicketBeyond,
    /// The broker, which has the tickets of all nodes, does not answer.
    NoBroker,
    TicketsTooMany {
        retry_after: Duration,
    },
    /// A cookie that came from a page of another origin.
    CookieOrigin,
    /// A request of a page of another origin to a server on loopback.
    PageOrigin,
    /// A request to a server on loopback under another name.
    Host,
    /// A request that a proxy has forwarded to a server without keys.
    Forwarded,
}

/// The list of channels in a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    TokenSubscribe,
    TokenPublish,
    TokenFinish,
    TicketSubscribe,
}

impl Refused {
    pub(super) fn invalid(why: &'static str) -> Refused {
        Refused::TokenInvalid { why }
    }

    pub(super) fn unfit(why: impl Into<Cow<'static, str>>) -> Refused {
        Refused::TokenUnfit { why: why.into() }
    }

    /// The code in the response. Codes are part of the interface: they never change.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Refused::Missing {
                accepts_tokens: false,
                ..
            } => "key_missing",
            Refused::Missing { .. } | Refused::SubscriberUnknown => "token_missing",
            Refused::KeyWrong { .. } | Refused::MayNotFinish | Refused::NoAdminKey => "key_wrong",
            Refused::TokenInvalid { .. } | Refused::TokenUnfit { .. } => "token_invalid",
            Refused::KeysMissing => "token_keys_missing",
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
            Refused::NoBroker => "broker_unavailable",
            Refused::CookieOrigin | Refused::PageOrigin => "origin_not_allowed",
            Refused::Host => "host_not_allowed",
            Refused::Forwarded => "proxy_not_trusted",
        }
    }
}
