//! [`Request`]: the argument of handlers.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::extensions::Extensions;
use crate::http::{Head, Message, Method, Version};
use crate::hub::Start;
use crate::hub::manager::ChannelManager;
use crate::metrics::Metrics;

/// A complete request: head, body and addresses.
#[derive(Clone, Debug)]
pub struct Request {
    message: Message,
    peer: SocketAddr,
    client: SocketAddr,
    params: Vec<(Box<str>, String)>,
    channels: ChannelManager,
    extensions: Extensions,
    is_draining: bool,
    /// Whether its guards ran before its body arrived.
    is_admitted: bool,
    /// When the turn began in which it was complete, in microseconds of the hub's
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
            extensions: Extensions::default(),
            is_draining: false,
            is_admitted: false,
        }
    }

    /// Sets the address of the client, which a proxy may have named.
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

    /// Notes that its guards ran before its body arrived, and what they inserted.
    pub(crate) fn admitted(mut self, extensions: Option<Extensions>) -> Request {
        self.is_admitted = extensions.is_some();
        self.extensions = extensions.unwrap_or_default();
        self
    }

    pub(crate) fn take_extensions(&mut self) -> Extensions {
        std::mem::take(&mut self.extensions)
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.is_admitted
    }

    /// Calls `code` with the request without its body, as if that had not arrived.
    pub(crate) fn without_body<T>(&mut self, code: impl FnOnce(&mut Request) -> T) -> T {
        let body = std::mem::take(&mut self.message.body);
        let result = code(self);
        self.message.body = body;
        result
    }

    pub(crate) fn set_params(&mut self, params: Vec<(Box<str>, String)>) {
        self.params = params;
    }

    pub(crate) fn head(&self) -> &Head {
        &self.message.head
    }

    /// Returns the method.
    #[must_use]
    pub fn method(&self) -> &Method {
        self.message.head.method()
    }

    /// Returns the client's version of HTTP.
    #[must_use]
    pub fn version(&self) -> Version {
        self.message.head.version()
    }

    /// Returns the request target (RFC 9112 section 3.2) as it was sent: usually the
    /// path and the query.
    #[must_use]
    pub fn target(&self) -> &str {
        self.message.head.target()
    }

    /// Returns the requested host, with its port if it has one: the authority of the
    /// target, otherwise the header `Host`.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.message.head.host()
    }

    /// Returns the path as it was sent: percent-encoded, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.message.head.path()
    }

    /// Returns the parameter `{name}` of the route's path, percent-decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let mut params = self.params.iter();
        let (_, value) = params.find(|(key, _)| **key == *name)?;
        Some(value)
    }

    /// Returns whether the query is UTF-8 after percent-decoding.
    pub(crate) fn has_utf8_query(&self) -> bool {
        let query = self.message.head.query().unwrap_or_default();
        percent_decode_str(query).decode_utf8().is_ok()
    }

    /// Returns the first value of a query parameter, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// Returns all query parameters in their order, decoded as
    /// `application/x-www-form-urlencoded`.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let query = self.message.head.query().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes())
    }

    /// Returns the first header of this name, if it is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.head.header_str(name)
    }

    /// Returns all headers in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.message.head.headers()
    }

    /// Returns the body, which may be empty. The body of a GET or HEAD request has no
    /// meaning (RFC 9110 section 9.3.1): the engine reads it and drops it.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.message.body
    }

    /// Takes the body out.
    pub(crate) fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.message.body)
    }

    /// Returns the body as text, without a byte order mark at its beginning.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self) -> Result<&str, BodyError> {
        let text = std::str::from_utf8(self.body()).map_err(|error| BodyError::Utf8 {
            valid_up_to: error.valid_up_to(),
        })?;
        // Editors and libraries write it before UTF-8 too. A parser may ignore it
        // (RFC 8259 section 8.1), and in a message it is a stray character.
        Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    /// Returns the body, read as JSON.
    ///
    /// # Errors
    /// When it is not the JSON of a `T`. The error names the line and column.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        let body = self.body();
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        serde_json::from_slice(body).map_err(|error| BodyError::Json {
            message: error.to_string(),
        })
    }

    /// Returns the address of the client: the one that a trusted proxy names, by the
    /// PROXY protocol or `X-Forwarded-For`, otherwise the peer of the connection. The
    /// port is 0 if the proxy names none.
    ///
    /// It is as reliable as the proxies of
    /// [`proxy_protocol`](crate::EngineBuilder::proxy_protocol) and
    /// [`trusted_proxies`](crate::EngineBuilder::trusted_proxies). Without these it is
    /// the peer.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.client
    }

    /// Returns the address at the other end of the connection: the client or its
    /// proxy. See also [`client_address`](Self::client_address).
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns the values that guards have inserted.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Returns the same, for a check ([`before`](crate::EngineBuilder::before),
    /// [`guard`](crate::EngineBuilder::guard)) that passes a value to the handler.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }

    /// Returns the engine's channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        &self.channels
    }

    /// Returns the figures of [`EngineHandle::metrics`](crate::EngineHandle::metrics).
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.channels.hub().metrics()
    }

    /// Returns the time since the request was complete, more exactly since the
    /// beginning of that turn of the loop.
    #[must_use]
    pub fn age(&self) -> Duration {
        let now_us = self.channels.hub().clock.now_us();
        Duration::from_micros(now_us.saturating_sub(self.came_us))
    }

    /// Returns whether the engine shuts down. For the health check of a load balancer.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Returns whether the header `Accept` names this media type. Wildcards do not
    /// count.
    #[must_use]
    pub fn accepts(&self, media_type: &str) -> bool {
        self.offers("accept", media_type)
    }

    /// Returns whether the header `Accept-Encoding` names this content coding.
    /// Wildcards do not count.
    #[must_use]
    pub fn accepts_encoding(&self, coding: &str) -> bool {
        self.offers("accept-encoding", coding)
    }

    /// Returns whether it is a request for a stream, as a browser's `EventSource`
    /// sends it.
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
            Some(value) => is_on(&value),
            None => self.offers("cache-control", "no-cache"),
        }
    }

    /// Returns whether the client asks for its position in heartbeats too: by the query
    /// parameter `cursor`. An `EventSource` cannot decline what it is sent, so its
    /// headers do not ask for that.
    pub(crate) fn asks_for_positions(&self) -> bool {
        self.query("cursor").is_some_and(|value| is_on(&value))
    }

    /// Returns whether a list in one or several headers of one name contains `wanted`.
    fn offers(&self, list: &str, wanted: &str) -> bool {
        let takes = |offer: &str| {
            let mut parts = offer.split(';').map(str::trim);
            let is_it = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case(wanted));
            // `q=0` means "not acceptable" (RFC 9110 section 12.4.2).
            let refuses = |part: &str| {
                let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
                weight.is_some_and(|weight| weight.parse() == Ok(0.0))
            };
            is_it && !parts.any(refuses)
        };
        // Most lists are one name, which needs no parsing.
        let names = |value: &[u8]| {
            value.eq_ignore_ascii_case(wanted.as_bytes())
                || std::str::from_utf8(value).is_ok_and(|offers| offers.split(',').any(takes))
        };
        self.message.head.header_values(list).any(names)
    }

    /// Returns where this client's stream begins. The first of these counts:
    ///
    /// 1. the id in the header `Last-Event-ID`, which a browser sends when it
    ///    reconnects: after that event;
    /// 2. the id in the query parameter `last_event_id` or `lastEventId`: after that
    ///    event, or with the whole history if it is `earliest`;
    /// 3. the query parameter `last`: with the last so many events;
    /// 4. otherwise live.
    ///
    /// The header wins because the URL is fixed for an `EventSource`'s life.
    #[must_use]
    pub fn start(&self) -> Start {
        self.named_start().unwrap_or_default()
    }

    /// Returns the same, or `None` if the request names no start.
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
        // `parse` alone accepts a `+` too.
        let is_count = |last: &Cow<'_, str>| last.bytes().all(|byte| byte.is_ascii_digit());
        let last = self.query("last").filter(is_count);
        let count = last.and_then(|last| last.parse().ok());
        count.map(Start::Last)
    }
}

/// Returns whether the value of a boolean parameter is not `false` or `0`.
fn is_on(value: &str) -> bool {
    !matches!(value, "false" | "0")
}

/// A body that the handler cannot read. As a response it is `400 Bad Request`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// The body is not UTF-8.
    Utf8 {
        /// Number of bytes before the first invalid one.
        valid_up_to: usize,
    },
    /// The body is not JSON of the right form.
    Json {
        /// The parser's message, with line and column.
        message: String,
    },
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Utf8 { valid_up_to } => {
                write!(
                    f,
                    "the body is not UTF-8 from byte {valid_up_to} on. Send UTF-8"
                )
            }
            BodyError::Json { message } => write!(f, "the body cannot be read as JSON ({message})"),
        }
    }
}

impl std::error::Error for BodyError {}
