//! A feed: what a set of channels has for this reactor's clients.
//!
//! All clients that subscribe to the same channels, usually one, share a
//! feed. Those that are *current* have been sent everything up to `through`,
//! but for the delivery that is on its way to them; those that are *behind* have
//! a cursor each.
//!
//! ```text
//!   current:  [ done ....... | pending ......... ]      behind: [ cursor, cursor, … ]
//!             has the batch    gets it next             resumes when it can be written
//! ```

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use super::beat::Beat;
use super::cursor::Owed;
use crate::frame::{Frame, HEARTBEAT};
use crate::hub::batch::Batch;
use crate::hub::client::DisconnectReason;
use crate::hub::options::{ChannelOptions, LagPolicy};
use crate::hub::{ChannelKey, Form, Search, Source};
use crate::packed::{self, Suffix};
use crate::reactor::io::connection::StreamKey;

/// See the [module](self).
pub(super) struct Feed {
    pub(super) channels: Box<[ChannelKey]>,
    /// The form in which its clients receive events.
    pub(super) form: Form,
    /// Whether it is the stream of one client.
    pub(super) is_private: bool,
    /// Whether one of its channels conflates, so that its clients' sockets hold
    /// few unsent bytes.
    pub(super) limits_unsent: bool,
    pub(super) options: Arc<ChannelOptions>,
    /// Everything up to here was gathered.
    pub(super) through: u64,
    pub(super) news: News,
    /// What is on its way to the current clients.
    pub(super) delivery: Option<Delivery>,
    pub(super) current: Vec<StreamKey>,
    /// The current clients whose timers are to be set again: the first ones.
    pub(super) untimed: usize,
    pub(super) behind: Behind,
    /// The number of its clients that the hub has sent away and that are here
    /// still. Meanwhile nothing is gathered.
    pub(super) leaving: usize,
    /// Whether it waits in the pump's queue.
    pub(super) is_queued: bool,
    pub(super) pace: Pace,
    /// Why its clients' streams end once they have what was gathered, if they
    /// do.
    pub(super) ends: Option<DisconnectReason>,
    pub(super) unreported: Unreported,
    /// The heartbeat of clients that ask for their position, if there are any.
    pub(super) beat: Option<Box<Beat>>,
}

/// What the logs may have that was not gathered.
#[derive(Default)]
pub(super) struct News {
    pub(super) is_there: bool,
    /// When the oldest of it was published, in microseconds.
    pub(super) since_us: Option<u64>,
}

/// The pace of a feed's channels.
#[derive(Default)]
pub(super) struct Pace {
    /// Nothing is gathered before this time.
    pub(super) until_ms: u64,
    /// Whether the feed waits for that.
    pub(super) is_waiting: bool,
}

/// What happened since the last report to the hub.
pub(super) struct Unreported {
    /// Events written whole, by channel index.
    pub(super) delivered: Box<[u64]>,
    /// Gap events.
    pub(super) gaps: u64,
}

/// What is on its way to the current clients, and how far it has got.
pub(super) struct Delivery {
    pub(super) content: Content,
    /// What was gathered before: a client without the batch has seen this.
    pub(super) after: u64,
    /// The number of current clients that have the batch: the first ones.
    pub(super) done: usize,
    /// The number of times that the batch was written whole.
    pub(super) writes: u64,
    /// When its oldest event was published, in microseconds.
    pub(super) since_us: Option<u64>,
}

/// What a current client gets next.
pub(super) enum Content {
    /// A batch that was gathered for all of them, and what it adds to the sums of
    /// compressed streams.
    Batch(Box<Batch>, Option<Suffix>),
    /// A cursor of its own: more was published than they could be sent, or each has
    /// to see what is for it.
    Cursor,
    /// A directed event, for clients that are being searched for. Each of these gets a
    /// cursor.
    Search(Search),
}

impl Delivery {
    pub(super) fn new(content: Content, after: u64, since_us: Option<u64>) -> Delivery {
        Delivery {
            content,
            after,
            done: 0,
            writes: 0,
            since_us,
        }
    }
}

/// The clients of a feed that are behind.
#[derive(Default)]
pub(super) struct Behind {
    pub(super) keys: Vec<StreamKey>,
    /// No client here has seen less, if there is one.
    floor: Option<u64>,
    /// Where clients are disconnected that have fallen off the log: the newest entry that
    /// is gone from it.
    pub(super) evicted_through: u64,
    /// Clients that can be written to, by token.
    pub(super) ready: VecDeque<u64>,
    /// Whether the feed is queued for them.
    pub(super) is_queued: bool,
    /// Clients that have seen more than was gathered, by token: they wait for the
    /// next gathering.
    pub(super) early: Vec<u64>,
}

impl Behind {
    /// A client stands here, or stands here now, that has seen this.
    pub(super) fn lower_floor(&mut self, seen: u64) {
        self.floor = Some(self.floor.map_or(seen, |floor| floor.min(seen)));
    }

