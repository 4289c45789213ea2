//! The rights of a request.
//!
//! A request has at most one credential: a key, a token or a ticket. Its [`Grant`] is what
//! each right is checked against. Without tokens in the configuration every client may
//! subscribe; without keys too, every client may do everything. Keys and tickets are
//! compared, tokens are verified. The server creates nothing for a request before its right
//! is checked.

mod claims;
mod credential;
mod fetched_keys;
mod grant;
mod header_name;
mod hosts;
mod keys;
mod offline;
mod origins;
mod redact;
mod refused;
mod settings;
mod shared_ticket;
mod ticket;
mod token;
mod token_keys;

#[cfg(feature = "internals")]
pub(crate) mod internals;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use credential::Credential;
use fetched_keys::FetchedKeys;
use ticket::TicketStore;
use token::Verifier;

use crate::channel_names;
use crate::clock::unix_seconds;
use crate::limiter::{Limiter, WrongKeyLimiter};
use crate::throttle::Throttle;
use pushwheel::{IdempotencyKey, Method, Request};

pub(crate) use credential::{CredentialId, TICKET, bearer_of};
pub(crate) use fetched_keys::KeyFetches;
pub(crate) use grant::{Channels, Grant, TicketContent};
pub use header_name::{HeaderName, HeaderNameError};
pub(crate) use hosts::{Hosts, is_public_name};
pub(crate) use keys::{Holder, Right};
pub use keys::{KEY_CHARACTERS_MIN, Key, KeyError};
pub use offline::TokenError;
pub(crate) use origins::Origins;
pub use origins::{AllowedOrigin, OriginError};
pub use redact::redact;
pub(crate) use redact::{LOGGED_BYTES_MAX, is_harmless, logged_target, logged_text};
pub(crate) use refused::{List, Refused};
pub(crate) use settings::AccessSettings;
pub use token_keys::{TokenKeyError, TokenKeys};

/// The access rules of a configuration.
#[derive(Debug)]
pub(crate) struct Access {
    settings: AccessSettings,
    /// With a verifier, channels that are not public need a credential.
    verifier: Option<Verifier>,
}

/// The state that outlives a reload of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct AccessState {
    tickets: TicketStore,
    forged_tokens: Limiter,
    wrong_keys: WrongKeyLimiter,
    wrong_key_warning: Throttle,
    fetched_keys: FetchedKeys,
}

impl AccessState {
    pub(crate) fn new() -> AccessState {
        AccessState {
            tickets: TicketStore::new(),
            forged_tokens: Limiter::new(),
            wrong_keys: WrongKeyLimiter::new(),
            wrong_key_warning: Throttle::new(),
            fetched_keys: FetchedKeys::default(),
        }
    }

    pub(crate) fn fetched_keys(&self) -> TokenKeys {
        self.fetched_keys.keys()
    }

    pub(crate) fn set_fetched_keys(&self, keys: TokenKeys) {
        self.fetched_keys.set(keys);
    }

    pub(crate) fn count_key_fetch(&self, is_done: bool) {
        self.fetched_keys.count(is_done, unix_seconds());
    }

    /// Returns the counts of fetches of token keys; `None` without any.
    pub(crate) fn key_fetches(&self) -> Option<KeyFetches> {
        self.fetched_keys.fetches()
    }
}

/// A ticket that was made.
#[derive(Debug)]
pub(crate) struct MadeTicket {
    pub(crate) name: String,
    /// The time for which it is valid.
    pub(crate) time: Duration,
}

impl Access {
    /// `fetched` counts if the program fetches keys for tokens.
    pub(crate) fn new(settings: AccessSettings, fetched: TokenKeys) -> Access {
        let mut keys = settings.token_keys.clone();
        let awaits_keys = settings.fetches_token_keys && fetched.is_empty();
        if settings.fetches_token_keys {
            keys = keys.with(fetched);
        }
        let verifier = || Verifier::new(keys, settings.checks.clone());
        let verifier = settings.has_tokens().then(verifier);
        let verifier = verifier.map(|verifier| verifier.awaiting_keys(awaits_keys));
        Access { settings, verifier }
    }

