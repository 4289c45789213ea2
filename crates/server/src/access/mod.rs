//! Who a request is from, and what it may do.
//!
//! A request has at most one credential: a key, a token, a ticket. It comes to a
//! [`Grant`], against which every right is held; without tokens configured,
//! everybody may subscribe, and without keys as well, everybody may do
//! everything. Keys and tickets are compared, tokens verified; nothing is made
//! for a request before it may.

mod claims;
mod credential;
mod grant;
mod hosts;
mod keys;
mod origins;
mod redact;
mod refused;
mod settings;
mod ticket;
mod token;
mod token_keys;

#[cfg(feature = "internals")]
pub(crate) mod internals;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use credential::Credential;
use pushwheel::{Method, Request, Response};
use refused::List;
use ticket::Tickets;
use token::Verifier;

use crate::errors::Problem;
use crate::limiter::{Guesses, Limiter};
use crate::throttle::Throttle;

pub(crate) use credential::TICKET;
pub(crate) use credential::{CredentialId, bearer_of};
pub(crate) use grant::Grant;
pub(crate) use hosts::{Hosts, is_public_name};
pub(crate) use keys::{Holder, Right};
pub use keys::{KEY_CHARACTERS_MIN, Key, KeyError};
pub(crate) use origins::Origins;
pub use origins::{AllowedOrigin, OriginError};
pub use redact::redact;
pub(crate) use redact::{LOGGED_BYTES_MAX, is_harmless, logged_target, logged_text};
pub(crate) use refused::Refused;
pub(crate) use settings::Settings;
pub use token_keys::{TokenKeyError, TokenKeys};

/// What holds for requests.
#[derive(Debug)]
pub(crate) struct Access {
    settings: Settings,
    /// With it, channels are closed to whoever has no credential for them.
    verifier: Option<Verifier>,
}

/// What stays when the configuration changes.
#[derive(Clone, Debug)]
pub(crate) struct Office {
    tickets: Tickets,
    forged: Limiter,
    guesses: Guesses,
    guess_warning: Throttle,
}

impl Office {
    pub(crate) fn new() -> Office {
        Office {
            tickets: Tickets::new(),
            forged: Limiter::new(),
            guesses: Guesses::new(),
            guess_warning: Throttle::new(),
        }
    }
}

impl Access {
    pub(crate) fn new(settings: Settings) -> Access {
        let keys = &settings.token_keys;
        let verifier =
            (!keys.is_empty()).then(|| Verifier::new(keys.clone(), settings.checks.clone()));
        Access { settings, verifier }
    }

    pub(crate) fn origins(&self) -> &Origins {
        &self.settings.origins
    }

    /// Whether something is needed to publish and to manage.
    pub(crate) fn is_secured(&self) -> bool {
        self.verifier.is_some() || !self.settings.keys.are_none()
    }

    /// Whether a parameter of the query is a token, and nothing else's business.
    pub(crate) fn is_token_parameter(&self, name: &str) -> bool {
        self.verifier.is_some() && *name == *self.settings.places.parameter
    }

    pub(crate) fn has_admin_key(&self) -> bool {
        !self.settings.keys.admin.is_empty()
    }

    /// Whether somebody without a credential is let do what this request asks,
    /// though nobody has said that it is for everybody.
    pub(crate) fn is_exposed_to(&self, request: &Request) -> bool {
        let keys = &self.settings.keys;
        let reads = matches!(request.method(), Method::Get | Method::Head);
        let needs_none = || reads && keys.holder(request).is_none();
        self.verifier.is_none() && (keys.are_none() || needs_none())
    }

    // ---- rights ----

    /// Whether the key that was sent, or none where none is needed, may publish
    /// to any channel.
    pub(crate) fn may_publish_by_key(&self, request: &Request) -> bool {
        !self.is_secured() || self.settings.keys.holder(request).is_some()
    }

    /// Checks the right to manage and to view.
    pub(crate) fn manage(&self, request: &Request, office: &Office) -> Result<(), Refused> {
        let holder = self.key_holder(request, office)?;
        self.may_manage(request, holder)
    }

    /// The same for a holder that is known already.
    pub(crate) fn may_manage(
        &self,
        request: &Request,
        holder: Option<Holder>,
    ) -> Result<(), Refused> {
        let needed = "looking and managing need the admin key";
        match holder {
            _ if !self.is_secured() => Ok(()),
            Some(Holder::Admin) => Ok(()),
            None if bearer_of(request).is_none() => Err(Refused::Missing {
                code: "key_missing",
                needed,
            }),
            _ if !self.has_admin_key() => Err(Refused::NoAdminKey),
            _ => Err(Refused::KeyWrong { needed }),
        }
    }

