//! What all channels may take together: their number, and the memory of their
//! logs.
//!
//! **Memory.** `State::log_bytes` is the sum of what the logs hold: histories,
//! and the events that slow clients have yet to be sent. Each change of a log is
//! followed by [`State::settle`]. Beyond the bound [`State::shrink`] evicts, the oldest
//! events first of the channel that finished longest ago, then of the channel
//! that was published to longest ago.
//!
//! **Number.** A channel that a subscription made and that no publisher has
//! published to is *unpublished*. Unpublished channels have a share of their own,
//! and of that each source of requests has a part. Where there is no room for a
//! publisher's channel, an unpublished one is removed.

use std::sync::Arc;

use super::client::DisconnectReason;
use super::clock::Clock;
use super::lists::List;
use super::log::Dropped;
use super::looks::{LOOKS_MAX, Looks};
use super::manager::ChannelError;
use super::options::ChannelOptions;
use super::state::{ChannelState, Kind, Removed, Settings, State};
use super::{ChannelKey, Hub};

/// Channels that are looked at for one that has something to evict, or that can
/// be removed.
const LOOKED_AT_MAX: usize = 64;

/// How many channels are looked at to make room for one where there are as many
/// as there may be. What is found makes room for others too.
const SWEPT_MAX: usize = 256;

/// The part of all channels that a publisher's channels always have.
const RESERVED_PART: usize = 8;

/// The part of all channels that one source may have of unpublished ones.
const SOURCE_PART: usize = 16;

/// What creates a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// A publisher, or the program itself.
    Publisher,
    /// A subscription. Its source counts the channels that it makes, if it has
    /// one.
    Subscription { source: Option<u64> },
}

/// Counts of what the bounds have evicted or removed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Events that were evicted because of the bound on all logs.
    pub(crate) evicted: u64,
    /// Keys that were evicted, because of their channel's limits or the same bound.
    pub(crate) keys_evicted: u64,
    /// Unpublished channels that made room for a publisher's.
    pub(crate) displaced: u64,
}

/// What decides a channel's place in the order of eviction.
struct Counted {
    is_named: bool,
    is_empty: bool,
}

impl Hub {
    /// See [`Pressure`].
    pub(crate) fn pressure(&self) -> Pressure {
        self.lock().pressure
    }
}

// ---- memory ----

impl State {
    /// Counts what a channel's log holds now. The cost does not grow with it.
    pub(super) fn settle(&mut self, key: ChannelKey) {
        if self.count_log(key).is_some_and(|log| log.is_empty) {
            self.kept.remove(key.slot);
        }
    }

    /// Does the same after an append, which makes the channel the one that was
    /// published to last.
    pub(super) fn note_appended(&mut self, key: ChannelKey) {
        match self.count_log(key) {
            Some(log) if log.is_named && !log.is_empty => self.kept.push(List::Kept, key.slot),
            Some(_) => self.kept.remove(key.slot),
            None => {}
        }
    }

    /// Adds to the totals what has changed in a channel's log.
    #[inline]
    fn count_log(&mut self, key: ChannelKey) -> Option<Counted> {
        let channel = self.get_mut(key)?;
        let bytes = channel.log.bytes();
        let counted = Counted {
            is_named: channel.name().is_some(),
            is_empty: channel.log.is_empty(),
        };
        let before = std::mem::replace(&mut channel.counted_bytes, bytes);
        let keys_evicted = channel.newly_evicted_keys();
        self.log_bytes = self.log_bytes - before + bytes;
        self.pressure.keys_evicted += keys_evicted;
        Some(counted)
    }

    /// Puts a channel that is finished where histories are evicted first.
    pub(super) fn note_finished(&mut self, key: ChannelKey) {
        if self.kept.of(key.slot).is_some() {
            self.kept.push(List::Finished, key.slot);
        }
    }

    /// Evicts while all logs together hold more than they may, as far as `dropped`
    /// has room. What is beyond the bound still goes with the next publish, or with
    /// the next sweep. The newest event of `published` stays, whatever its size.
    ///
    /// What every connected client has been sent goes first. If that is not
    /// enough, what slow clients wait for goes too, and they are treated by
    /// their channel's [`LagPolicy`](crate::LagPolicy).
    #[inline]
    pub(super) fn shrink(&mut self, published: Option<ChannelKey>, dropped: &mut Dropped) {
        if !self.is_within_bounds() {
            self.evict_down(published, dropped);
        }
    }

