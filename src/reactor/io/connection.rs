//! A connection, and the slab that holds them all.
//!
//! A streaming connection is all that an idle client costs the reactor, so
//! it is small: a socket, its place in a feed, and the links of one timer.
//! Whatever only a busy connection needs is behind a pointer or in a slab of
//! its own.

use std::net::SocketAddr;

use slab::Slab;

use super::lines::Lines;
use super::wheel::{Link, Links};
use crate::exchange::{Extensions, Request};
use crate::http::Reader;
use crate::hub::client::DisconnectReason;
use crate::proxies::Preface;

/// "No cursor": the client is caught up.
pub(crate) const NONE: u32 = u32::MAX;

/// The most ticks that a stream's end may be ahead, so that half of all ticks
/// are past and half are to come: with 64 ms each, more than four years.
const AHEAD_MAX: u32 = u32::MAX / 2;

/// See the [module](self).
pub(crate) struct Connection<S> {
    pub(crate) socket: S,
    /// Distinguishes it from earlier connections with its key.
    generation: u32,
    pub(crate) timer: Link,
    /// The tick at which it was last written to.
    pub(crate) written_at: u32,
    pub(crate) state: State,
}

pub(crate) enum State {
    Http(Box<HttpState>),
    Stream(Stream),
}

/// A connection that speaks HTTP.
pub(crate) struct HttpState {
    /// The address of its client: its peer, or the one that a proxy has sent.
    pub(crate) source: SocketAddr,
    /// The other end of the socket.
    pub(crate) peer: SocketAddr,
    /// The PROXY header, while it is awaited.
    pub(crate) preface: Option<Box<Preface>>,
    pub(crate) reader: Reader,
    /// What was read and has to wait until what is before it is answered: what
    /// one read left over at the most, for nothing is read before it is used up.
    pub(crate) unread: Pending,
    /// What is answered and not written yet.
    pub(crate) unsent: Pending,
    pub(crate) phase: Phase,
    /// Whether it waits in the run queue.
    pub(crate) is_queued: bool,
    /// Whether the deadline for a head is set.
    pub(crate) is_in_head: bool,
    /// The values of the guards that ran before the body that is being read.
    pub(crate) admitted: Option<Extensions>,
    /// When the body that is being read has to be there.
    pub(crate) body_due_ms: Option<u64>,
    /// Counts the requests that were deferred, so that an answer finds its own.
    pub(crate) deferred: u32,
}

/// Bytes that wait, in order. Taking some moves none
/// of the others; without any it owns nothing.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pending {
    pub(crate) fn of(bytes: &[u8]) -> Pending {
        Pending {
            bytes: bytes.to_vec(),
            taken: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the first `count` bytes away.
    pub(crate) fn take(&mut self, count: usize) {
        self.taken += count;
        if self.is_empty() {
            *self = Pending::default();
        }
    }
}

/// What an HTTP connection waits for.
pub(crate) enum Phase {
    /// The first or the next request, or the rest of it.
    Request,
    /// The answer from another thread.
    Answer(Box<Request>),
    /// The lines of a request's body, and the replies to them.
    Lines(Box<Lines>),
    /// That the client takes the last answer, then that it closes its end.
    Linger { bytes_left: usize },
}

/// A connection that streams.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) feed: u32,
    /// Its index in the feed's list of current clients, or of those that are behind.
    pub(crate) index: u32,
    /// Its slot in the channel; for a stream of several channels, where its
    /// readers are.
    pub(crate) reader: u32,
    /// Its cursor, while it is behind.
    pub(crate) cursor: u32,
    /// The tick at which it ends, if it does by time: its low half.
    pub(crate) ends_at: u32,
    /// Why it ends then.
    pub(crate) ends_as: Option<DisconnectReason>,
    /// The number of reads of what the client has sent. A subscriber need not send
    /// anything.
    pub(crate) strikes: u8,
    /// Whether the hub has sent it away, and its connection has yet to end.
    pub(crate) is_leaving: bool,
    /// Whether its heartbeats name its position.
    pub(crate) names_position: bool,
}

