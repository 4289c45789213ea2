//! A feed: what a set of channels has for this reactor's clients.
//!
//! All clients that subscribe to the same channels, usually one, share a
//! feed. Those who are *current* have been sent everything up to `through`,
//! but for the batch that is on its way to them; those who are *behind* have
//! a cursor each.
//!
//! ```text
//!   current:  [ done ....... | pending ......... ]      behind: [ cursor, cursor, … ]
//!             has the batch    gets it next             resumes when it can be written
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use crate::frame::Frame;
use crate::hub::batch::Batch;
use crate::hub::client::DisconnectReason;
use crate::hub::log::Evicted;
use crate::hub::options::ChannelOptions;
use crate::hub::{ChannelKey, Source};
use crate::packed::{self, Suffix};

/// See the [module](self).
pub(crate) struct Feed {
    pub(crate) channels: Box<[ChannelKey]>,
    /// Whether its clients' streams are compressed.
    pub(crate) is_packed: bool,
    pub(crate) options: Arc<ChannelOptions>,
    /// Everything up to here was gathered.
    pub(crate) through: u64,
    /// What is on its way to the current clients.
    pub(crate) batch: Option<Box<Batch>>,
    /// What it adds to the sums of compressed streams.
    pub(crate) packed_batch: Option<Suffix>,
    /// What was gathered before that batch.
    pub(crate) batch_after: u64,
    /// How many of the current clients have the batch.
    pub(crate) done: usize,
    /// How often the batch was written whole.
    pub(crate) batch_writes: u64,
    pub(crate) current: Vec<u32>,
    pub(crate) behind: Vec<u32>,
    /// Newcomers who have seen more than was gathered, by token.
    pub(crate) early: Vec<u64>,
    /// No client that is behind has seen less.
    pub(crate) floor: u64,
    /// Whether it waits in the pump's queue.
    pub(crate) is_queued: bool,
    /// Before this time nothing is gathered, for its channels have a pace.
    pub(crate) paced_until_ms: u64,
    /// Whether it waits for that.
    pub(crate) is_paced: bool,
    /// How many of its clients were sent away and are here still. Meanwhile
    /// nothing is gathered.
    pub(crate) leaving: usize,
    /// Whether the logs may have more than was gathered.
    pub(crate) has_news: bool,
    /// When the oldest event was published that may not be gathered yet, in
    /// microseconds.
    pub(crate) news_since_us: Option<u64>,
    /// The same of those in the batch.
    pub(crate) batch_since_us: Option<u64>,
    /// Why its clients' streams end once they have what was gathered, if they
    /// do.
    pub(crate) ends: Option<DisconnectReason>,
    /// Whether it is the stream of one client.
    pub(crate) is_private: bool,
    /// Whether one of its channels conflates, so that its clients' sockets hold
    /// few unsent bytes.
    pub(crate) limits_unsent: bool,
    /// Events written since the last report, by channel_index.
    pub(crate) delivered: Box<[u64]>,
    /// Gaps told since the last report.
    pub(crate) gaps: u64,
}