    /// Lets somebody publish to a channel, or to all of them.
    pub(crate) fn publish(
        &self,
        request: &Request,
        channel: Option<&str>,
        office: &Office,
    ) -> Result<(), Refused> {
        let grant = self.changer(request, office, PUBLISHING)?;
        let may = match channel {
            Some(name) => grant.publish.has(name),
            None => grant.publish.has_all(),
        };
        may.then_some(()).ok_or_else(|| Refused::Channel {
            name: channel.map(str::to_owned),
            list: List::TokenPublish,
        })
    }

    /// Lets somebody subscribe to these channels; says what is known of them.
    pub(crate) fn subscribe(
        &self,
        request: &Request,
        channels: &[Cow<'_, str>],
        office: &Office,
    ) -> Result<Arc<Grant>, Refused> {
        let grant = match self.settings.places.find(request) {
            Some(Credential::Ticket(ticket)) => {
                let is_used = *request.method() != Method::Head;
                let grant = office.tickets.take(&ticket, is_used)?;
                // It is worth no more than the token or the key that made it.
                if !self.has_key_of(&grant) {
                    return Err(Refused::TicketUnknown);
                }
                if grant.has_expired(unix_seconds()) {
                    return Err(Refused::TokenExpired);
                }
                Some(grant)
            }
            // Without tokens a key grants no more than no key.
            _ if self.verifier.is_some() && self.key_holder(request, office)?.is_some() => {
                Some(Arc::new(Grant::everything()))
            }
            credential => self.verified(request, credential, office)?,
        };
        let is_open = |name: &str| self.verifier.is_none() || self.is_public(name);
        let is_known = grant.is_some();
        let grant = grant.unwrap_or_else(|| Arc::new(self.of_nobody()));
        let may = |name: &str| grant.subscribe.has(name) || (is_open(name) && !grant.is_ticket);
        match channels.iter().find(|name| !may(name)) {
            None => Ok(grant),
            Some(name) if is_known => Err(Refused::Channel {
                name: Some(name.to_string()),
                list: match grant.is_ticket {
                    true => List::TicketSubscribe,
                    false => List::TokenSubscribe,
                },
            }),
            Some(_) => Err(Refused::Missing {
                code: "token_missing",
                needed: "this channel needs a token that lists it in its `pushwheel.subscribe`, \
                         or a ticket for it",
            }),
        }
    }

    /// Lets somebody make tickets.
    pub(crate) fn make_tickets(&self, request: &Request, office: &Office) -> Result<(), Refused> {
        self.changer(request, office, MAKING_TICKETS).map(drop)
    }

    /// Makes a ticket: `POST /tickets`.
    pub(crate) fn ticket(&self, request: &Request, office: &Office) -> Result<Response, Problem> {
        let maker = self.changer(request, office, MAKING_TICKETS)?;
        let sent = || bearer_of(request).filter(|_| self.is_secured());
        let by_key = || sent().map(|key| CredentialId::of(&[key.as_bytes()]));
        let key = maker.key.or_else(by_key);
        let grant = Arc::new(ticket::wished(request, &maker, key)?);
        let Settings {
            ticket_time,
            tickets_max,
            ..
        } = self.settings;
        let ticket = office
            .tickets
            .make(grant, maker.token, ticket_time, tickets_max)?;
        Ok(ticket::handed_out(&ticket, ticket_time))
    }

    // ---- credentials ----

    /// Who wants to change something: for that no ticket is enough, nor nothing.
    fn changer(
        &self,
        request: &Request,
        office: &Office,
        needed: Needed,
    ) -> Result<Arc<Grant>, Refused> {
        if !self.is_secured() {
            return Ok(Arc::new(Grant::everything()));
        }
        if self.key_holder(request, office)?.is_some() {
            return Ok(Arc::new(Grant::everything()));
        }
        if self.has_key(request) {
            let needed = match self.verifier {
                None => needed.key,
                Some(_) => "this needs a key or a token",
            };
            return Err(Refused::KeyWrong { needed });
        }
        let credential = self.settings.places.find(request);
        let is_ticket = matches!(credential, Some(Credential::Ticket(_)));
        let credential = credential.filter(|_| !is_ticket);
        if let Some(grant) = self.verified(request, credential, office)? {
            return Ok(grant);
        }
        let (code, needed) = match self.verifier {
            None => ("key_missing", needed.key),
            Some(_) => ("token_missing", needed.token),
        };
        Err(Refused::Missing { code, needed })
    }

    /// Returns whose key came with a request, if one of the server's came. Counts a
    /// wrong key, and warns of it.
    ///
    /// # Errors
    /// If too many wrong keys came from this address, whether this one is right.
    pub(crate) fn key_holder(
        &self,
        request: &Request,
        office: &Office,
    ) -> Result<Option<Holder>, Refused> {
        let holder = self.settings.keys.holder(request);
        if holder.is_none() && !self.has_key(request) {
            return Ok(None);
        }
        let address = request.client_address().ip();
        if holder.is_none() && office.guess_warning.is_due() {
            log::warn!(
                "a client at {address} sent a wrong key. There may be more: see \
                 pushwheel_refusals_total"
            );
        }
        let rate = self.settings.wrong_keys_per_address;
        let admitted = office.guesses.admit(rate, address, holder.is_some());
        admitted.map_err(|retry_after| Refused::TooManyKeys { retry_after })?;
        Ok(holder)
    }

    /// Whether the credential is meant as a key, right or wrong. A request for more
    /// than a stream has a key more often than a token, so a text that does not look
    /// like a token is a key that was mistyped.
    fn has_key(&self, request: &Request) -> bool {
        let is_a_key = |text| self.verifier.is_none() || !token::is_meant_as_one(text);
        !self.settings.keys.are_none() && bearer_of(request).is_some_and(is_a_key)
    }

    /// Returns the grant of a token; `None` without one, and for one that counts for
    /// nothing here. Keys are checked before.
    fn verified(
        &self,
        request: &Request,
        credential: Option<Credential<'_>>,
        office: &Office,
    ) -> Result<Option<Arc<Grant>>, Refused> {
        let Some(verifier) = &self.verifier else {
            return Ok(None);
        };
        let token: Cow<'_, str> = match credential {
            // Perhaps it was meant as a key.
            Some(Credential::Bearer(text))
                if !token::has_form(text) && !self.settings.keys.are_none() =>
            {
                return Err(Refused::invalid(
                    "it has not the form of one, HEADER.CLAIMS.SIGNATURE, and is no key of this \
                     server",
                ));
            }
            Some(Credential::Bearer(token)) => token.into(),
            Some(Credential::Query(token)) => token,
            Some(Credential::Cookie(token)) => {
                self.check_page(request)?;
                token.into()
            }
            Some(Credential::Ticket(_)) | None => return Ok(None),
        };
        let rate = self.settings.forged_per_address;
        let address = request.client_address().ip();
        let may_try = || {
            let room = office.forged.has_room(rate, address);
            room.map_err(|retry_after| Refused::TooManyForged { retry_after })
        };
        let forged = || {
            // It was found that there is room: this only takes note.
            let _ = office.forged.admit(rate, address, 1);
        };
        let grant = verifier.grant(&token, unix_seconds(), may_try, forged)?;
        Ok(Some(grant))
    }

