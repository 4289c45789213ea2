//! What all channels may take together: their number, and the memory of their logs.
//!
//! If there is no room for a publisher's channel, an unpublished one is removed. If all
//! logs together hold too much, the oldest events are evicted.

use std::sync::Arc;

use super::channel_state::Kind;
use super::client::DisconnectReason;
use super::clock::Clock;
use super::dropped::Dropped;
use super::key::ChannelKey;
use super::looks::{LOOKS_MAX, Looks};
use super::names::ChannelError;
use super::options::ChannelOptions;
use super::state::{Removed, State};

/// Channels that are looked at for one that has something to evict, or that can be
/// removed.
const LOOKED_AT_MAX: usize = 64;

/// Channels that are looked at to make room for one where there are as many as there
/// may be. What is found makes room for others too.
const SWEPT_MAX: usize = 256;

/// What creates a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// A publisher, or the program itself.
    Publisher,
    /// A subscription. Its source counts the channels that it makes, if it has
    /// one.
    Subscription { source: Option<u64> },
}

// ---- memory ----

impl State {
    /// Evicts while all logs together hold more than they may, as far as `dropped`
    /// has room. What is beyond the bound still goes with the next publish, or with
    /// the next sweep. The newest event of `published` stays, whatever its size.
    ///
    /// What every connected client has been sent goes first. If that is not
    /// enough, the backlog of slow clients goes too, and they are treated by
    /// their channel's [`LagPolicy`](crate::LagPolicy).
    #[inline]
    pub(super) fn shrink(&mut self, published: Option<ChannelKey>, dropped: &mut Dropped) {
        if self.memory.excess() > 0 {
            self.evict_down(published, dropped);
        }
    }

    #[cold]
    fn evict_down(&mut self, published: Option<ChannelKey>, dropped: &mut Dropped) {
        let mut looks = Looks::new(LOOKS_MAX);
        for is_backlog in [false, true] {
            while self.memory.excess() > 0
                && dropped.room() > 0
                && let Some(key) = self.find_evictable(published, is_backlog, &mut looks)
            {
                let (before, excess) = (dropped.room(), self.memory.excess());
                if let Some(channel) = self.get_mut(key) {
                    let through = channel.evictable_through(published == Some(key), is_backlog);
                    channel.log.evict(through, excess, dropped);
                }
                self.memory.note_evicted(before - dropped.room());
                self.settle(key);
            }
        }
    }

    /// Finds the first channel that has something to evict.
    fn find_evictable(
        &self,
        published: Option<ChannelKey>,
        is_backlog: bool,
        looks: &mut Looks,
    ) -> Option<ChannelKey> {
        let slots = self.memory.in_order(is_backlog, LOOKED_AT_MAX);
        slots.take_while(|_| looks.take()).find_map(|slot| {
            let (key, channel) = self.at(slot as usize)?;
            let oldest = channel.log.oldest()?;
            let through = channel.evictable_through(published == Some(key), is_backlog);
            (oldest.sequence <= through).then_some(key)
        })
    }
}

// ---- number ----

impl State {
    /// Returns the channel of a name, made with `options` if there is none.
    /// Channels that were removed for it are added to `removed`.
    pub(super) fn find_or_insert(
        &mut self,
        name: &str,
        options: Arc<ChannelOptions>,
        maker: Maker,
        clock: &Clock,
        removed: &mut Removed,
    ) -> Result<ChannelKey, ChannelError> {
        if let Some(key) = self.find(name, maker)? {
            return Ok(key);
        }
        if let Maker::Subscription { source } = maker {
            self.unpublished.check_source(source)?;
            if self.unpublished.check().is_err() {
                self.sweep(SWEPT_MAX, clock, removed);
            }
            self.unpublished.check()?;
        }
        let max = self.settings.channels_max;
        if self.names.len() >= max {
            self.sweep(SWEPT_MAX, clock, removed);
        }
        if self.names.len() >= max && maker == Maker::Publisher {
            self.displace(removed);
        }
        if self.names.len() >= max {
            return Err(ChannelError::TooMany { max });
        }
        let now_ms = clock.now_ms();
        let key = self.insert(Kind::Named(name.into()), options, now_ms);
        self.seed(key, now_ms, &mut removed.entries);
        if let Maker::Subscription { source } = maker {
            self.unpublished.insert(key.slot);
            self.charge_source(key, source);
        }
        Ok(key)
    }

    /// Returns the channel of a name. An unpublished one that no source counts
    /// is counted for that of the subscription from now on.
    pub(super) fn find(
        &mut self,
        name: &str,
        maker: Maker,
    ) -> Result<Option<ChannelKey>, ChannelError> {
        let Some(key) = self.names.get(name).copied() else {
            return Ok(None);
        };
        let is_uncounted = |state: &State| state.get(key).is_some_and(|c| c.source.is_none());
        if let Maker::Subscription { source } = maker
            && self.unpublished.contains(key.slot)
            && is_uncounted(self)
        {
            self.unpublished.check_source(source)?;
            self.charge_source(key, source);
        }
        Ok(Some(key))
    }

    /// Removes the newest unpublished channel that the program holds no handle
    /// to. Its clients are disconnected: nothing was published that they could
    /// miss, and they come back.
    fn displace(&mut self, removed: &mut Removed) {
        let slots = self.unpublished.newest_first();
        let channels = slots.filter_map(|slot| self.at(slot as usize));
        let found = channels
            .take(LOOKED_AT_MAX)
            .find(|(_, channel)| channel.handles.strong_count() == 0)
            .map(|(key, _)| key);
        if let Some(key) = found {
            self.start_removal(key, DisconnectReason::ChannelClosed);
            self.totals.displaced += 1;
            removed.closing.push(key);
        }
    }
}
