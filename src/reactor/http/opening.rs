//! Answers that open a stream: from a request to a client that has joined.
//!
//! The head of the response and the first bytes of the stream are written as any
//! other response. The rest is in an [`Opening`].

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use super::next::Next;
use super::responses::answer_no_more;
use super::{Http, Opening};
use crate::exchange::{Request, Response, Sink, StreamPlan, Subscription, Welcome};
use crate::frame::{Frame, HEARTBEAT};
use crate::http::{Headers, Method};
use crate::hub::client::{ClientId, ClientInfo, ConnectionId, DisconnectHook, Extra};
use crate::hub::gap::GAP_NAME;
use crate::hub::id::EventId;
use crate::hub::{ChannelKey, Form, Hub, Join, JoinError, Joined, Start};
use crate::packed::{self, Sum};
use crate::reactor::guard::guard;
use crate::reactor::io::Io;
use crate::reactor::io::net::Net;
use crate::reactor::streams::cursor::{ReplayEnd, write_id};
use crate::reactor::streams::feed::wrap;
use crate::reactor::turn::Turn;

/// The usual size of the first bytes of a stream.
const FIRST_BYTES: usize = 128;

impl Http {
    /// Opens a stream of channels.
    pub(super) fn open_subscription<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: &Request,
        subscription: &mut Subscription,
        headers: Headers,
    ) -> Next {
        let headers = self.all_headers(headers, subscription);
        if let Some(full) = io.acceptor.overflow(key) {
            return self.refuse_for_room(io, key, request, full.why(), &headers);
        }
        let mut asked = Asked::of(self.hub(), request, subscription);
        let join = asked.join(io.connection_id(key), request.client_address());
        let is_head = *request.method() == Method::Head;
        let joined = match is_head {
            true => self.hub().could_join(&join),
            false => self.hub().join(join),
        };
        let joined = match joined {
            Ok(joined) => joined,
            Err(error) => return self.refuse_join(io, key, request, error, &headers),
        };
        let form = match subscription.names_channels {
            true => Form::Named,
            false if joined.compresses && request.accepts_encoding("gzip") => Form::Packed,
            false => Form::Plain,
        };
        let is_packed = form == Form::Packed;
        // The id at which the stream begins, for its head and its first block.
        let start_id = match &joined.gap {
            Some(_) => Some(self.hub().id_of(joined.seen).text()),
            None => joined.opening_id.as_ref().map(EventId::text),
        };
        let added = [
            joined.compresses.then_some(("Vary", "Accept-Encoding")),
            is_packed.then_some(("Content-Encoding", "gzip")),
            start_id.as_deref().map(|id| ("Last-Event-ID", id)),
        ];
        self.write_stream_head(io, &headers, added.into_iter().flatten());
        if is_head {
            answer_no_more(io, key);
            return Next::Hold;
        }
        let welcome = self.call_on_connect(&io.turn, request, subscription, asked.id);
        if joined.conflates {
            io.limit_unsent(key);
        }
        let mut first = opening_bytes(request, &joined, start_id.as_deref());
        let replay_end = replay_end(request, &joined, welcome, &mut first);
        if is_packed {
            self.output.extend_from_slice(&packed::HEADER);
        }
        self.output.extend_from_slice(&wrap(&first, is_packed));
        Next::Open(Box::new(Opening {
            channels: asked.channels,
            joined,
            form,
            wait: None,
            packed: is_packed.then(|| Sum::of(&first)),
            replay_end,
            names_position: request.asks_for_positions(),
            expires_in: subscription.expires_in,
            on_open: None,
            is_gone: false,
        }))
    }

    /// Opens a stream for one client.
    pub(super) fn open_sink<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: &Request,
        plan: StreamPlan,
        headers: Headers,
    ) -> Next {
        if let Some(full) = io.acceptor.overflow(key) {
            return self.refuse_for_room(io, key, request, full.why(), &headers);
        }
        if *request.method() == Method::Head {
            self.write_stream_head(io, &headers, []);
            answer_no_more(io, key);
            return Next::Hold;
        }
        let options = plan.options.into_channel_options();
        let (channel, signal) = self.hub().open_private(options);
        let sink = Sink::new(&self.attachment, channel, signal);
        let join = Join {
            channels: &[channel],
            id: self.hub().new_client_id(),
            has_generated_id: true,
            connection: io.connection_id(key),
            address: request.client_address(),
            extra: None,
            start: &Start::Live,
        };
        let joined = match self.hub().join(join) {
            Ok(joined) => joined,
            Err(error) => return self.refuse_join(io, key, request, error, &headers),
        };
        self.write_stream_head(io, &headers, []);
        self.output.extend_from_slice(HEARTBEAT);
        Next::Open(Box::new(Opening {
            channels: vec![channel],
            joined,
            form: Form::Plain,
            wait: None,
            packed: None,
            replay_end: None,
            names_position: false,
            expires_in: None,
            on_open: Some(Box::new(move || (plan.open)(sink))),
            is_gone: false,
        }))
    }

    /// Calls the hook of a client that has become a member. Returns what it sends.
    pub(super) fn call_on_connect(
        &self,
        turn: &Turn,
        request: &Request,
        subscription: &mut Subscription,
        id: ClientId,
    ) -> Welcome {
        let mut welcome = Welcome::default();
        if let Some(on_connect) = subscription.on_connect.take() {
            let info = ClientInfo {
                id,
                metadata: subscription.metadata.take().unwrap_or_default(),
                address: request.client_address(),
                since: self.hub().clock.wall(turn.now_ms),
                behind: 0,
            };
            guard("on_connect", || on_connect(&info, &mut welcome));
        }
        welcome
    }

    /// The headers of a subscription's response, whatever it comes to: the
    /// handler's, its own, and those of its channels, which may say the same.
    pub(super) fn all_headers(&self, mut headers: Headers, subscription: &Subscription) -> Headers {
        let mut add = |others: &Headers| {
            for (name, value) in others.iter() {
                if !headers.iter().any(|field| field == (name, value)) {
                    let added = headers.append(name.to_owned(), value.to_owned());
                    added.expect("it was checked before");
                }
            }
        };
        add(&subscription.headers);
        for channel in &subscription.channels {
            add(&self.hub().options_of_all(&[channel.key()]).headers);
        }
        // A stream has its own.
        headers.remove("Content-Type");
        headers
    }

    /// Answers a client that a channel does not accept.
    pub(super) fn refuse_join<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        request: &Request,
        error: JoinError,
        headers: &Headers,
    ) -> Next {
        let why = match error {
            JoinError::Finished => {
                let mut response = Response::status(204);
                response.headers = headers.clone();
                return self.write_response(io, key, request, &response);
            }
            JoinError::Full => (
                "channel_full",
                "the channel has reached its limit of clients. Retry later",
            ),
            _ => ("channel_closed", "the channel was closed. Reconnect"),
        };
        self.refuse_for_room(io, key, request, why, headers)
    }
}

