//! Streams, from their opening to their end.

use std::sync::Arc;

use super::connection::{NONE, State, Stream};
use super::feed::{Cursor, Moves, Owed, wrap};
use super::net::Net;
use super::serving::{Flow, guard, is_transient, with_defaults};
use super::{Reactor, TICK_MS, as_ms};
use crate::exchange::{Kind, Request, Response, Sink, StreamPlan, Subscription};
use crate::frame::{self, Frame};
use crate::http::{self, BodyLength, Headers, Method, Persistence};
use crate::hub::channel::Channel;
use crate::hub::client::{ClientInfo, DisconnectReason, Extra};
use crate::hub::{ChannelKey, Join, JoinError, Joined, Membership, Seat, Source, Start};
use crate::packed;

/// What every stream's head says: what the bytes are, and that nobody may
/// keep, change or hold back any of them (`X-Accel-Buffering` is nginx's).
const STREAM_HEADERS: [(&str, &str); 3] = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
];

/// The first bytes of a stream: a comment, so that proxies and browsers see
/// that it has begun.
const GREETING: &[u8] = b":\n\n";

/// How often a subscriber may send something before it is disconnected.
const STRIKES_MAX: u8 = 100;

/// A browser that finds no room is told to come back after a delay between
/// these, in milliseconds, drawn for each, so that they do not all come at
/// once.
const RETRY_MS: std::ops::Range<u64> = 2_000..10_000;