    /// Returns the rules with other fetched keys.
    pub(crate) fn with_fetched_keys(&self, fetched: TokenKeys) -> Access {
        Access::new(self.settings.clone(), fetched)
    }

    pub(crate) fn origins(&self) -> &Origins {
        &self.settings.origins
    }

    /// Whether publishing and managing need a credential.
    pub(crate) fn is_secured(&self) -> bool {
        self.verifier.is_some() || !self.settings.keys.are_none()
    }

    /// Whether a parameter of the query holds the token.
    pub(crate) fn is_token_parameter(&self, name: &str) -> bool {
        self.verifier.is_some() && *name == *self.settings.places.parameter
    }

    pub(crate) fn has_admin_key(&self) -> bool {
        !self.settings.keys.admin.is_empty()
    }

    /// Whether every request of this kind would be accepted, without a credential and
    /// without a setting that allows it.
    pub(crate) fn is_exposed_to(&self, request: &Request) -> bool {
        let keys = &self.settings.keys;
        let reads = matches!(request.method(), Method::Get | Method::Head);
        let needs_none = || reads && keys.holder(request).is_none();
        self.verifier.is_none() && (keys.are_none() || needs_none())
    }

    // ---- rights ----

    /// Checks the right that a route needs.
    pub(crate) fn check(
        &self,
        right: Right,
        request: &Request,
        state: &AccessState,
    ) -> Result<(), Refused> {
        match right {
            Right::Publish => match request.param("channel") {
                Some(name) => self.publish(request, &[name.into()], state),
                None => {
                    let names: Vec<_> = channel_names::of(request).collect();
                    self.publish(request, &names, state)
                }
            },
            Right::Finish => {
                let channel = request.param("channel").unwrap_or_default();
                self.check_finish(request, channel, state)
            }
            Right::MakeTickets => self.ticket_maker(request, state).map(drop),
            Right::Manage => {
                let holder = self.key_holder(request, state)?;
                self.may_manage(request, holder)
            }
        }
    }

    /// Checks the right of a key's holder to view and to manage.
    pub(crate) fn may_manage(
        &self,
        request: &Request,
        holder: Option<Holder>,
    ) -> Result<(), Refused> {
        let (right, accepts_tokens) = (Right::Manage, false);
        match holder {
            _ if !self.is_secured() => Ok(()),
            Some(Holder::Admin) => Ok(()),
            None if bearer_of(request).is_none() => Err(Refused::Missing {
                right,
                accepts_tokens,
            }),
            _ if !self.has_admin_key() => Err(Refused::NoAdminKey),
            _ => Err(Refused::KeyWrong {
                right,
                accepts_tokens,
            }),
        }
    }

    /// Whether the request may publish to every channel by its key, or because no key is
    /// needed.
    pub(crate) fn may_publish_by_key(&self, request: &Request) -> bool {
        !self.is_secured() || self.settings.keys.holder(request).is_some()
    }