    /// Sets the floor to what is known of all clients.
    pub(super) fn set_floor(&mut self, floor: Option<u64>) {
        self.floor = floor;
    }

    /// Whether a client may not have seen what is gone from the logs.
    pub(super) fn may_have_missed(&self) -> bool {
        self.floor.is_some_and(|floor| floor < self.evicted_through)
    }
}

impl Feed {
    pub(super) fn new(source: Source<'_>, options: Arc<ChannelOptions>, through: u64) -> Feed {
        Feed {
            unreported: Unreported {
                delivered: vec![0; source.channels.len()].into(),
                gaps: 0,
            },
            channels: source.channels.into(),
            form: source.form,
            is_private: false,
            limits_unsent: false,
            options,
            through,
            news: News::default(),
            delivery: None,
            current: Vec::new(),
            untimed: 0,
            behind: Behind::default(),
            leaving: 0,
            is_queued: false,
            pace: Pace::default(),
            ends: None,
            beat: None,
        }
    }

    pub(super) fn source(&self) -> Source<'_> {
        Source {
            channels: &self.channels,
            form: self.form,
        }
    }

    /// Whether its clients' streams are compressed.
    pub(super) fn is_packed(&self) -> bool {
        self.form == Form::Packed
    }

    /// The heartbeat of its clients. Before the value of a page, JSON has room for spaces.
    pub(super) fn heartbeat(&self) -> &'static [u8] {
        match self.form {
            Form::Page => b"\n",
            _ => HEARTBEAT,
        }
    }

    /// A frame of the loop's own, as this feed's clients read it, to be owed.
    pub(super) fn owe(&self, bytes: &[u8], written: usize) -> Owed {
        let frame = Frame::raw(bytes);
        let frame = match self.is_packed() {
            true => frame.pack(usize::MAX),
            false => frame,
        };
        Owed::own(frame, written)
    }

    /// Bytes of the loop's own, as this feed's clients read them.
    pub(super) fn wrap<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        wrap(bytes, self.is_packed())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.behind.keys.is_empty()
    }

    /// Whether clients that have fallen off the log are disconnected without being
    /// read for. On a stream of several channels, reading finds out.
    pub(super) fn disconnects_laggards(&self) -> bool {
        let policy = self.options.lag_policy;
        policy == LagPolicy::Disconnect && self.channels.len() == 1
    }

    /// Everything up to here is out to all current clients.
    pub(super) fn sent_through(&self) -> u64 {
        let delivery = self.delivery.as_ref();
        delivery.map_or(self.through, |delivery| delivery.after)
    }

    /// The next current client that has not got what is on its way.
    pub(super) fn next_current(&self) -> Option<StreamKey> {
        let done = self.delivery.as_ref().map_or(0, |delivery| delivery.done);
        self.current.get(done).copied()
    }

    /// What the current client at `index` has seen.
    pub(super) fn seen_by_current(&self, index: usize) -> u64 {
        match &self.delivery {
            Some(delivery) if index >= delivery.done => delivery.after,
            _ => self.through,
        }
    }

    /// Adds a client to those that are current and have the batch. Returns the
    /// clients whose place has changed for it.
    pub(super) fn push_current(&mut self, key: StreamKey) -> Moves {
        self.current.push(key);
        let last = self.current.len() - 1;
        let Some(delivery) = &mut self.delivery else {
            return [Some((key, last)), None];
        };
        let index = delivery.done;
        self.current.swap(index, last);
        delivery.done += 1;
        let displaced = (last != index).then(|| (self.current[last], last));
        [Some((key, index)), displaced]
    }

    /// Takes the client at `index` out of those that are current.
    pub(super) fn remove_current(&mut self, index: usize) -> Moves {
        let mut hole = index;
        let mut moves = [None, None];
        if let Some(delivery) = &mut self.delivery
            && index < delivery.done
        {
            // The last client that has the batch fills the hole, and leaves one at
            // the border.
            delivery.done -= 1;
            self.current.swap(index, delivery.done);
            hole = delivery.done;
            moves[0] = (index != hole).then(|| (self.current[index], index));
        }
        self.current.swap_remove(hole);
        shrink(&mut self.current);
        moves[1] = self.current.get(hole).map(|key| (*key, hole));
        moves
    }

    /// Takes the delivery away, and counts its events for the clients that have
    /// them. Returns its batch, and the bytes that were written to these clients.
    pub(super) fn take_delivery(&mut self) -> Option<(Box<Batch>, u64)> {
        let delivery = self.delivery.take()?;
        let Content::Batch(batch, _) = delivery.content else {
            return None;
        };
        for piece in batch.pieces() {
            self.unreported.delivered[piece.channel_index] += delivery.writes;
        }
        let bytes = batch.len() as u64 * delivery.writes;
        Some((batch, bytes))
    }

    /// Adds a client to those that are behind. Returns its index. The caller lets the
    /// feed know what it [has seen](Behind::lower_floor).
    pub(super) fn push_behind(&mut self, key: StreamKey) -> usize {
        self.behind.keys.push(key);
        self.behind.keys.len() - 1
    }

    /// Takes the client at `index` out of those that are behind.
    pub(super) fn remove_behind(&mut self, index: usize) -> Moves {
        self.behind.keys.swap_remove(index);
        if self.behind.keys.is_empty() {
            self.behind.floor = None;
        }
        shrink(&mut self.behind.keys);
        let moved = self.behind.keys.get(index);
        [moved.map(|key| (*key, index)), None]
    }
}

