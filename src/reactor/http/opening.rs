//! The opening of streams: from a request to a client that reads a feed.

use std::sync::Arc;
use std::time::Duration;

use crate::exchange::{Kind, Request, Response, Sink, StreamPlan, Subscription, Welcome};
use crate::frame::{Frame, HEARTBEAT};
use crate::http::{self, BodyLength, Headers, Method, Persistence};
use crate::hub::channel::Channel;
use crate::hub::client::{ClientInfo, DisconnectReason, Extra};
use crate::hub::id::EventId;
use crate::hub::log::Evicted;
use crate::hub::{ChannelKey, Join, JoinError, Joined, Source, Start};
use crate::packed::{self, Suffix, Sum};
use crate::reactor::http::serving::{Flow, guard, is_transient};
use crate::reactor::io::connection::{NONE, State, Stream};
use crate::reactor::io::net::Net;
use crate::reactor::streams::ending::Deadline;
use crate::reactor::streams::feed::{Owed, ReplayEnd, wrap};
use crate::reactor::streams::stream::retry_line;
use crate::reactor::{Reactor, as_ms};

/// What every stream's head says: what the bytes are, and that nobody may
/// keep, change or hold back any of them (`X-Accel-Buffering` is nginx's).
const STREAM_HEADERS: [(&str, &str); 3] = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
];

impl<N: Net> Reactor<N> {
    /// Opens a stream of channels.
    pub(crate) fn open_subscription(
        &mut self,
        key: u32,
        request: &Request,
        subscription: Subscription,
        headers: Headers,
        output: &mut Vec<u8>,
    ) -> Flow {
        let is_ours = |channel: &Channel| Arc::ptr_eq(channel.hub(), &self.hub);
        if !subscription.channels.iter().all(is_ours) {
            log::error!("a subscription is to a channel of another manager than the engine's");
            let response = Response::error(
                500,
                "internal_error",
                "the subscription is wrong; the log says why",
            );
            return self.answer(key, request.clone(), response, output);
        }
        let headers = self.all_headers(headers, &subscription);
        if let Some(full) = self.overflow(key) {
            return self.has_no_room(key, request, full.why(), &headers, output);
        }
        let start = request.named_start().or(subscription.start);
        let start = start.unwrap_or_default();
        let has_generated_id = subscription.client_id.is_none();
        let id = subscription
            .client_id
            .unwrap_or_else(|| self.hub.new_client_id());
        let has_extra = subscription.metadata.is_some() || subscription.on_disconnect.is_some();
        let extra = has_extra.then(|| {
            Box::new(Extra {
                metadata: subscription.metadata.clone().unwrap_or_default(),
                on_disconnect: subscription.on_disconnect,
            })
        });
        // Feeds are found by their channels, so these have an order.
        let mut channels: Vec<ChannelKey> = subscription
            .channels
            .iter()
            .map(|channel| channel.key())
            .collect();
        channels.sort_unstable();
        let join = Join {
            channels: &channels,
            id: id.clone(),
            has_generated_id,
            connection: self.connection_id(key),
            address: request.client_address(),
            extra,
            start: &start,
        };
        let is_head = *request.method() == Method::Head;
        let joined = match is_head {
            true => self.hub.could_join(&join),
            false => self.hub.join(join),
        };
        let joined = match joined {
            Ok(joined) => joined,
            Err(error) => return self.refuse_join(key, request, error, &headers, output),
        };
        let is_packed = joined.compresses && request.accepts_encoding("gzip");
        // The id at which the stream begins, for its head and its first block.
        let start_id = match &joined.gap {
            Some(_) => Some(self.hub.id_of(joined.seen).text()),
            None => joined.opening_id.as_ref().map(EventId::text),
        };
        let coding = [
            joined.compresses.then_some(("Vary", "Accept-Encoding")),
            is_packed.then_some(("Content-Encoding", "gzip")),
            start_id.as_deref().map(|id| ("Last-Event-ID", id)),
        ];
        self.write_stream_head(&headers, coding.into_iter().flatten(), output);
        if is_head {
            self.answer_no_more(key);
            return Flow::Hold;
        }
        let mut welcome = Welcome::default();
        if let Some(on_connect) = subscription.on_connect {
            let info = ClientInfo {
                id,
                metadata: subscription.metadata.unwrap_or_default(),
                address: request.client_address(),
                since: self.hub.clock.wall(self.now_ms),
                behind: 0,
            };
            guard("on_connect", || on_connect(&info, &mut welcome));
        }
        let deadline = self.deadline(subscription.expires_in);
        let replay_end = ReplayEnd {
            after: joined.now,
            has_id: joined.ends_doubtfully && request.accepts_id_blocks(),
            welcome: welcome.into_bytes(),
        };
        let asks_for_id = || joined.needs_id && request.accepts_id_blocks();
        let begin = output.len();
        write_opening(
            joined.gap.as_deref(),
            start_id.as_deref(),
            asks_for_id,
            output,
        );
        if is_packed {
            let opening = output.split_off(begin);
            output.extend_from_slice(&packed::HEADER);
            output.extend_from_slice(&wrap(&opening, true));
            self.sums.begin(key, Sum::of(&opening));
        }
        let source = Source {
            channels: &channels,
            is_packed,
        };
        self.start_stream(key, source, joined, Some(replay_end), deadline, output);
        Flow::Left
    }