/// What a request asks the hub for.
pub(super) struct Asked {
    /// Feeds are found by their channels, so these have an order.
    pub(super) channels: Vec<ChannelKey>,
    pub(super) id: ClientId,
    has_generated_id: bool,
    extra: Option<Box<Extra>>,
    start: Start,
}

impl Asked {
    pub(super) fn of(hub: &Hub, request: &Request, subscription: &mut Subscription) -> Asked {
        let channels = subscription.channels.iter().map(|channel| channel.key());
        let mut channels: Vec<ChannelKey> = channels.collect();
        channels.sort_unstable();
        let start = request.named_start().or(subscription.start.take());
        let id = subscription.client_id.take();
        let on_disconnect = subscription.on_disconnect.take();
        Asked {
            channels,
            has_generated_id: id.is_none(),
            id: id.unwrap_or_else(|| hub.new_client_id()),
            extra: extra(&subscription.metadata, on_disconnect),
            start: start.unwrap_or_default(),
        }
    }

    /// Returns the join, with the client's hook if it has one: once.
    pub(super) fn join(&mut self, connection: ConnectionId, address: SocketAddr) -> Join<'_> {
        Join {
            channels: &self.channels,
            id: self.id.clone(),
            has_generated_id: self.has_generated_id,
            connection,
            address,
            extra: self.extra.take(),
            start: &self.start,
        }
    }
}

/// What the hub keeps of a client that has any of it.
fn extra(
    metadata: &Option<Arc<Value>>,
    on_disconnect: Option<DisconnectHook>,
) -> Option<Box<Extra>> {
    let has_extra = metadata.is_some() || on_disconnect.is_some();
    has_extra.then(|| {
        Box::new(Extra {
            metadata: metadata.clone().unwrap_or_default(),
            on_disconnect,
        })
    })
}

/// The first bytes of a subscription's stream: a line without meaning, because
/// browsers and proxies wait for a first byte; then the gap event, if the client has
/// missed events, or the id at which the stream begins, if the client asks for it.
fn opening_bytes(request: &Request, joined: &Joined, id: Option<&str>) -> Vec<u8> {
    let mut first = Vec::with_capacity(FIRST_BYTES);
    first.extend_from_slice(HEARTBEAT);
    if let Some(gap) = &joined.gap {
        let gap = Frame::internal(GAP_NAME, id, None, &gap.to_string());
        first.extend_from_slice(gap.as_bytes());
    } else if let Some(id) = id
        && joined.needs_id
        && request.accepts_id_blocks()
    {
        // So a browser misses nothing even if it is cut off before its first event.
        write_id(id, &mut first);
    }
    first
}

/// What follows the replay. Where there is none, it is appended to the first bytes.
fn replay_end(
    request: &Request,
    joined: &Joined,
    welcome: Welcome,
    first: &mut Vec<u8>,
) -> Option<ReplayEnd> {
    let welcome = welcome.into_bytes();
    if joined.seen >= joined.head {
        first.extend_from_slice(&welcome);
        return None;
    }
    let has_id = joined.ends_doubtfully && request.accepts_id_blocks();
    let has_any = has_id || !welcome.is_empty();
    has_any.then_some(ReplayEnd {
        after: joined.now,
        has_id,
        welcome,
    })
}