    pub(super) fn is_within_bounds(&self) -> bool {
        self.log_bytes <= self.settings.log_bytes_max
    }

    #[cold]
    fn evict_down(&mut self, published: Option<ChannelKey>, dropped: &mut Dropped) {
        let mut looks = Looks::new(LOOKS_MAX);
        for is_awaited_too in [false, true] {
            while let Some(over) = self.log_bytes.checked_sub(self.settings.log_bytes_max)
                && over > 0
                && dropped.room() > 0
                && let Some(key) = self.find_evictable(published, is_awaited_too, &mut looks)
                && let Some(channel) = self.get_mut(key)
            {
                let through = channel.evictable_through(published == Some(key), is_awaited_too);
                let before = dropped.len();
                channel.log.evict(through, over, dropped);
                self.pressure.evicted += (dropped.len() - before) as u64;
                self.settle(key);
            }
        }
    }

    /// Finds the first channel that has something to evict.
    fn find_evictable(
        &self,
        published: Option<ChannelKey>,
        is_awaited_too: bool,
        looks: &mut Looks,
    ) -> Option<ChannelKey> {
        let in_order = |list| self.kept.oldest_first(list).take(LOOKED_AT_MAX);
        // The clients of a finished channel are owed all of it, so what they wait
        // for goes last.
        let [first, second] = match is_awaited_too {
            false => [List::Finished, List::Kept],
            true => [List::Kept, List::Finished],
        };
        let slots = in_order(first).chain(in_order(second));
        slots.take_while(|_| looks.take()).find_map(|slot| {
            let (key, channel) = self.at(slot as usize)?;
            let oldest = channel.log.oldest()?;
            let through = channel.evictable_through(published == Some(key), is_awaited_too);
            (oldest.sequence <= through).then_some(key)
        })
    }
}