impl Feed {
    fn new(source: Source<'_>, options: Arc<ChannelOptions>, through: u64) -> Feed {
        Feed {
            delivered: vec![0; source.channels.len()].into(),
            channels: source.channels.into(),
            is_packed: source.is_packed,
            options,
            through,
            batch: None,
            packed_batch: None,
            batch_after: through,
            done: 0,
            batch_writes: 0,
            current: Vec::new(),
            behind: Vec::new(),
            early: Vec::new(),
            floor: u64::MAX,
            is_queued: false,
            paced_until_ms: 0,
            is_paced: false,
            leaving: 0,
            has_news: false,
            news_since_us: None,
            batch_since_us: None,
            ends: None,
            is_private: false,
            limits_unsent: false,
            gaps: 0,
        }
    }

    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            channels: &self.channels,
            is_packed: self.is_packed,
        }
    }

    /// A frame of the loop's own, as this feed's clients read it.
    pub(crate) fn own_frame(&self, bytes: &[u8]) -> Frame {
        let frame = Frame::raw(bytes);
        match self.is_packed {
            true => frame.pack(usize::MAX),
            false => frame,
        }
    }

    /// Bytes of the loop's own, as this feed's clients read them.
    pub(crate) fn wrap<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        wrap(bytes, self.is_packed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.behind.is_empty()
    }

    /// Everything up to here is out to all current clients.
    pub(crate) fn sent_through(&self) -> u64 {
        match self.batch {
            Some(_) => self.batch_after,
            None => self.through,
        }
    }

    /// Puts a client among those who are current and have the batch.
    /// Answers who moved where for it.
    pub(crate) fn push_current(&mut self, key: u32) -> Moves {
        self.current.push(key);
        let last = self.current.len() - 1;
        if self.batch.is_none() {
            return [Some((key, last)), None];
        }
        self.current.swap(self.done, last);
        self.done += 1;
        let displaced = (last != self.done - 1).then(|| (self.current[last], last));
        [Some((key, self.done - 1)), displaced]
    }

    /// Takes the client at `index` out of those who are current.
    pub(crate) fn remove_current(&mut self, index: usize) -> Moves {
        let mut hole = index;
        let mut moves = [None, None];
        if self.batch.is_some() && index < self.done {
            // The last who has the batch fills the hole, and leaves one at
            // the border.
            self.done -= 1;
            self.current.swap(index, self.done);
            hole = self.done;
            moves[0] = (index != hole).then(|| (self.current[index], index));
        }
        self.current.swap_remove(hole);
        moves[1] = self.current.get(hole).map(|key| (*key, hole));
        moves
    }

    /// Takes the batch away, and counts its events for those who have it. Answers
    /// it, and how many bytes that was in all.
    pub(crate) fn take_batch(&mut self) -> Option<(Box<Batch>, u64)> {
        let batch = self.batch.take()?;
        let writes = std::mem::take(&mut self.batch_writes);
        for piece in batch.pieces() {
            self.delivered[piece.channel_index] += writes;
        }
        self.done = 0;
        let bytes = batch.len() as u64 * writes;
        Some((batch, bytes))
    }

    pub(crate) fn push_behind(&mut self, key: u32, seen: u64) -> usize {
        self.behind.push(key);
        self.floor = self.floor.min(seen);
        self.behind.len() - 1
    }

    pub(crate) fn remove_behind(&mut self, index: usize) -> Moves {
        self.behind.swap_remove(index);
        if self.behind.is_empty() {
            self.floor = u64::MAX;
        }
        [self.behind.get(index).map(|key| (*key, index)), None]
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

/// The clients whose place in a list has changed, with their new index.
pub(crate) type Moves = [Option<(u32, usize)>; 2];

/// Where a client that is behind has got to.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// Everything up to here was sent to it, or is owed: see
    /// [`sent`](Self::sent).
    pub(crate) seen: u64,
    /// Up to here it goes alone: of what there was before it came, it may be
    /// sent less than the many.
    pub(crate) replay_through: u64,
    /// Up to here it is sent only events with a key.
    pub(crate) keyed_through: u64,
    /// On a stream of one channel, the loss of which it was told. Other streams
    /// have it in their readers.
    pub(crate) forgiven: Evicted,
    /// What it is sent right after its replay, if there is anything.
    pub(crate) replay_end: Option<ReplayEnd>,
    /// The frame of which it has only the beginning.
    pub(crate) owed: Option<Owed>,
    /// Its time is up: with what it ends.
    pub(crate) end: Option<End>,
    /// Whether it waits for the next gathering, which may take as long as the
    /// feed's pace. Meanwhile it is sent heartbeats as those are that are current.
    pub(crate) is_early: bool,
    /// Whether its socket takes nothing at the moment.
    pub(crate) is_blocked: bool,
    /// Whether the hub knows, or is about to learn, that it is behind.
    pub(crate) is_noted: bool,
    /// Whether it waits in the run queue.
    pub(crate) is_queued: bool,
}

/// What a client is sent between its replay and new events.
#[derive(Debug)]
pub(crate) struct ReplayEnd {
    /// The replay goes up to here.
    pub(crate) after: u64,
    /// Whether the client gets the engine's id for its position, because the id
    /// of its last event does not lead back to it.
    pub(crate) has_id: bool,
    /// What the client's own `on_connect` has sent to it.
    pub(crate) welcome: Vec<u8>,
}

/// How a client's stream ends whose time is up.
#[derive(Debug)]
pub(crate) struct End {
    /// What was published up to here is sent before.
    pub(crate) through: u64,
    pub(crate) reason: DisconnectReason,
    /// Whether the last bytes are owed, and nothing comes after them.
    pub(crate) is_said: bool,
}

impl Cursor {
    /// Everything up to here is out. An event that is torn is not: its
    /// sequence number is `seen`.
    pub(crate) fn sent(&self) -> u64 {
        let is_torn = self
            .owed
            .as_ref()
            .is_some_and(|owed| owed.channel_index.is_some());
        self.seen - u64::from(is_torn)
    }
}

/// A frame that is partly written. It is the log's own, not a copy.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) frame: Frame,
    /// How many of its bytes are out.
    pub(crate) written: usize,
    /// Which of the feed's channels it is an event of, if it is one.
    pub(crate) channel_index: Option<usize>,
}

/// What the reactor notes of a channel.
#[derive(Default)]
pub(crate) struct Local {
    /// The feeds that have it.
    pub(crate) feeds: Vec<u32>,
    /// How many clients of these are behind.
    pub(crate) behind: usize,
    /// How much has happened since the last report.
    pub(crate) unreported: usize,
    /// Whether it is on the list of those to report.
    pub(crate) is_listed: bool,
}