    /// Checks the right to publish to each of some channels; without any, to all channels.
    fn publish(
        &self,
        request: &Request,
        channels: &[Cow<'_, str>],
        state: &AccessState,
    ) -> Result<(), Refused> {
        let grant = self.changer(Right::Publish, request, state)?;
        let refused = |name: Option<&str>| Refused::Channel {
            name: name.map(str::to_owned),
            list: List::TokenPublish,
        };
        match channels.iter().find(|name| !grant.publish.has(name)) {
            Some(name) => Err(refused(Some(name))),
            None if channels.is_empty() && !grant.publish.has_all() => Err(refused(None)),
            None => Ok(()),
        }
    }

    /// Checks the right to finish a channel with a publish.
    pub(crate) fn check_finish(
        &self,
        request: &Request,
        channel: &str,
        state: &AccessState,
    ) -> Result<(), Refused> {
        if self.is_secured()
            && self.key_holder(request, state)? == Some(Holder::Publisher)
            && !self.settings.publish_keys_finish
        {
            return Err(Refused::MayNotFinish);
        }
        let grant = self.changer(Right::Finish, request, state)?;
        let may = grant.finish.has(channel);
        may.then_some(()).ok_or_else(|| Refused::Channel {
            name: Some(channel.to_owned()),
            list: List::TokenFinish,
        })
    }

    /// Returns the key of a publish that its sender has named `key`. Senders have keys of
    /// their own: each key of the server, each client of a token, and each token without one.
    pub(crate) fn idempotency_key(
        &self,
        request: &Request,
        key: &str,
        state: &AccessState,
    ) -> Result<IdempotencyKey, Refused> {
        if !self.is_secured() {
            // There is one sender, so its keys need not withstand an attack of others.
            return Ok(IdempotencyKey::new(key));
        }
        let grant = self.changer(Right::Publish, request, state)?;
        let credential = self.settings.places.find(request);
        let id = match (grant.key, &grant.client, &credential) {
            (Some(signer), Some(client), _) => {
                let client = client.to_string();
                let parts = [b"client ", &signer.bytes()[..], client.as_bytes(), b"\n"];
                CredentialId::of(&[parts.concat().as_slice(), key.as_bytes()])
            }
            (_, _, Some(credential)) => {
                let sent = token::without_signature(credential.text());
                CredentialId::of(&[b"sent ", sent.as_bytes(), b"\n", key.as_bytes()])
            }
            (_, _, None) => CredentialId::of(&[key.as_bytes()]),
        };
        let [digest, _] = id.halves();
        Ok(IdempotencyKey::from_digest(digest))
    }

    /// Checks the right to subscribe to these channels, and returns what the credential
    /// grants. This uses up a ticket, except for a HEAD request.
    pub(crate) fn subscribe(
        &self,
        request: &Request,
        channels: &[Cow<'_, str>],
        state: &AccessState,
    ) -> Result<Arc<Grant>, Refused> {
        let grant = match self.settings.places.find(request) {
            Some(Credential::Ticket(ticket)) => Some(self.use_ticket(request, &ticket, state)?),
            // Without tokens every client may subscribe, with a key or without one.
            _ if self.verifier.is_some() && self.key_holder(request, state)?.is_some() => {
                Some(Grant::everything())
            }
            credential => self.verified(request, credential, state)?,
        };
        let has_credential = grant.is_some();
        let grant = grant.unwrap_or_else(|| self.default_grant());
        let may =
            |name: &str| grant.subscribe.has(name) || (self.is_open(name) && !grant.is_ticket);
        match channels.iter().find(|name| !may(name)) {
            None => Ok(grant),
            Some(name) if has_credential => Err(Refused::Channel {
                name: Some(name.to_string()),
                list: match grant.is_ticket {
                    true => List::TicketSubscribe,
                    false => List::TokenSubscribe,
                },
            }),
            Some(_) => Err(Refused::SubscriberUnknown),
        }
    }

    /// Checks the right to make tickets, and returns what the maker's credential grants.
    pub(crate) fn ticket_maker(
        &self,
        request: &Request,
        state: &AccessState,
    ) -> Result<Arc<Grant>, Refused> {
        self.changer(Right::MakeTickets, request, state)
    }

    /// Makes a ticket for the holder of the grant `maker`, which came with the request.
    pub(crate) fn make_ticket(
        &self,
        request: &Request,
        maker: &Grant,
        content: TicketContent,
        state: &AccessState,
    ) -> Result<MadeTicket, Refused> {
        let sent = || bearer_of(request).filter(|_| self.is_secured());
        let by_key = || sent().map(|key| CredentialId::of(&[key.as_bytes()]));
        let grant = Arc::new(maker.ticket(content, maker.key.or_else(by_key))?);
        let (time, max) = (self.settings.ticket_time, self.settings.tickets_max);
        let name = state.tickets.make(grant, maker.token, time, max)?;
        Ok(MadeTicket { name, time })
    }

    // ---- tickets of a cluster ----

    /// Takes a ticket that was just made out of this node, and returns its key and its
    /// content for the broker. It still counts here as one of its maker.
    pub(crate) fn share_ticket(name: &str, state: &AccessState) -> Option<(Vec<u8>, Vec<u8>)> {
        let grant = state.tickets.take(name, true).ok()?;
        Some((shared_ticket::key(name), shared_ticket::encode(&grant)))
    }

    /// Returns the ticket in a request, and its key in the broker.
    pub(crate) fn shared_ticket(&self, request: &Request) -> Option<(String, Vec<u8>)> {
        match self.settings.places.find(request)? {
            Credential::Ticket(ticket) => {
                let key = shared_ticket::key(&ticket);
                Some((ticket.into_owned(), key))
            }
            _ => None,
        }
    }

    /// Keeps a ticket that the broker had, until the request uses it.
    pub(crate) fn receive_ticket(name: &str, content: &[u8], state: &AccessState) {
        if let Some(grant) = shared_ticket::decode(content) {
            state.tickets.receive(name, Arc::new(grant));
        }
    }

    /// Returns the time for which a ticket is valid.
    pub(crate) fn ticket_time(&self) -> Duration {
        self.settings.ticket_time
    }

    // ---- credentials ----

    /// Returns the grant of a request that changes something. A key or a token is
    /// enough, a ticket is not.
    fn changer(
        &self,
        right: Right,
        request: &Request,
        state: &AccessState,
    ) -> Result<Arc<Grant>, Refused> {
        if !self.is_secured() || self.key_holder(request, state)?.is_some() {
            return Ok(Grant::everything());
        }
        let accepts_tokens = self.verifier.is_some();
        if self.has_key(request) {
            return Err(Refused::KeyWrong {
                right,
                accepts_tokens,
            });
        }
        let credential = self.settings.places.find(request);
        let is_ticket = matches!(credential, Some(Credential::Ticket(_)));
        let credential = credential.filter(|_| !is_ticket);
        let grant = self.verified(request, credential, state)?;
        grant.ok_or(Refused::Missing {
            right,
            accepts_tokens,
        })
    }

    /// Returns the grant of a ticket.
    fn use_ticket(
        &self,
        request: &Request,
        ticket: &str,
        state: &AccessState,
    ) -> Result<Arc<Grant>, Refused> {
        let is_used = *request.method() != Method::Head;
        let grant = state.tickets.take(ticket, is_used)?;
        // A ticket is not valid for longer than the token or the key that made it.
        if !self.has_key_of(&grant) {
            return Err(Refused::TicketUnknown);
        }
        match grant.has_expired(unix_seconds()) {
            true => Err(Refused::TokenExpired),
            false => Ok(grant),
        }
    }

    /// Returns the holder of the key in a request, if it is a key of the server. Counts
    /// a wrong key, and warns of it.
    ///
    /// # Errors
    /// If too many wrong keys came from this address, even if this key is right.
    pub(crate) fn key_holder(
        &self,
        request: &Request,
        state: &AccessState,
    ) -> Result<Option<Holder>, Refused> {
        let holder = self.settings.keys.holder(request);
        if holder.is_none() && !self.has_key(request) {
            return Ok(None);
        }
        let address = request.client_address().ip();
        if holder.is_none() && state.wrong_key_warning.is_due() {
            log::warn!(
                "a client at {address} sent a wrong key. There may be more: see \
                 pushwheel_refusals_total"
            );
        }
        let rate = self.settings.wrong_keys_per_address;
        let admitted = state.wrong_keys.admit(rate, address, holder.is_some());
        admitted.map_err(|retry_after| Refused::TooManyKeys { retry_after })?;
        Ok(holder)
    }

    /// Whether the credential is a key, right or wrong. With these requests keys are more
    /// frequent than tokens, so a text that does not look like a token is a mistyped key.
    fn has_key(&self, request: &Request) -> bool {
        let is_a_key = |text| self.verifier.is_none() || !token::looks_like_a_token(text);
        !self.settings.keys.are_none() && bearer_of(request).is_some_and(is_a_key)
    }

    /// Returns the grant of a token; `None` without a token, and on a server without keys
    /// for tokens. The caller has checked for a key before.
    fn verified(
        &self,
        request: &Request,
        credential: Option<Credential<'_>>,
        state: &AccessState,
    ) -> Result<Option<Arc<Grant>>, Refused> {
        let Some(verifier) = &self.verifier else {
            return Ok(None);
        };
        let token: Cow<'_, str> = match credential {
            // It may be a mistyped key.
            Some(Credential::Bearer(text))
                if !token::has_form(text) && !self.settings.keys.are_none() =>
            {
                return Err(Refused::invalid(
                    "it does not have the form HEADER.CLAIMS.SIGNATURE, and is not a key of this \
                     server",
                ));
            }
            Some(Credential::Bearer(token)) => token.into(),
            Some(Credential::Query(token)) => token,
            Some(Credential::Cookie(token)) => {
                self.check_cookie_origin(request)?;
                token.into()
            }
            Some(Credential::Ticket(_)) | None => return Ok(None),
        };
        let rate = self.settings.forged_per_address;
        let address = request.client_address().ip();
        let may_verify = || {
            let room = state.forged_tokens.has_room(rate, address);
            room.map_err(|retry_after| Refused::TooManyForged { retry_after })
        };
        let count_forged = || {
            // There was room before the verification; another thread may have used it.
            let _ = state.forged_tokens.admit(rate, address, 1);
        };
        let grant = verifier.grant(&token, unix_seconds(), may_verify, count_forged)?;
        Ok(Some(grant))
    }

    /// Refuses a cookie that a browser may have sent for a page of another origin. A
    /// request that changes something has an `Origin` in every browser. One that reads
    /// has it if the page could see the response.
    fn check_cookie_origin(&self, request: &Request) -> Result<(), Refused> {
        let host = request.host().unwrap_or_default();
        let reads = matches!(request.method(), Method::Get | Method::Head);
        let is_ours = match request.header("origin") {
            Some(origin) => self.settings.origins.may_have_cookies(origin, host),
            None => reads && request.header("sec-fetch-site") != Some("cross-site"),
        };
        is_ours.then_some(()).ok_or(Refused::CookieOrigin)
    }

    /// Whether the server still has the key behind a ticket; or needs none, as when the
    /// ticket was made.
    fn has_key_of(&self, ticket: &Grant) -> bool {
        let Some(id) = ticket.key else {
            return !self.is_secured();
        };
        let verifies = |verifier: &Verifier| verifier.has_key(id);
        self.settings.keys.has(id) || self.verifier.as_ref().is_some_and(verifies)
    }

    /// Whether subscribing to the channel needs no credential.
    pub(crate) fn is_open(&self, name: &str) -> bool {
        self.verifier.is_none() || self.is_public(name)
    }

    fn is_public(&self, name: &str) -> bool {
        let mut public = self.settings.public.iter();
        let found = public.find(|(pattern, _)| pattern.matches(name));
        found.is_some_and(|(_, is_public)| *is_public)
    }

    /// Returns the grant of a request without a credential.
    fn default_grant(&self) -> Arc<Grant> {
        match &self.verifier {
            None => Grant::everything(),
            Some(_) => Arc::default(),
        }
    }
}