impl<N: Net> Reactor<N> {
    /// Opens a stream of channels.
    pub(super) fn open_subscription(
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
        let headers = all_headers(headers, &subscription);
        if *request.method() == Method::Head {
            return self.answer_head(key, &headers, output);
        }
        let start = subscription.start.unwrap_or_else(|| request.start());
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
            place: self.place(key),
            address: request.peer(),
            extra,
            start: &start,
            is_connecting: subscription.on_connect.is_some(),
        };
        let joined = match self.hub.join(join) {
            Ok(joined) => joined,
            Err(error) => return self.turn_away(key, request, error, &headers, output),
        };
        let mut welcome = Vec::new();
        if let Some(on_connect) = subscription.on_connect {
            let info = ClientInfo {
                id,
                metadata: subscription.metadata.unwrap_or_default(),
                address: request.peer(),
                since: self.hub.clock.wall(self.now_ms),
                behind: 0,
            };
            guard("on_connect", || on_connect(&info));
            welcome = self.hub.welcome(&channels, &joined.seats, self.place(key));
        }
        let is_packed = joined.compresses && request.accepts_encoding("gzip");
        self.write_opening(&headers, Some(&joined), is_packed, output);
        let source = Source {
            channels: &channels,
            is_packed,
        };
        self.start_stream(key, source, joined, &welcome, output);
        Flow::Left
    }

    /// Opens a stream for one client.
    pub(super) fn open_sink(
        &mut self,
        key: u32,
        request: &Request,
        plan: StreamPlan,
        headers: Headers,
        output: &mut Vec<u8>,
    ) -> Flow {
        if *request.method() == Method::Head {
            return self.answer_head(key, &headers, output);
        }
        let (channel, room) = self.hub.open_private(plan.options.into_channel_options());
        let sink = Sink::new(self.hub.clone(), channel, room);
        let join = Join {
            channels: &[channel],
            id: self.hub.new_client_id(),
            place: self.place(key),
            address: request.peer(),
            extra: None,
            start: &Start::Live,
            is_connecting: false,
        };
        match self.hub.join(join) {
            Ok(joined) => {
                self.write_opening(&headers, None, false, output);
                let source = Source {
                    channels: &[channel],
                    is_packed: false,
                };
                self.start_stream(key, source, joined, &[], output);
                guard("a handler that streams", || (plan.open)(sink));
                Flow::Left
            }
            Err(error) => self.turn_away(key, request, error, &headers, output),
        }
    }

    /// What a GET would be answered, without the stream.
    fn answer_head(&mut self, key: u32, headers: &Headers, output: &mut Vec<u8>) -> Flow {
        self.write_stream_head(&[headers], output);
        self.flush_and_close(key);
        Flow::Hold
    }

    /// Answers somebody who cannot be let in. A browser gives up for good at
    /// any status but 200, so it gets that, and when to come back.
    fn turn_away(
        &mut self,
        key: u32,
        request: &Request,
        error: JoinError,
        headers: &Headers,
        output: &mut Vec<u8>,
    ) -> Flow {
        if error == JoinError::Finished {
            return self.write_response(key, request, 204, headers, b"", output);
        }
        let retry_ms = RETRY_MS.start + self.hub.random_below(RETRY_MS.end - RETRY_MS.start);
        if request.accepts("text/event-stream") {
            self.write_stream_head(&[headers], output);
            output.extend_from_slice(&retry_line(retry_ms));
            self.flush_and_close(key);
            return Flow::Hold;
        }
        let seconds = retry_ms.div_ceil(1000).to_string();
        let message = match error {
            JoinError::Full => "the channel has as many clients as it may have: come back later",
            _ => "the channel was closed just now: come back",
        };
        let code = match error {
            JoinError::Full => "channel_full",
            _ => "channel_closed",
        };
        let mut response = Response::error(503, code, message);
        for (name, value) in headers.iter() {
            let added = response.headers.append(name.to_owned(), value.to_owned());
            added.expect("it was checked before");
        }
        let added = response.headers.insert("Retry-After", seconds);
        added.expect("a number can be a header");
        let Kind::Body(body) = &response.kind else {
            return Flow::Next;
        };
        self.write_response(key, request, 503, &response.headers, body, output)
    }

    fn flush_and_close(&mut self, key: u32) {
        if let Some(http) = self.connections.http_mut(key) {
            http.phase = super::connection::Phase::Flush;
        }
    }

    fn write_stream_head(&mut self, headers: &[&Headers], output: &mut Vec<u8>) {
        self.refresh_date();
        // A browser takes the last type that it is told, and would not read on.
        let is_free = |(name, _): &(&str, &str)| !name.eq_ignore_ascii_case("Content-Type");
        let own = with_defaults(headers, &self.headers).filter(is_free);
        let all = STREAM_HEADERS.into_iter().chain(own);
        let (until_close, close) = (BodyLength::UntilClose, Persistence::Close);
        http::write_head(output, 200, all, until_close, close, &self.date.text);
    }

    /// The head, the greeting, and what this client has to know before it
    /// reads on: where it begins, or what it has missed.
    fn write_opening(
        &mut self,
        headers: &Headers,
        joined: Option<&Joined>,
        is_packed: bool,
        output: &mut Vec<u8>,
    ) {
        let mut coding = Headers::new();
        if joined.is_some_and(|joined| joined.compresses) {
            let added = coding.append("Vary", "Accept-Encoding");
            added.expect("this can be a header");
        }
        if is_packed {
            let added = coding.append("Content-Encoding", "gzip");
            added.expect("this can be a header");
        }
        self.write_stream_head(&[headers, &coding], output);
        if is_packed {
            output.extend_from_slice(&packed::HEADER);
        }
        output.extend_from_slice(&wrap(GREETING, is_packed));
        let Some(joined) = joined else {
            return;
        };
        let id = self.hub.id_of(joined.seen).to_string();
        if let Some(gap) = &joined.gap {
            let gap = Frame::internal("pushwheel.gap", Some(&id), None, gap);
            output.extend_from_slice(&wrap(gap.as_bytes(), is_packed));
        } else if joined.needs_id {
            // A block of an id alone dispatches nothing, but the browser keeps
            // the id (HTML Standard 9.2.6), and so misses nothing even if it
            // is cut off before its first event.
            let block = format!("id: {id}\n\n");
            output.extend_from_slice(&wrap(block.as_bytes(), is_packed));
        }
    }

    /// Turns a connection into a stream: `output` goes out first, then the
    /// replay, then `welcome`.
    fn start_stream(
        &mut self,
        key: u32,
        source: Source<'_>,
        joined: Joined,
        welcome: &[u8],
        output: &mut Vec<u8>,
    ) {
        let welcome = &*wrap(welcome, source.is_packed);
        let has_replay = joined.seen < joined.head;
        if !has_replay {
            output.extend_from_slice(welcome);
        }
        let feed_id = self
            .feeds
            .find_or_insert(source, &joined.options, joined.now);
        let seat = match &*joined.seats {
            [only] => only.slot,
            _ => {
                let seat = self.seats.insert(joined.seats.into_boxed_slice());
                u32::try_from(seat).expect("fewer streams than 2^32")
            }
        };
        let stream = Stream {
            feed: feed_id,
            index: 0,
            seat,
            cursor: NONE,
            strikes: 0,
            is_leaving: false,
        };
        let tick = self.tick32();
        let connection = self.connections.get_mut(key);
        let before = std::mem::replace(&mut connection.state, State::Stream(stream));
        connection.written_at = tick;
        let State::Http(http) = before else {
            unreachable!("a stream begins as a request");
        };

        // What could not be written of earlier answers comes first.
        let mut first = http.unsent;
        let written = if first.is_empty() {
            self.net.write(&mut connection.socket, output)
        } else {
            Ok(0)
        };
        first.extend_from_slice(output);
        output.clear();
        let written = match written {
            Err(error) if is_transient(&error) => Ok(0),
            other => other,
        };

        let feed = self.feeds.get_mut(feed_id);
        let is_current = joined.seen >= joined.head && joined.head <= feed.through;
        let owed = match written {
            Ok(count) if count < first.len() => Some(Owed {
                frame: Frame::raw(&first),
                written: count,
                lane: None,
            }),
            _ => None,
        };
        if is_current && owed.is_none() {
            let moves = feed.push_current(key);
            self.move_all(moves);
            self.await_heartbeat(key);
        } else {
            let is_blocked = owed.is_some();
            self.fall_behind(key, joined.seen, owed, is_blocked);
            let cursor = self.connections.stream(key).cursor;
            let cursor = &mut self.cursors[cursor as usize];
            cursor.keyed_through = joined.keyed_through;
            if has_replay && !welcome.is_empty() {
                cursor.welcome = Some((joined.now, Frame::raw(welcome)));
            }
        }
        if joined.is_finished {
            // Nothing more will mark the channel dirty: its end has to be
            // found by gathering nothing.
            self.queue_feed(feed_id);
        }
        if written.is_err() {
            self.hang_up(key, DisconnectReason::Gone);
        }
    }

    /// Gives a client a cursor; it is in none of the feed's lists.
    pub(super) fn fall_behind(
        &mut self,
        key: u32,
        seen: u64,
        owed: Option<Owed>,
        is_blocked: bool,
    ) {
        let cursor = self.cursors.insert(Cursor {
            seen,
            keyed_through: 0,
            welcome: None,
            owed,
            is_blocked,
            is_noted: false,
            is_queued: false,
        });
        let feed_id = self.connections.stream(key).feed;
        let index = self.feeds.get_mut(feed_id).push_behind(key, seen);
        self.feeds.count_behind(feed_id, true);
        let stream = self.connections.stream_mut(key);
        stream.cursor = u32::try_from(cursor).expect("fewer cursors than 2^32");
        stream.index = u32::try_from(index).expect("fewer clients than 2^32");
        if is_blocked {
            self.note_blocked(key);
        } else {
            self.queue_cursor(key);
        }
    }

    /// A client's socket takes nothing: it has so long.
    pub(super) fn note_blocked(&mut self, key: u32) {
        self.connections.get_mut(key).written_at = self.tick32();
        self.set_timer(key, self.timeouts.stall);
        let cursor = &mut self.cursors[self.connections.stream(key).cursor as usize];
        cursor.is_noted = true;
        let seen = cursor.seen;
        let (memberships, place) = (self.memberships(key), self.place(key));
        self.hub.note_seen(&memberships, place, Some(seen));
    }

    /// A client has seen everything that was gathered: back to the many.
    pub(super) fn catch_up(&mut self, key: u32) {
        let stream = *self.connections.stream(key);
        if self.cursors.remove(stream.cursor as usize).is_noted {
            let (memberships, place) = (self.memberships(key), self.place(key));
            self.hub.note_seen(&memberships, place, None);
        }
        self.connections.stream_mut(key).cursor = NONE;
        self.feeds.count_behind(stream.feed, false);
        let feed = self.feeds.get_mut(stream.feed);
        let (is_ending, is_pumping) = (feed.is_ending, feed.batch.is_some());
        let moves = feed.remove_behind(stream.index as usize);
        let more_moves = feed.push_current(key);
        self.move_all(moves);
        self.move_all(more_moves);
        self.note_progress(stream.feed);
        if is_ending && !is_pumping {
            return self.hang_up(key, DisconnectReason::Finished);
        }
        self.await_heartbeat(key);
    }

    /// Lets clients know that their places have changed.
    pub(super) fn move_all(&mut self, moves: Moves) {
        for (key, index) in moves.into_iter().flatten() {
            self.connections.stream_mut(key).index =
                u32::try_from(index).expect("fewer clients than 2^32");
        }
    }

    /// The interval after which this client hears a heartbeat, in ticks: up
    /// to a quarter less than the channel's, by its key, so that many who
    /// were written to together do not stay together.
    fn heartbeat_ticks(&self, key: u32) -> Option<u64> {
        let feed = self.feeds.get(self.connections.stream(key).feed);
        let ticks = as_ms(feed.options.heartbeat?) / TICK_MS;
        let spread = (u64::from(key.wrapping_mul(0x9e37_79b9)) * (ticks / 4)) >> 32;
        Some((ticks - spread).max(1))
    }

    fn await_heartbeat(&mut self, key: u32) {
        match self.heartbeat_ticks(key) {
            Some(ticks) => {
                let silent = self
                    .tick32()
                    .wrapping_sub(self.connections.get(key).written_at);
                let due = (self.now_ms / TICK_MS + ticks).saturating_sub(u64::from(silent));
                self.wheel.set(&mut self.connections, key, due);
            }
            None => self.wheel.cancel(&mut self.connections, key),
        }
    }

    /// A stream's timer: a heartbeat is due, or a stalled client has had its
    /// time. Both are counted from the last write, which did not move the
    /// timer.
    pub(super) fn on_stream_timer(&mut self, key: u32) {
        let silent = self
            .tick32()
            .wrapping_sub(self.connections.get(key).written_at);
        let silent = u64::from(silent);
        let cursor = self.connections.stream(key).cursor;
        if cursor != NONE {
            let stall = as_ms(self.timeouts.stall).div_ceil(TICK_MS);
            let is_blocked = self.cursors[cursor as usize].is_blocked;
            if is_blocked && silent >= stall {
                return self.hang_up(key, DisconnectReason::Stalled);
            }
            let due = self.now_ms / TICK_MS + stall.saturating_sub(silent).max(1);
            return self.wheel.set(&mut self.connections, key, due);
        }
        if self
            .heartbeat_ticks(key)
            .is_some_and(|ticks| silent >= ticks)
        {
            let tick = self.tick32();
            let feed = self.feeds.get(self.connections.stream(key).feed);
            let heartbeat = feed.wrap(frame::HEARTBEAT);
            let connection = self.connections.get_mut(key);
            connection.written_at = tick;
            match self.net.write(&mut connection.socket, &heartbeat) {
                Ok(count) if count == heartbeat.len() => {}
                Ok(count) => return self.owe_heartbeat(key, count),
                Err(error) if is_transient(&error) => return self.owe_heartbeat(key, 0),
                Err(_) => return self.hang_up(key, DisconnectReason::Gone),
            }
        }
        self.await_heartbeat(key);
    }

    /// A heartbeat did not fit into the socket: the client is behind by that.
    fn owe_heartbeat(&mut self, key: u32, written: usize) {
        let stream = *self.connections.stream(key);
        let feed = self.feeds.get_mut(stream.feed);
        let owed = Owed {
            frame: feed.own_frame(frame::HEARTBEAT),
            written,
            lane: None,
        };
        let is_pending = feed.batch.is_some() && stream.index as usize >= feed.done;
        let seen = if is_pending {
            feed.batch_after
        } else {
            feed.through
        };
        let moves = feed.remove_current(stream.index as usize);
        self.move_all(moves);
        self.fall_behind(key, seen, Some(owed), true);
    }

    /// A subscriber has sent something, or has gone. What it says is of no
    /// interest, but reading it is how its end is found.
    pub(super) fn listen_to_subscriber(&mut self, key: u32) {
        let mut input = std::mem::take(&mut self.input);
        let connection = self.connections.get_mut(key);
        let State::Stream(stream) = &mut connection.state else {
            return self.input = input;
        };
        let reason = loop {
            match self.net.read(&mut connection.socket, &mut input) {
                Ok(0) => break Some(DisconnectReason::Gone),
                Ok(_) if stream.strikes == STRIKES_MAX => {
                    break Some(DisconnectReason::Misbehaved);
                }
                Ok(_) => stream.strikes += 1,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) => break None,
                Err(_) => break Some(DisconnectReason::Gone),
            }
        };
        self.input = input;
        if let Some(reason) = reason {
            self.hang_up(key, reason);
        }
    }

    /// Whether a connection can be ended in a shutdown without loss.
    pub(super) fn is_finished_with(&self, key: u32) -> bool {
        use super::connection::Phase;
        match &self.connections.get(key).state {
            State::Stream(stream) => {
                let feed = self.feeds.get(stream.feed);
                stream.cursor == NONE && feed.batch.is_none() && !feed.is_queued
            }
            State::Http(http) => {
                matches!(http.phase, Phase::Request | Phase::Linger { .. })
                    && http.reader.is_idle()
                    && http.unsent.is_empty()
                    && http.unread.is_empty()
            }
        }
    }

    /// Ends a connection in a shutdown. A browser is told when to come back,
    /// each at another time.
    pub(super) fn see_off(&mut self, key: u32) {
        let retry_ms = RETRY_MS.start + self.hub.random_below(RETRY_MS.end - RETRY_MS.start);
        let connection = self.connections.get_mut(key);
        if let State::Stream(stream) = &connection.state
            && stream.cursor == NONE
        {
            let line = retry_line(retry_ms);
            let line = self.feeds.get(stream.feed).wrap(&line);
            // Whether it gets there is all the same: the connection ends.
            let _ = self.net.write(&mut connection.socket, &line);
        }
        self.hang_up(key, DisconnectReason::Shutdown);
    }

    /// Ends a connection, whatever it does, and forgets it. Of a stream,
    /// whoever is to be told is told.
    pub(super) fn hang_up(&mut self, key: u32, reason: DisconnectReason) {
        let mut farewell = None;
        if let State::Stream(stream) = self.connections.get(key).state {
            let (memberships, place) = (self.memberships(key), self.place(key));
            farewell = self.hub.leave(&memberships, place);
            self.leave_feed(stream);
        }
        self.wheel.cancel(&mut self.connections, key);
        let connection = self.connections.remove(key);
        self.net.close(connection.socket);
        // There is a descriptor for somebody who waits.
        self.accept_paused_until_ms = None;
        if let Some(farewell) = farewell {
            guard("on_disconnect", || (farewell.hook)(&farewell.info, reason));
        }
    }

    fn leave_feed(&mut self, stream: Stream) {
        let feed = self.feeds.get_mut(stream.feed);
        let is_merged = feed.channels.len() > 1;
        let index = stream.index as usize;
        feed.leaving -= usize::from(stream.is_leaving);
        let moves = if stream.cursor == NONE {
            feed.remove_current(index)
        } else {
            feed.remove_behind(index)
        };
        if stream.cursor != NONE {
            self.cursors.remove(stream.cursor as usize);
            self.feeds.count_behind(stream.feed, false);
        }
        self.move_all(moves);
        if is_merged {
            self.seats.remove(stream.seat as usize);
        }
        if self.feeds.get(stream.feed).is_empty() {
            self.close_feed(stream.feed);
        } else {
            self.note_progress(stream.feed);
        }
    }

    /// A client's slots in its channels.
    pub(super) fn memberships(&self, key: u32) -> Vec<Membership> {
        let stream = self.connections.stream(key);
        let feed = self.feeds.get(stream.feed);
        let member = |(channel, slot): (&ChannelKey, u32)| Membership {
            channel: *channel,
            slot,
        };
        match &*feed.channels {
            [only] => vec![member((only, stream.seat))],
            several => {
                let seats = self.seats[stream.seat as usize]
                    .iter()
                    .map(|seat| seat.slot);
                several.iter().zip(seats).map(member).collect()
            }
        }
    }

    /// A client's seats, one for each of its feed's channels.
    pub(super) fn seats_of<'a>(
        seats: &'a slab::Slab<Box<[Seat]>>,
        stream: &Stream,
        is_merged: bool,
        single: &'a mut Seat,
    ) -> &'a [Seat] {
        if is_merged {
            return &seats[stream.seat as usize];
        }
        *single = Seat {
            slot: stream.seat,
            forgiven: 0,
        };
        std::slice::from_ref(single)
    }

    pub(super) fn queue_cursor(&mut self, key: u32) {
        let cursor = self.connections.stream(key).cursor;
        if let Some(cursor) = self.cursors.get_mut(cursor as usize)
            && !std::mem::replace(&mut cursor.is_queued, true)
        {
            self.run_queue.push_back(self.connections.token(key));
        }
    }
}

/// The headers of a subscription's response, whatever it comes to: the
/// handler's, its own, and those of its channels, which may say the same.
fn all_headers(mut headers: Headers, subscription: &Subscription) -> Headers {
    let channels = subscription.channels.iter();
    let own = subscription.headers.iter();
    for (name, value) in own.chain(channels.flat_map(|c| c.options().headers.iter())) {
        if !headers.iter().any(|field| field == (name, value)) {
            let added = headers.append(name.to_owned(), value.to_owned());
            added.expect("it was checked before");
        }
    }
    // The bytes are what they are.
    headers.remove("Content-Type");
    headers
}

fn retry_line(retry_ms: u64) -> Vec<u8> {
    frame::retry_line(u32::try_from(retry_ms).expect("a few seconds"))
}