    /// Opens a stream for one client.
    pub(crate) fn open_sink(
        &mut self,
        key: u32,
        request: &Request,
        plan: StreamPlan,
        headers: Headers,
        output: &mut Vec<u8>,
    ) -> Flow {
        if let Some(full) = self.overflow(key) {
            return self.has_no_room(key, request, full.why(), &headers, output);
        }
        if *request.method() == Method::Head {
            self.write_stream_head(&headers, [], output);
            self.answer_no_more(key);
            return Flow::Hold;
        }
        let (channel, room) = self.hub.open_private(plan.options.into_channel_options());
        let sink = Sink::new(&self.attachment, channel, room);
        let join = Join {
            channels: &[channel],
            id: self.hub.new_client_id(),
            has_generated_id: true,
            connection: self.connection_id(key),
            address: request.client_address(),
            extra: None,
            start: &Start::Live,
        };
        match self.hub.join(join) {
            Ok(joined) => {
                self.write_stream_head(&headers, [], output);
                output.extend_from_slice(HEARTBEAT);
                let source = Source {
                    channels: &[channel],
                    is_packed: false,
                };
                // Its sink says when it ends.
                self.start_stream(key, source, joined, None, None, output);
                guard("a handler that streams", || (plan.open)(sink));
                Flow::Left
            }
            Err(error) => self.refuse_join(key, request, error, &headers, output),
        }
    }

    /// The headers of a subscription's response, whatever it comes to: the
    /// handler's, its own, and those of its channels, which may say the same.
    fn all_headers(&self, mut headers: Headers, subscription: &Subscription) -> Headers {
        let channels = subscription.channels.iter();
        let options: Vec<_> = channels
            .map(|channel| self.hub.options_of_all(&[channel.key()]))
            .collect();
        let own = subscription.headers.iter();
        for (name, value) in own.chain(options.iter().flat_map(|o| o.headers.iter())) {
            if !headers.iter().any(|field| field == (name, value)) {
                let added = headers.append(name.to_owned(), value.to_owned());
                added.expect("it was checked before");
            }
        }
        // The bytes are what they are.
        headers.remove("Content-Type");
        headers
    }

    /// Answers somebody whom a channel does not take.
    fn refuse_join(
        &mut self,
        key: u32,
        request: &Request,
        error: JoinError,
        headers: &Headers,
        output: &mut Vec<u8>,
    ) -> Flow {
        let why = match error {
            JoinError::Finished => {
                return self.write_response(key, request, 204, headers, b"", output);
            }
            JoinError::Full => (
                "channel_full",
                "the channel has as many clients as it may have: come back later",
            ),
            _ => (
                "channel_closed",
                "the channel was closed just now: come back",
            ),
        };
        self.has_no_room(key, request, why, headers, output)
    }

