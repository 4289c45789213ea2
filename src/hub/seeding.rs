//! The events for all channels, placed in one of them.

use super::channel_state::Kind;
use super::dropped::Dropped;
use super::for_all::Held;
use super::key::ChannelKey;
use super::log::Log;
use super::state::State;

/// The number of looks that cost as much as to place an entry.
pub(super) const LOOKS_A_PLACE: usize = 4;

impl State {
    /// Places the events for all channels that a channel does not have yet. Returns their
    /// number.
    pub(super) fn serve(&mut self, key: ChannelKey, dropped: &mut Dropped) -> usize {
        let channel = self.get(key);
        let open = channel.filter(|c| c.life.is_open() && matches!(c.kind, Kind::Named(_)));
        let Some(channel) = open else {
            return 0;
        };
        let missing = self.for_all.missing(channel.log.head());
        for held in &missing {
            self.put(key, held, held.entry.at_ms, dropped);
        }
        if let Some(channel) = self.get_mut(key) {
            channel.counts.published += missing.len() as u64;
        }
        missing.len()
    }

    /// Has a channel that was just made begin with the events for all channels that are
    /// newer than its past.
    pub(super) fn seed(&mut self, key: ChannelKey, now_ms: u64, dropped: &mut Dropped) {
        self.for_all.trim(now_ms, dropped);
        let (head, evicted_through) = (self.for_all.head(), self.for_all.evicted_through());
        let Some(channel) = self.get_mut(key).filter(|c| c.log.head() < head) else {
            return;
        };
        let past = channel.log.head().max(evicted_through);
        let began_after = channel.log.began_after();
        let is_trimmed = channel.log.is_trimmed();
        channel.log = Log::new(past);
        if is_trimmed {
            self.note_began(key, began_after);
        }
        let missing: Vec<Held> = self.for_all.after(past).cloned().collect();
        dropped.spend(missing.len());
        for held in &missing {
            self.put(key, held, now_ms, dropped);
        }
    }

    /// Places an event in a channel, in its form for the channel.
    pub(super) fn put(&mut self, key: ChannelKey, held: &Held, now_ms: u64, dropped: &mut Dropped) {
        let has_gap = held.lost_in.is_some() && self.has_earlier_gap(key, held);
        let Some(channel) = self.get_mut(key) else {
            return;
        };
        if has_gap {
            return channel.log.note_head(held.entry.sequence);
        }
        if let Some(removed) = held.removed_key(&channel.options) {
            let audience = held.entry.audience().cloned();
            channel.log.remove_key(removed.clone(), audience, dropped);
        }
        let entry = held.entry_for(&channel.options);
        channel.log.append(entry, dropped);
        channel.trim(now_ms, dropped);
        self.note_appended(key);
    }
}