impl ChannelState {
    /// Returns the position up to which entries may be evicted for the sake of
    /// other channels. The newest event of the channel that is published to stays.
    fn evictable_through(&self, is_published: bool, is_awaited_too: bool) -> u64 {
        let sent_through = match is_awaited_too {
            true => u64::MAX,
            false => self.needed_after(),
        };
        match is_published {
            true => sent_through.min(self.log.head().saturating_sub(1)),
            false => sent_through,
        }
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
            self.check_source(source)?;
            let max = self.settings.unpublished_max();
            let is_full = |state: &State| state.unpublished.len(List::Unpublished) >= max;
            if is_full(self) {
                self.sweep(SWEPT_MAX, clock, removed);
            }
            if is_full(self) {
                return Err(ChannelError::TooManyUnpublished { max });
            }
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
        let key = self.insert(Kind::Named(name.into()), options, clock.now_ms());
        if let Maker::Subscription { source } = maker {
            self.unpublished.push(List::Unpublished, key.slot);
            self.charge(key, source);
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
        if let Maker::Subscription { source } = maker
            && self.unpublished.of(key.slot).is_some()
            && self
                .get(key)
                .is_some_and(|channel| channel.source.is_none())
        {
            self.check_source(source)?;
            self.charge(key, source);
        }
        Ok(Some(key))
    }

    /// Notes that a publisher has published to a channel, or has finished it.
    #[inline]
    pub(super) fn note_published(&mut self, key: ChannelKey) {
        if self.unpublished.of(key.slot).is_some() {
            self.unpublished.remove(key.slot);
            self.release(key);
        }
    }

    /// Removes the newest unpublished channel that the program holds no handle
    /// to. Its clients are disconnected: nothing was published that they could
    /// miss, and they come back.
    fn displace(&mut self, removed: &mut Removed) {
        let slots = self.unpublished.newest_first(List::Unpublished);
        let channels = slots.filter_map(|slot| self.at(slot as usize));
        let found = channels
            .take(LOOKED_AT_MAX)
            .find(|(_, channel)| channel.shared.strong_count() == 0)
            .map(|(key, _)| key);
        if let Some(key) = found {
            self.start_removal(key, DisconnectReason::ChannelClosed);
            self.pressure.displaced += 1;
            removed.closing.push(key);
        }
    }

    /// # Errors
    /// When a source has as many unpublished channels as it may have.
    fn check_source(&self, source: Option<u64>) -> Result<(), ChannelError> {
        let max = self.settings.unpublished_per_source_max();
        let count = source.and_then(|source| self.sources.get(&source));
        match count {
            Some(count) if *count >= max => Err(ChannelError::TooManyOfSource { max }),
            _ => Ok(()),
        }
    }

    fn charge(&mut self, key: ChannelKey, source: Option<u64>) {
        if let (Some(source), Some(channel)) = (source, self.get_mut(key)) {
            channel.source = Some(source);
            *self.sources.entry(source).or_default() += 1;
        }
    }

    /// Counts a channel for its source no longer.
    pub(super) fn release(&mut self, key: ChannelKey) {
        let source = self.get_mut(key).and_then(|channel| channel.source.take());
        self.release_source(source);
    }

    /// Does the same for the source of a channel that was removed.
    fn release_source(&mut self, source: Option<u64>) {
        if let Some(source) = source
            && let Some(count) = self.sources.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Settings {
    /// The most unpublished channels.
    pub(super) fn unpublished_max(&self) -> usize {
        let rest = self.channels_max - self.channels_max / RESERVED_PART;
        self.unpublished_max.unwrap_or(rest)
    }

    /// The most unpublished channels of one source.
    pub(super) fn unpublished_per_source_max(&self) -> usize {
        let part = self.channels_max.div_ceil(SOURCE_PART);
        self.unpublished_per_source_max.unwrap_or(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::batch::Batch;
    use crate::hub::channel::Channel;
    use crate::hub::client::ConnectionId;
    use crate::hub::gap::GapReason;
    use crate::hub::manager::{ChannelManager, ChannelManagerBuilder};
    use crate::hub::{Join, JoinError, Joined, Read, Source, Span, Start};
    use crate::{Event, History};

    const PLACE: ConnectionId = ConnectionId {
        token: 1,
        reactor: 0,
    };

    fn builder() -> ChannelManagerBuilder {
        let history = History::events(1_000);
        ChannelManager::builder().defaults(ChannelOptions::new().history(history))
    }

    fn built(builder: ChannelManagerBuilder) -> ChannelManager {
        let manager = builder.build();
        manager.hub().attach_idle();
        manager
    }

    /// Publishes so many events of some 500 bytes.
    fn publish(channel: &Channel, events: usize) {
        for _ in 0..events {
            let event = Event::message("x".repeat(400));
            channel.broadcast(event).unwrap();
        }
    }

    fn join(channel: &Channel, start: &Start) -> Joined {
        try_join(channel, start).unwrap()
    }

    fn try_join(channel: &Channel, start: &Start) -> Result<Joined, JoinError> {
        let hub = channel.hub();
        let join = Join {
            channels: &[channel.key()],
            id: hub.new_client_id(),
            has_generated_id: true,
            connection: PLACE,
            address: "127.0.0.1:9".parse().unwrap(),
            extra: None,
            start,
        };
        hub.join(join)
    }

    fn events(channel: &Channel) -> usize {
        channel.stats().unwrap().history_events
    }

    /// The total is what the logs hold.
    fn check_total(manager: &ChannelManager) -> usize {
        let total = manager.hub().lock().log_bytes;
        assert_eq!(total as u64, manager.backlog().log_bytes);
        total
    }

    #[test]
    fn beyond_the_total_the_channel_published_to_longest_ago_loses_its_oldest_events() {
        let manager = built(builder().history_total(40_000));
        let [old, mid, new] = ["old", "mid", "new"].map(|name| manager.get_or_create(name));
        let [old, mid, new] = [old.unwrap(), mid.unwrap(), new.unwrap()];
        publish(&old, 30);
        let first = old.stats().unwrap().oldest.unwrap();
        publish(&mid, 30);
        publish(&new, 30);
        assert!((39_000..=40_000).contains(&check_total(&manager)));
        let [left, all] = [events(&old), 30];
        assert!(
            left > 0 && left < all,
            "{left} of the oldest channel's are left"
        );
        assert_eq!([events(&mid), events(&new)], [all, all]);
        // Whoever comes back to what is gone is told why.
        let joined = join(&old, &Start::After(first.to_string()));
        assert!(
            joined
                .gap
                .unwrap()
                .to_string()
                .contains("\"reason\":\"evicted\"")
        );
        // One that is published to again is not the oldest any more.
        publish(&old, 1);
        publish(&new, 10);
        assert!(events(&mid) < all && events(&old) == left + 1);
        assert!(check_total(&manager) <= 40_000);
    }

    #[test]
    fn finished_channels_lose_their_history_first() {
        let manager = built(builder().history_total(50_000));
        let [kept, finished, new] = ["kept", "finished", "new"].map(|n| manager.get_or_create(n));
        let [kept, finished, new] = [kept.unwrap(), finished.unwrap(), new.unwrap()];
        publish(&kept, 30);
        publish(&finished, 30);
        finished.finish(None).unwrap();
        publish(&new, 40);
        assert_eq!([events(&kept), events(&new)], [30, 40]);
        assert!(events(&finished) < 30);
    }

    #[test]
    fn what_a_slow_client_waits_for_is_evicted_last() {
        let manager = built(builder().history_total(50_000));
        let [slow, other] = ["slow", "other"].map(|name| manager.get_or_create(name).unwrap());
        let joined = join(&slow, &Start::Live);
        publish(&slow, 40);
        publish(&other, 80);
        assert_eq!(
            events(&slow),
            40,
            "the other one's own history went instead"
        );
        let read = |channel: &Channel| {
            let source = Source {
                channels: &[channel.key()],
                is_packed: false,
            };
            let span = Span {
                seen: joined.seen,
                through: u64::MAX,
                keyed_through: 0,
            };
            let (readers, batch) = (&joined.readers, &mut Batch::default());
            channel
                .hub()
                .read(source, readers, PLACE, span, 1 << 20, batch)
        };
        assert!(matches!(read(&slow), Read::Through(_)));
        // Nothing is left but that, and one event that is larger than all.
        let large = Event::message("x".repeat(60_000));
        other.broadcast(large).unwrap();
        assert_eq!([events(&slow), events(&other)], [0, 1]);
        let Read::Lagged(lag) = read(&slow) else {
            panic!("it has lost something");
        };
        assert_eq!(lag.gap.reason, GapReason::Slow);
    }

    #[test]
    fn a_publish_evicts_a_bounded_number_of_entries_and_the_next_ones_the_rest() {
        let history = History::events(1 << 20).bytes_max(64 << 20);
        let options = ChannelOptions::new().history(history);
        let manager = built(
            ChannelManager::builder()
                .defaults(options)
                .history_total(1 << 20),
        );
        let [small, large] = ["small", "large"].map(|name| manager.get_or_create(name).unwrap());
        while check_total(&manager) < (1 << 20) - 1_000 {
            small.broadcast(Event::message("x")).unwrap();
        }
        let before = events(&small);
        assert!(before > 3 * LOOKS_MAX, "{before}");
        let event = || Event::message("x".repeat(900_000));
        large.broadcast(event()).unwrap();
        assert_eq!(events(&small), before - LOOKS_MAX);
        manager.hub().sweep(1);
        assert_eq!(events(&small), before - 2 * LOOKS_MAX);
        while check_total(&manager) > 1 << 20 {
            manager.hub().sweep(1);
        }
        assert_eq!(events(&large), 1);
    }

    #[test]
    fn the_total_is_what_the_logs_hold_whatever_is_done() {
        let mut rng = fastrand::Rng::with_seed(11);
        let history = History::events(20);
        let options = ChannelOptions::new().history(history);
        let manager = built(
            ChannelManager::builder()
                .defaults(options)
                .history_total(20_000),
        );
        let mut places = Vec::new();
        for _ in 0..5_000 {
            let name = format!("c{}", rng.u32(0..10));
            let Ok(channel) = manager.get_or_create_for_subscriber(&name, None) else {
                continue;
            };
            match rng.u32(0..12) {
                0 => drop(channel.finish(None)),
                1 => drop(channel.close()),
                2 => {
                    // A finished channel takes no more clients.
                    if let Ok(joined) = try_join(&channel, &Start::Live) {
                        places.push((channel.key(), joined.readers[0].slot));
                    }
                }
                3 => {
                    if let Some((channel, slot)) = places.pop() {
                        let member_key = crate::hub::MemberKey { channel, slot };
                        manager
                            .hub()
                            .leave(&[member_key], PLACE, DisconnectReason::Gone);
                    }
                }
                4 => drop(manager.broadcast_all(Event::message("all"))),
                5 => manager.hub().sweep(4),
                6 => channel.set_options(ChannelOptions::new()),
                _ => {
                    let data = "x".repeat(rng.usize(0..500));
                    drop(channel.broadcast(Event::message(data)));
                }
            }
            check_total(&manager);
        }
        manager.close_all();
        let state = manager.hub().lock();
        assert_eq!(
            (state.log_bytes, state.unpublished.len(List::Unpublished)),
            (0, 0)
        );
        assert!(state.sources.is_empty());
    }

    #[test]
    fn a_restored_state_obeys_the_total() {
        let before = built(builder());
        for name in ["old", "new"] {
            publish(&before.get_or_create(name).unwrap(), 100);
        }
        let mut state = Vec::new();
        before.save(&mut state).unwrap();
        let after = builder().history_total(60_000).restore(&*state).unwrap();
        assert!(check_total(&after) <= 60_000);
        let [old, new] = ["old", "new"].map(|name| after.get(name).unwrap());
        assert_eq!(events(&new), 100);
        assert!(events(&old) < 20);
    }

    fn subscribe(manager: &ChannelManager, name: &str, source: u64) -> Result<(), ChannelError> {
        let channel = manager.get_or_create_for_subscriber(name, Some(source))?;
        join(&channel, &Start::Live);
        Ok(())
    }

    #[test]
    fn subscriptions_have_a_share_of_all_channels_and_a_source_a_part_of_it() {
        let manager = built(builder().channels_max(80));
        let too_many_of_source = Err(ChannelError::TooManyOfSource { max: 5 });
        for source in 0..14 {
            for n in 0..5 {
                assert_eq!(
                    subscribe(&manager, &format!("{source}.{n}"), source),
                    Ok(())
                );
            }
            let one_more = subscribe(&manager, &format!("{source}.5"), source);
            assert_eq!(one_more, too_many_of_source);
            // What is there it may have.
            assert_eq!(subscribe(&manager, &format!("{source}.4"), source), Ok(()));
        }
        let too_many = Err(ChannelError::TooManyUnpublished { max: 70 });
        assert_eq!(subscribe(&manager, "other", 99), too_many);
        // What is published to is a publisher's, and counts for its source no more.
        publish(&manager.get("3.3").unwrap(), 1);
        assert_eq!(subscribe(&manager, "3.5", 3), Ok(()));
        // An event for all channels says nothing of any of them.
        manager.broadcast_all(Event::message("all")).unwrap();
        assert_eq!(subscribe(&manager, "other", 99), too_many);
        assert_eq!(subscribe(&manager, "3.6", 3), too_many_of_source);
    }

    #[test]
    fn an_unpublished_channel_makes_room_for_a_publishers() {
        let manager = built(builder().channels_max(8).unpublished_channels_max(8));
        for n in 0..8 {
            assert_eq!(subscribe(&manager, &format!("s{n}"), n), Ok(()));
        }
        let published = manager.get_or_create("orders").unwrap();
        publish(&published, 1);
        assert!(!manager.has("s7") && manager.has("s6"), "the newest went");
        assert!(
            manager.hub().has_departures(0),
            "its client is disconnected"
        );
        for n in 0..7 {
            publish(&manager.get_or_create(&format!("p{n}")).unwrap(), 1);
        }
        let none = manager.get_or_create("one more").unwrap_err();
        assert_eq!(none, ChannelError::TooMany { max: 8 });
        let pressure = manager.hub().pressure();
        assert_eq!(pressure.displaced, 8);
    }

    #[test]
    fn a_channel_counts_for_its_source_while_it_has_clients() {
        let manager = built(builder().channels_max(32));
        let source = Some(7);
        let open = |name: &str| manager.get_or_create_for_subscriber(name, source);
        let [a, b] = ["a", "b"].map(|name| open(name).unwrap());
        assert_eq!(open("c").unwrap_err().code(), "too_many_channels_of_source");
        let slot = join(&a, &Start::Live).readers[0].slot;
        let member_key = crate::hub::MemberKey {
            channel: a.key(),
            slot,
        };
        manager
            .hub()
            .leave(&[member_key], PLACE, DisconnectReason::Gone);
        let _c = open("c").unwrap();
        // And again when it has some.
        assert_eq!(open("a").unwrap_err().code(), "too_many_channels_of_source");
        assert_eq!(open("b").unwrap().name(), b.name());
    }
}