    /// Answers somebody for whom there is no room, with a code and a message.
    pub(crate) fn has_no_room(
        &mut self,
        key: u32,
        request: &Request,
        (code, message): (&str, &str),
        headers: &Headers,
        output: &mut Vec<u8>,
    ) -> Flow {
        self.meters.count_refusal(code);
        let mut response = Response::error(503, code, message);
        for (name, value) in headers.iter() {
            let added = response.headers.append(name.to_owned(), value.to_owned());
            added.expect("it was checked before");
        }
        self.turn_away(key, request, response, Duration::ZERO, output)
    }

    /// Answers with an error that passes, not before `delay` is over. A browser
    /// that asks for a stream gives up for good at any status but 200, so it gets
    /// that, and when to come back.
    pub(crate) fn turn_away(
        &mut self,
        key: u32,
        request: &Request,
        mut response: Response,
        delay: Duration,
        output: &mut Vec<u8>,
    ) -> Flow {
        let retry_ms = self.retry_ms().saturating_add(as_ms(delay));
        if request.is_for_a_stream() {
            response.headers.remove("Retry-After");
            self.write_stream_head(&response.headers, [], output);
            output.extend_from_slice(&retry_line(retry_ms));
            self.answer_no_more(key);
            return Flow::Hold;
        }
        let seconds = (retry_ms / 1000).saturating_add(1).to_string();
        let added = response.headers.insert("Retry-After", seconds);
        added.expect("a number can be a header");
        let (status, headers) = (response.status, &response.headers);
        let Kind::Body(body) = &response.kind else {
            return Flow::Next;
        };
        self.write_response(key, request, status, headers, body, output)
    }