/// The feeds of a reactor. The keys of its maps are the hub's own numbers, which
/// nobody chooses, so a hash that is quick is good enough.
pub(crate) struct Feeds {
    pub(crate) slots: Slab<Feed>,
    /// The feeds of streams that are not compressed, and of those that are.
    by_channels: [HashMap<Box<[ChannelKey]>, u32>; 2],
    pub(crate) locals: HashMap<ChannelKey, Local>,
}

impl Feeds {
    pub(crate) fn new() -> Feeds {
        Feeds {
            slots: Slab::new(),
            by_channels: [HashMap::new(), HashMap::new()],
            locals: HashMap::new(),
        }
    }

    pub(crate) fn get(&self, id: u32) -> &Feed {
        &self.slots[id as usize]
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> &mut Feed {
        &mut self.slots[id as usize]
    }

    pub(crate) fn contains(&self, id: u32) -> bool {
        self.slots.contains(id as usize)
    }

    /// The feed of these channels, made if there is none; everything up to
    /// `through` counts as gathered then.
    pub(crate) fn find_or_insert(
        &mut self,
        source: Source<'_>,
        options: &Arc<ChannelOptions>,
        through: u64,
    ) -> u32 {
        let channels = source.channels;
        let by_channels = &mut self.by_channels[usize::from(source.is_packed)];
        if let Some(id) = by_channels.get(channels) {
            return *id;
        }
        let feed = Feed::new(source, options.clone(), through);
        let id = u32::try_from(self.slots.insert(feed)).expect("fewer feeds than 2^32");
        by_channels.insert(channels.into(), id);
        for key in channels {
            self.locals.entry(*key).or_default().feeds.push(id);
        }
        id
    }

    pub(crate) fn remove(&mut self, id: u32) -> Feed {
        let feed = self.slots.remove(id as usize);
        self.by_channels[usize::from(feed.is_packed)].remove(&feed.channels);
        for key in &feed.channels {
            if let Some(local) = self.locals.get_mut(key) {
                local.feeds.retain(|other| *other != id);
                if local.feeds.is_empty() {
                    self.locals.remove(key);
                }
            }
        }
        feed
    }

    /// Notes that one client more, or less, of a feed is behind.
    pub(crate) fn count_behind(&mut self, id: u32, is_more: bool) {
        let feed = &self.slots[id as usize];
        for key in &feed.channels {
            if let Some(local) = self.locals.get_mut(key) {
                local.behind = if is_more {
                    local.behind + 1
                } else {
                    local.behind - 1
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(current: &[u32]) -> Feed {
        let key = ChannelKey { slot: 0, tenant: 1 };
        let source = Source {
            channels: &[key],
            is_packed: false,
        };
        let mut feed = Feed::new(source, Arc::default(), 0);
        feed.current = current.to_vec();
        feed
    }

    fn with_batch(current: &[u32], done: usize) -> Feed {
        let mut feed = feed(current);
        feed.batch = Some(Box::default());
        feed.done = done;
        feed
    }

    #[test]
    fn whoever_leaves_or_joins_during_a_batch_leaves_the_border_right() {
        // 1 and 2 have the batch, 3 and 4 do not.
        let mut f = with_batch(&[1, 2, 3, 4], 2);
        assert_eq!(f.remove_current(0), [Some((2, 0)), Some((4, 1))]);
        assert_eq!((&f.current[..], f.done), (&[2, 4, 3][..], 1));
        assert_eq!(f.push_current(5), [Some((5, 1)), Some((4, 3))]);
        assert_eq!((&f.current[..], f.done), (&[2, 5, 3, 4][..], 2));
        assert_eq!(f.remove_current(3), [None, None]);
        assert_eq!(f.remove_current(2), [None, None]);
        assert_eq!(f.push_current(6), [Some((6, 2)), None]);
        assert_eq!((&f.current[..], f.done), (&[2, 5, 6][..], 3));
    }

    #[test]
    fn a_batch_counts_for_those_who_have_it_however_it_ends() {
        let mut f = with_batch(&[1, 2, 3], 2);
        let frame = Frame::raw(b"data: x\n\n");
        let batch = f.batch.as_mut().unwrap();
        batch.push(1, 0, &frame);
        batch.push(2, 0, &frame);
        f.batch_writes = 2;
        let (_, bytes) = f.take_batch().unwrap();
        assert_eq!((bytes, &*f.delivered), (36, &[4][..]));
        assert!(f.take_batch().is_none());
        assert_eq!((f.done, &*f.delivered), (0, &[4][..]), "once");
    }

    #[test]
    fn without_a_batch_the_last_fills_the_hole() {
        let mut f = feed(&[1, 2, 3]);
        assert_eq!(f.remove_current(0), [None, Some((3, 0))]);
        assert_eq!(f.push_current(4), [Some((4, 2)), None]);
        assert_eq!(f.current, [3, 2, 4]);
    }
}