    /// Refuses a cookie that a page from elsewhere may have had sent. One that
    /// only reads has an `Origin` if it is a page that could see the answer;
    /// whatever changes something has one in every browser.
    fn check_page(&self, request: &Request) -> Result<(), Refused> {
        let host = request.host().unwrap_or_default();
        let reads = matches!(request.method(), Method::Get | Method::Head);
        let is_ours = match request.header("origin") {
            Some(origin) => self.settings.origins.may_have_cookies(origin, host),
            None => reads && request.header("sec-fetch-site") != Some("cross-site"),
        };
        is_ours.then_some(()).ok_or(Refused::Origin)
    }

    /// Whether the key behind a ticket is still one of the server's, or none was
    /// needed and none is.
    fn has_key_of(&self, ticket: &Grant) -> bool {
        let Some(id) = ticket.key else {
            return !self.is_secured();
        };
        let verifies = |verifier: &Verifier| verifier.has_key(id);
        self.settings.keys.has(id) || self.verifier.as_ref().is_some_and(verifies)
    }

    fn is_public(&self, name: &str) -> bool {
        let mut public = self.settings.public.iter();
        let found = public.find(|(pattern, _)| pattern.matches(name));
        found.is_some_and(|(_, is_public)| *is_public)
    }

    /// Of whoever sent nothing.
    fn of_nobody(&self) -> Grant {
        match &self.verifier {
            None => Grant::everything(),
            Some(_) => Grant::default(),
        }
    }
}

/// What is told to somebody who needs a credential.
#[derive(Clone, Copy)]
struct Needed {
    key: &'static str,
    token: &'static str,
}

const PUBLISHING: Needed = Needed {
    key: "publishing needs the publish key or the admin key",
    token: "publishing needs a token that lists the channel in its `pushwheel.publish`, or a \
            key",
};

const MAKING_TICKETS: Needed = Needed {
    key: "making tickets needs the publish key or the admin key",
    token: "making tickets needs a token or a key",
};

impl Grant {
    /// How long a stream may last that is opened with this.
    pub(crate) fn stream_time_left(&self) -> Option<Duration> {
        self.time_left(unix_seconds())
    }
}

/// The time by the clock of the wall, which tokens go by.
#[allow(
    clippy::disallowed_methods,
    reason = "the edge: tokens name points in time"
)]
fn unix_seconds() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