    /// Writes the head of a stream: what every stream says, `headers`, and what
    /// the engine has to add for this one.
    fn write_stream_head<'a>(
        &'a mut self,
        headers: &'a Headers,
        added: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: Clone>,
        output: &mut Vec<u8>,
    ) {
        self.meters.count_answer(200);
        self.refresh_date();
        // A browser takes the last type that it is told, and would not read on.
        let is_free = |(name, _): &(&str, &str)| !name.eq_ignore_ascii_case("Content-Type");
        let added = added.into_iter();
        let own = headers.iter().filter(is_free).chain(added.clone());
        // The engine's defaults are for answers that say nothing themselves.
        let is_unsaid = |(name, _): &(&str, &str)| {
            let said = STREAM_HEADERS.into_iter().chain(headers.iter());
            let mut said = said.chain(added.clone());
            !said.any(|(said, _)| said.eq_ignore_ascii_case(name))
        };
        let defaults = self.headers.iter().filter(is_unsaid);
        let all = STREAM_HEADERS.into_iter().chain(own).chain(defaults);
        let (until_close, close) = (BodyLength::UntilClose, Persistence::Close);
        http::write_head(output, 200, all, until_close, close, &self.date.text);
    }

    /// Turns a connection into a stream: `output` goes out first, then the
    /// replay, then `replay_end`.
    fn start_stream(
        &mut self,
        key: u32,
        source: Source<'_>,
        joined: Joined,
        replay_end: Option<ReplayEnd>,
        deadline: Deadline,
        output: &mut Vec<u8>,
    ) {
        let mut replay_end = replay_end.filter(|end| end.has_id || !end.welcome.is_empty());
        let has_replay = joined.seen < joined.head;
        if let Some(end) = replay_end.take_if(|_| !has_replay) {
            output.extend_from_slice(&wrap(&end.welcome, source.is_packed));
            if source.is_packed {
                self.sums.add(key, &Suffix::new(Sum::of(&end.welcome)));
            }
        }
        let feed_id = self
            .feeds
            .find_or_insert(source, &joined.options, joined.now);
        let mut forgiven = Evicted::default();
        let reader = match &*joined.readers {
            [only] => {
                forgiven = only.forgiven;
                only.slot
            }
            _ => {
                let reader = self.readers.insert(joined.readers.into_boxed_slice());
                u32::try_from(reader).expect("fewer streams than 2^32")
            }
        };
        let mut stream = Stream {
            feed: feed_id,
            index: 0,
            reader,
            cursor: NONE,
            ends_at: 0,
            ends_as: None,
            strikes: 0,
            is_leaving: false,
        };
        self.meters.streams_opened.add(1);
        if joined.conflates {
            let socket = &mut self.connections.get_mut(key).socket;
            self.net.limit_unsent(socket);
        }
        let tick = self.tick32();
        if let Some((ticks, reason)) = deadline {
            stream.end_in(ticks, tick, reason);
        }
        let connection = self.connections.get_mut(key);
        let before = std::mem::replace(&mut connection.state, State::Stream(stream));
        let State::Http(http) = before else {
            unreachable!("a stream begins as a request");
        };

        // What could not be written of earlier answers comes first, and since
        // when nobody takes it still counts.
        let written = if http.unsent.is_empty() {
            connection.written_at = tick;
            self.net.write(&mut connection.socket, output)
        } else {
            Ok(0)
        };
        let first = [http.unsent.as_bytes(), output].concat();
        output.clear();
        let written = match written {
            Err(error) if is_transient(&error) => Ok(0),
            other => other,
        };

        let feed = self.feeds.get_mut(feed_id);
        feed.is_private = joined.is_private;
        feed.limits_unsent = joined.conflates;
        let is_current = joined.seen >= joined.head && joined.head <= feed.through;
        let owed = match written {
            Ok(count) if count < first.len() => Some(Owed {
                frame: Frame::raw(&first),
                written: count,
                channel_index: None,
            }),
            _ => None,
        };
        if is_current && owed.is_none() {
            let moves = feed.push_current(key);
            self.move_all(moves);
        } else {
            let is_blocked = owed.is_some();
            self.fall_behind(key, joined.seen, owed, is_blocked);
            let cursor = self.connections.stream(key).cursor;
            let cursor = &mut self.cursors[cursor as usize];
            cursor.replay_through = joined.now;
            cursor.keyed_through = joined.keyed_through;
            cursor.forgiven = forgiven;
            cursor.replay_end = replay_end;
            if http.is_queued {
                // The socket may have been reported as writable, and this connection
                // has not written since: it waited among the requests.
                self.queue_cursor(key);
            }
        }
        self.set_stream_timer(key);
        self.draw_moment(key);
        if joined.is_finished {
            // Nothing more will mark the channel dirty: its end has to be
            // found by gathering nothing.
            self.queue_feed(feed_id);
        }
        if written.is_err() {
            self.close(key, DisconnectReason::Gone);
        }
    }
}

/// Writes the first bytes of a subscription's body: a line without meaning,
/// because browsers and proxies wait for a first byte; then the gap event, if the
/// client has missed events, or the id at which the stream begins, if the client
/// asks for it.
fn write_opening(
    gap: Option<&str>,
    id: Option<&str>,
    asks_for_id: impl FnOnce() -> bool,
    output: &mut Vec<u8>,
) {
    output.extend_from_slice(HEARTBEAT);
    if let Some(gap) = gap {
        let gap = Frame::internal("pushwheel.gap", id, None, gap);
        output.extend_from_slice(gap.as_bytes());
    } else if let Some(id) = id
        && asks_for_id()
    {
        // So a browser misses nothing even if it is cut off before its first event.
        write_id(id, output);
    }
}

/// Writes a block that holds only an id. A browser dispatches nothing for it, but
/// keeps the id for its next request (HTML Standard 9.2.6).
pub(crate) fn write_id(id: &str, output: &mut Vec<u8>) {
    for part in ["id: ", id, "\n\n"] {
        output.extend_from_slice(part.as_bytes());
    }
}