/// Bytes of the loop's own, as a stream has them that is compressed or not.
pub(crate) fn wrap(bytes: &[u8], is_packed: bool) -> Cow<'_, [u8]> {
    if !is_packed {
        return bytes.into();
    }
    let mut blocks = Vec::with_capacity(bytes.len() + packed::STORED_OVERHEAD_BYTES);
    packed::stored(bytes, &mut blocks);
    blocks.into()
}

/// Gives memory back when most of a long list has gone: at most once for as many
/// removals as are copied. A short one may be long again with the next event.
fn shrink(list: &mut Vec<StreamKey>) {
    const KEPT: usize = 4096;
    if list.capacity() > KEPT && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

/// The clients whose place in a list has changed, with their new index.
pub(super) type Moves = [Option<(StreamKey, usize)>; 2];

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: u32) -> StreamKey {
        StreamKey::of(key)
    }

    fn feed(current: &[u32]) -> Feed {
        let channel = ChannelKey {
            slot: 0,
            generation: 1,
        };
        let source = Source {
            channels: &[channel],
            form: Form::Plain,
        };
        let mut feed = Feed::new(source, Arc::default(), 0);
        feed.current = current.iter().map(|n| key(*n)).collect();
        feed
    }

    fn with_delivery(current: &[u32], done: usize) -> Feed {
        let mut feed = feed(current);
        let batch = Content::Batch(Box::default(), None);
        let delivery = feed.delivery.insert(Delivery::new(batch, 0, None));
        delivery.done = done;
        feed
    }

    fn done(feed: &Feed) -> usize {
        feed.delivery.as_ref().unwrap().done
    }

    #[test]
    fn a_client_that_leaves_or_joins_during_a_batch_leaves_the_border_right() {
        // 1 and 2 have the batch, 3 and 4 do not.
        let mut f = with_delivery(&[1, 2, 3, 4], 2);
        assert_eq!(f.remove_current(0), [Some((key(2), 0)), Some((key(4), 1))]);
        assert_eq!((&f.current[..], done(&f)), (&[2, 4, 3].map(key)[..], 1));
        assert_eq!(
            f.push_current(key(5)),
            [Some((key(5), 1)), Some((key(4), 3))]
        );
        assert_eq!((&f.current[..], done(&f)), (&[2, 5, 3, 4].map(key)[..], 2));
        assert_eq!(f.remove_current(3), [None, None]);
        assert_eq!(f.remove_current(2), [None, None]);
        assert_eq!(f.push_current(key(6)), [Some((key(6), 2)), None]);
        assert_eq!((&f.current[..], done(&f)), (&[2, 5, 6].map(key)[..], 3));
    }

    #[test]
    fn a_batch_counts_for_the_clients_that_have_it_however_it_ends() {
        let mut f = with_delivery(&[1, 2, 3], 2);
        let frame = Frame::raw(b"data: x\n\n");
        let delivery = f.delivery.as_mut().unwrap();
        let Content::Batch(batch, _) = &mut delivery.content else {
            unreachable!("made above")
        };
        batch.push(1, 0, frame.clone());
        batch.push(2, 0, frame);
        delivery.writes = 2;
        assert_eq!(f.take_delivery().unwrap().1, 36);
        assert_eq!(&*f.unreported.delivered, [4]);
        assert!(f.take_delivery().is_none());
        assert_eq!(&*f.unreported.delivered, [4], "once");
    }

    #[test]
    fn without_a_batch_the_last_fills_the_hole() {
        let mut f = feed(&[1, 2, 3]);
        assert_eq!(f.remove_current(0), [None, Some((key(3), 0))]);
        assert_eq!(f.push_current(key(4)), [Some((key(4), 2)), None]);
        assert_eq!(f.current, [3, 2, 4].map(key));
    }

    #[test]
    fn lists_give_their_memory_back() {
        let mut f = feed(&[]);
        for n in 0..100_000 {
            f.push_current(key(n));
            f.push_behind(key(n));
        }
        for _ in 0..99_990 {
            f.remove_current(0);
            f.remove_behind(0);
        }
        assert!(f.current.capacity() <= 4096 && f.behind.keys.capacity() <= 4096);
    }
}
