//! A request, as handlers see it.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::response::{IntoResponse, Response};
use crate::http::{Head, Message, Method, Version};
use crate::hub::Start;
use crate::hub::manager::ChannelManager;
use crate::metrics::Metrics;

/// One request, whole: head, body, and where it came from.
#[derive(Clone, Debug)]
pub struct Request {
    message: Message,
    peer: SocketAddr,
    client: SocketAddr,
    params: Vec<(Box<str>, String)>,
    channels: ChannelManager,
    is_draining: bool,
    /// Whether it was looked at when its body was still on its way.
    is_admitted: bool,
    /// When the turn began that found it whole, in microseconds of the hub's
    /// clock.
    came_us: u64,
}

impl Request {
    pub(crate) fn new(message: Message, peer: SocketAddr, channels: ChannelManager) -> Request {
        Request {
            message,
            peer,
            client: peer,
            params: Vec::new(),
            came_us: 0,
            channels,
            is_draining: false,
            is_admitted: false,
        }
    }

    /// Sent by this client, whoever the connection's peer is.
    pub(crate) fn asked_by(mut self, client: SocketAddr) -> Request {
        self.client = client;
        self
    }

    pub(crate) fn came_at(mut self, now_us: u64) -> Request {
        self.came_us = now_us;
        self
    }

    pub(crate) fn draining(mut self, is_draining: bool) -> Request {
        self.is_draining = is_draining;
        self
    }

    pub(crate) fn admitted(mut self, is_admitted: bool) -> Request {
        self.is_admitted = is_admitted;
        self
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.is_admitted
    }

    /// Has `look` see the request without its body, which may be on its way
    /// still.
    pub(crate) fn without_body<T>(&mut self, look: impl FnOnce(&mut Request) -> T) -> T {
        let body = std::mem::take(&mut self.message.body);
        let seen = look(self);
        self.message.body = body;
        seen
    }

    pub(crate) fn set_params(&mut self, params: Vec<(Box<str>, String)>) {
        self.params = params;
    }

    pub(crate) fn head(&self) -> &Head {
        &self.message.head
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        self.message.head.method()
    }