impl Stream {
    /// Ends it after so many ticks, unless it ends sooner anyway.
    pub(crate) fn end_in(&mut self, ticks: u64, now: u32, reason: DisconnectReason) {
        let ahead = u32::try_from(ticks).unwrap_or(u32::MAX).min(AHEAD_MAX);
        if self.ends_in(now).is_none_or(|sooner| ahead < sooner) {
            self.ends_at = now.wrapping_add(ahead);
            self.ends_as = Some(reason);
        }
    }

    /// In how many ticks it ends by time, if it does.
    pub(crate) fn ends_in(&self, now: u32) -> Option<u32> {
        self.ends_as?;
        let ahead = self.ends_at.wrapping_sub(now);
        Some(if ahead > AHEAD_MAX { 0 } else { ahead })
    }
}

impl HttpState {
    pub(crate) fn new(peer: SocketAddr) -> HttpState {
        HttpState {
            source: peer,
            peer,
            preface: None,
            reader: Reader::new(),
            unread: Pending::default(),
            unsent: Pending::default(),
            phase: Phase::Request,
            is_queued: false,
            is_in_head: false,
            admitted: None,
            body_due_ms: None,
            deferred: 0,
        }
    }

    /// Whether nothing of a next request has come, nor of what stands before
    /// the first one.
    pub(crate) fn is_idle(&self) -> bool {
        let has_preface_begun = self.preface.as_ref().is_some_and(|p| !p.is_empty());
        !has_preface_begun && self.reader.is_idle()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_unused(&self) -> bool {
        let has_bytes = !self.unsent.is_empty() || !self.unread.is_empty();
        matches!(self.phase, Phase::Request) && self.is_idle() && !has_bytes
    }
}

/// The key of a connection that streams: only [`Connections`] makes one, of a connection
/// that it has seen to be a stream. So what is for streams cannot be called for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamKey(u32);

impl StreamKey {
    pub(crate) fn key(self) -> u32 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn of(key: u32) -> StreamKey {
        StreamKey(key)
    }
}

/// All connections of a reactor, by key; the key and the generation of its
/// tenant make a token.
pub(crate) struct Connections<S> {
    slots: Slab<Connection<S>>,
    generation: u32,
}

impl<S> Connections<S> {
    pub(crate) fn new() -> Connections<S> {
        Connections {
            slots: Slab::new(),
            generation: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn insert(&mut self, socket: S, peer: SocketAddr, now_tick: u32) -> u32 {
        // The highest generation is left out: its tokens are taken.
        self.generation = (self.generation + 1) % u32::MAX;
        let key = self.slots.insert(Connection {
            socket,
            generation: self.generation,
            timer: Link::default(),
            written_at: now_tick,
            state: State::Http(Box::new(HttpState::new(peer))),
        });
        u32::try_from(key).expect("fewer connections than 2^32")
    }

    pub(crate) fn token(&self, key: u32) -> u64 {
        token(key, self.slots[key as usize].generation)
    }

    /// The key of the connection that a token names, if it is still there.
    pub(crate) fn find(&self, token: u64) -> Option<u32> {
        let (key, generation) = split(token);
        let connection = self.slots.get(key as usize)?;
        (connection.generation == generation).then_some(key)
    }

    pub(crate) fn get(&self, key: u32) -> &Connection<S> {
        &self.slots[key as usize]
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> &mut Connection<S> {
        &mut self.slots[key as usize]
    }

    pub(crate) fn contains(&self, key: u32) -> bool {
        self.slots.contains(key as usize)
    }

    pub(crate) fn remove(&mut self, key: u32) -> Connection<S> {
        self.slots.remove(key as usize)
    }

    /// One more than the highest key that may be in use.
    pub(crate) fn keys_end(&self) -> u32 {
        u32::try_from(self.slots.capacity()).unwrap_or(u32::MAX)
    }

    /// The connection as one that streams, if it is one.
    pub(crate) fn as_stream(&self, key: u32) -> Option<StreamKey> {
        let is_stream = matches!(self.get(key).state, State::Stream(_));
        is_stream.then_some(StreamKey(key))
    }

    /// The stream that a token names, if it is still there.
    pub(crate) fn find_stream(&self, token: u64) -> Option<StreamKey> {
        self.as_stream(self.find(token)?)
    }

    /// Turns a connection that speaks HTTP into a stream. Returns what it was before.
    pub(crate) fn begin_stream(&mut self, key: u32, stream: Stream) -> (StreamKey, Box<HttpState>) {
        let state = &mut self.get_mut(key).state;
        let State::Http(http) = std::mem::replace(state, State::Stream(stream)) else {
            unreachable!("a stream begins as a request");
        };
        (StreamKey(key), http)
    }

    pub(crate) fn stream(&self, StreamKey(key): StreamKey) -> &Stream {
        match &self.get(key).state {
            State::Stream(stream) => stream,
            State::Http(_) => unreachable!("a stream is one until it is closed"),
        }
    }

    pub(crate) fn stream_mut(&mut self, StreamKey(key): StreamKey) -> &mut Stream {
        match &mut self.get_mut(key).state {
            State::Stream(stream) => stream,
            State::Http(_) => unreachable!("a stream is one until it is closed"),
        }
    }

    pub(crate) fn http_mut(&mut self, key: u32) -> Option<&mut HttpState> {
        match &mut self.get_mut(key).state {
            State::Http(http) => Some(http),
            State::Stream(_) => None,
        }
    }
}

impl<S> Links for Connections<S> {
    fn link(&mut self, key: u32) -> &mut Link {
        &mut self.slots[key as usize].timer
    }
}

fn token(key: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(key)
}

#[allow(clippy::cast_possible_truncation, reason = "the two halves")]
fn split(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_is_48_bytes() {
        // As a socket is in a release build: a descriptor.
        assert!(size_of::<Connection<std::os::fd::OwnedFd>>() <= 48);
    }

    #[test]
    fn pending_bytes_go_in_their_order_and_leave_nothing() {
        let mut pending = Pending::of(b"one two");
        pending.take(4);
        pending.push(b" three");
        assert_eq!(pending.as_bytes(), b"two three");
        pending.take(9);
        assert!(pending.is_empty());
        assert_eq!(pending.bytes.capacity(), 0);
    }

    #[test]
    fn the_soonest_end_counts_and_ticks_wrap() {
        let mut stream = Stream {
            feed: 0,
            index: 0,
            reader: 0,
            cursor: NONE,
            ends_at: 0,
            ends_as: None,
            strikes: 0,
            is_leaving: false,
            names_position: false,
        };
        let now = u32::MAX - 1;
        assert_eq!(stream.ends_in(now), None);
        stream.end_in(u64::MAX, now, DisconnectReason::Aged);
        assert_eq!(stream.ends_in(now), Some(AHEAD_MAX));
        stream.end_in(5, now, DisconnectReason::Expired);
        stream.end_in(5, now, DisconnectReason::Shutdown);
        assert_eq!(stream.ends_as, Some(DisconnectReason::Expired));
        for (at, left) in [(now, 5), (2, 1), (3, 0), (4, 0), (1000, 0)] {
            assert_eq!(stream.ends_in(at), Some(left), "at {at}");
        }
    }

    #[test]
    fn a_stale_token_finds_no_connection() {
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut connections = Connections::new();
        let key = connections.insert((), peer, 0);
        let stale = connections.token(key);
        connections.remove(key);
        assert_eq!(connections.insert((), peer, 0), key);
        assert_eq!(connections.find(stale), None);
        assert_eq!(connections.find(connections.token(key)), Some(key));
    }
}