    /// The version of HTTP that the client speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.message.head.version()
    }

    /// What was asked for, as it was sent: usually the path and the query.
    #[must_use]
    pub fn target(&self) -> &str {
        self.message.head.target()
    }

    /// The host that was asked for, with its port if it has one: the target's
    /// authority, else the header `Host`.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.message.head.host()
    }

    /// The path as it was sent: percent-encoded, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.message.head.path()
    }

    /// The parameter `{name}` of the route's path, percent-decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let mut params = self.params.iter();
        let (_, value) = params.find(|(key, _)| **key == *name)?;
        Some(value)
    }

    /// Whether the query is text once it is decoded.
    pub(crate) fn has_utf8_query(&self) -> bool {
        let query = self.message.head.query().unwrap_or_default();
        percent_decode_str(query).decode_utf8().is_ok()
    }

    /// The first value of a query parameter, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// All query parameters in their order, decoded as
    /// `application/x-www-form-urlencoded`.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let query = self.message.head.query().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes())
    }

    /// The first header of this name, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.head.header_str(name)
    }

    /// All headers in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.message.head.headers()
    }

    /// The body; empty when there is none. That of a GET or HEAD has no meaning
    /// (RFC 9110 section 9.3.1): it is read, and not kept.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.message.body
    }

    /// Returns the body as text, without a byte order mark at its beginning.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self) -> Result<&str, BodyError> {
        let text = std::str::from_utf8(self.body()).map_err(|error| BodyError::Utf8 {
            valid_up_to: error.valid_up_to(),
        })?;
        // Editors and libraries put it before UTF-8 too. A parser may ignore it
        // (RFC 8259 section 8.1), and to a reader it is a stray character.
        Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    /// When it is not the JSON of a `T`; the error says where it goes wrong.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        let body = self.body();
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        serde_json::from_slice(body).map_err(|error| BodyError::Json {
            message: error.to_string(),
        })
    }

    /// Who asks: the address that a trusted proxy names, by the PROXY protocol
    /// or by `X-Forwarded-For`, else the peer of the connection. The port is 0
    /// where the proxy names none.
    ///
    /// Only as true as the proxies that were named to
    /// [`proxy_protocol`](crate::EngineBuilder::proxy_protocol) and
    /// [`trusted_proxies`](crate::EngineBuilder::trusted_proxies); without
    /// them it is the peer.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.client
    }

    /// The other end of the connection: the client, or the proxy that asks for
    /// it. Who the client is says [`client_address`](Self::client_address).
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The engine's channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        &self.channels
    }

    /// The engine's figures, as
    /// [`EngineHandle::metrics`](crate::EngineHandle::metrics) gives them.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.channels.hub().metrics()
    }

    /// For how long the request has been there, whole: from the beginning of the
    /// loop's turn that took it.
    #[must_use]
    pub fn age(&self) -> Duration {
        let now_us = self.channels.hub().clock.now_us();
        Duration::from_micros(now_us.saturating_sub(self.came_us))
    }

    /// Whether the engine is shutting down, and answers only what was under
    /// way. The place to tell a load balancer's health check.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Whether the client says that it takes this media type, by name.
    #[must_use]
    pub fn accepts(&self, media_type: &str) -> bool {
        self.offers("accept", media_type)
    }

    /// Whether the client says that it takes this content coding, by name.
    #[must_use]
    pub fn accepts_encoding(&self, coding: &str) -> bool {
        self.offers("accept-encoding", coding)
    }

    /// Whether it is as a browser's `EventSource` asks.
    pub(crate) fn is_for_a_stream(&self) -> bool {
        *self.method() == Method::Get && self.accepts("text/event-stream")
    }

    /// Returns whether the client accepts blocks that hold only an id: its starting
    /// id, and the id of the end of its replay. An `EventSource` keeps that id and
    /// misses nothing when it is cut off before its next event, but some parsers
    /// dispatch the block as an empty message. So it goes to requests with
    /// `Cache-Control: no-cache`, which every `EventSource` sends and `fetch` by
    /// default does not; the query parameter `cursor` asks for it, and
    /// `cursor=false` declines it.
    pub(crate) fn accepts_id_blocks(&self) -> bool {
        match self.query("cursor") {
            Some(value) => value != "false",
            None => self.offers("cache-control", "no-cache"),
        }
    }

    /// Whether a list of what the client takes, in one header or in several,
    /// names `wanted`.
    fn offers(&self, list: &str, wanted: &str) -> bool {
        let takes = |offer: &str| {
            let mut parts = offer.split(';').map(str::trim);
            let is_it = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case(wanted));
            // `q=0` is how a client says no (RFC 9110 section 12.4.2).
            let refuses = |part: &str| {
                let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
                weight.is_some_and(|weight| weight.parse() == Ok(0.0))
            };
            is_it && !parts.any(refuses)
        };
        // Most lists are one name, which is found without taking them apart.
        let names = |value: &[u8]| {
            value.eq_ignore_ascii_case(wanted.as_bytes())
                || std::str::from_utf8(value).is_ok_and(|offers| offers.split(',').any(takes))
        };
        self.message.head.header_values(list).any(names)
    }

    /// Where this client's stream begins: after the id in the header
    /// `Last-Event-ID`, which a browser sends when it reconnects; else after
    /// the one in the query, `last_event_id` or `lastEventId`, where
    /// `earliest` means all that the history holds; else with the last so
    /// many events, by the query's `last`; else live.
    ///
    /// The header wins because the URL is fixed for an `EventSource`'s life.
    #[must_use]
    pub fn start(&self) -> Start {
        self.named_start().unwrap_or_default()
    }

    /// Returns where the request says that the stream begins, if it says so.
    pub(crate) fn named_start(&self) -> Option<Start> {
        if let Some(id) = self.message.head.header("last-event-id") {
            // Browsers send UTF-8. Node's fetch sends Latin-1, as the Fetch
            // Standard has it for all headers that a page sets.
            let id = match std::str::from_utf8(id) {
                Ok(text) => text.to_owned(),
                Err(_) => id.iter().copied().map(char::from).collect(),
            };
            if !id.is_empty() {
                return Some(Start::After(id));
            }
        }
        let id = self
            .query("last_event_id")
            .or_else(|| self.query("lastEventId"));
        match id {
            Some(id) if id == "earliest" => return Some(Start::Earliest),
            Some(id) if !id.is_empty() => return Some(Start::After(id.into_owned())),
            _ => {}
        }
        // `parse` alone takes a `+` too.
        let is_count = |last: &Cow<'_, str>| last.bytes().all(|byte| byte.is_ascii_digit());
        let last = self.query("last").filter(is_count);
        let count = last.and_then(|last| last.parse().ok());
        count.map(Start::Last)
    }
}

/// A body that is not what the handler needs. Answers `400 Bad Request`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// It is not UTF-8.
    Utf8 {
        /// The first so many bytes are.
        valid_up_to: usize,
    },
    /// It is not the JSON that is needed.
    Json {
        /// What is wrong, and where.
        message: String,
    },
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Utf8 { valid_up_to } => {
                write!(
                    f,
                    "the body is not UTF-8 from byte {valid_up_to} on: send UTF-8"
                )
            }
            BodyError::Json { message } => write!(f, "the body cannot be read: {message}"),
        }
    }
}

impl std::error::Error for BodyError {}

impl IntoResponse for BodyError {
    fn into_response(self) -> Response {
        let code = match self {
            BodyError::Utf8 { .. } => "invalid_utf8",
            BodyError::Json { .. } => "invalid_json",
        };
        Response::error(400, code, &self.to_string())
    }
}
