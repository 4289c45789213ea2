//! Removing: channels, their clients, and what logs need not keep any longer.
//!
//! What is large is removed in steps, with the lock open between them, and dropped when
//! the lock is open.

use super::Hub;
use super::channel_state::ChannelState;
use super::client::{ClientId, ConnectionId, DisconnectReason};
use super::dropped::Dropped;
use super::key::{ChannelKey, MemberKey};
use super::lock::Locked;
use super::looks::LOOKS_MAX;
use super::reactors::DisconnectCall;
use super::state::{Removed, State, drop_channels};

impl Hub {
    /// Removes a channel and disconnects its clients. Returns their number, if the channel
    /// was there.
    pub(crate) fn remove(&self, key: ChannelKey, reason: DisconnectReason) -> Option<usize> {
        self.remove_if(key, reason, |_| true)
    }

    /// Does the same if the channel meets a condition at that moment.
    pub(super) fn remove_if(
        &self,
        key: ChannelKey,
        reason: DisconnectReason,
        condition: impl FnOnce(&ChannelState) -> bool,
    ) -> Option<usize> {
        let mut state = self.lock();
        let is_there = |channel: &&ChannelState| !channel.life.is_closing();
        let channel = state.get(key).filter(is_there);
        let channel = channel.filter(|channel| condition(channel))?;
        let clients = channel.members.len();
        state.start_removal(key, reason);
        self.finish_removal(state, key, reason);
        Some(clients)
    }

    /// Disconnects the clients of a channel whose removal has begun, some of them
    /// under each lock, the first ones under that of `state`. Then removes it.
    pub(super) fn finish_removal<'a>(
        &'a self,
        mut state: Locked<'a, State>,
        key: ChannelKey,
        reason: DisconnectReason,
    ) {
        let (mut next, now_ms) = (0, self.clock.now_ms());
        loop {
            let mut removed = Removed::new();
            let now = (now_ms, &self.clock);
            let slot = state.disconnect_some(key, next, reason, now, &mut removed);
            drop(state);
            self.finish_removals(removed);
            match slot {
                Some(slot) => next = slot,
                None => return,
            }
            self.give_way();
            state = self.lock();
        }
    }

    /// Disconnects one client of a channel. Returns whether it was there.
    pub(crate) fn disconnect(
        &self,
        key: ChannelKey,
        id: &ClientId,
        reason: DisconnectReason,
    ) -> bool {
        let now_ms = self.clock.now_ms();
        let mut removed = Removed::new();
        let now = (now_ms, &self.clock);
        let mut state = self.lock();
        let is_there = state.disconnect(key, id, reason, now, &mut removed);
        drop(state);
        if is_there {
            self.finish_removals(removed);
            self.finish_trims(key, now_ms);
        }
        is_there
    }

    /// Takes a client out of its channels, unless that was done already. Returns the call
    /// of its hook, if it has one.
    pub(crate) fn leave(
        &self,
        member_keys: &[MemberKey],
        connection: ConnectionId,
        reason: DisconnectReason,
    ) -> Option<DisconnectCall> {
        let now_ms = self.clock.now_ms();
        let (mut disconnect_call, mut removed) = (None, Removed::new());
        let mut state = self.lock();
        for MemberKey { channel: key, slot } in member_keys {
            let member = state
                .get(*key)
                .and_then(|channel| channel.members.get(*slot));
            if member.is_none_or(|member| member.connection() != connection) {
                continue;
            }
            if let Some((left, channel)) =
                state.remove_member(*key, *slot, reason, (now_ms, &self.clock))
            {
                removed.channels.extend(channel);
                disconnect_call = disconnect_call.or(removed.keep(left));
                // The next report, or a sweep, evicts what there is no room for here.
                state.trim(*key, now_ms, &mut removed.entries);
            }
        }
        drop(state);
        self.finish_removals(removed);
        disconnect_call
    }

    /// Takes all clients of a reactor out of their channels, and calls
    /// `call` with the hooks of those that have one, with nothing locked.
    pub(crate) fn leave_all(
        &self,
        reactor: u16,
        reason: DisconnectReason,
        mut call: impl FnMut(DisconnectCall),
    ) {
        let mut next = (0, 0);
        loop {
            let now_ms = self.clock.now_ms();
            let (mut disconnect_calls, mut removed) = (Vec::new(), Removed::new());
            let mut looks = 0;
            let mut state = self.lock();
            for _ in 0..LOOKS_MAX {
                if removed.entries.room() == 0 || looks >= LOOKS_MAX {
                    break;
                }
                let (slot, member_slot) = next;
                let Some((key, channel)) = state.at(slot) else {
                    next = (slot + 1, 0);
                    continue;
                };
                if channel.members_of(reactor) == 0 || member_slot >= channel.members.slots_end() {
                    next = (slot + 1, 0);
                    continue;
                }
                next = (slot, member_slot + 1);
                let member = channel.members.get(member_slot);
                if member.is_some_and(|member| member.reactor == reactor)
                    && let Some((left, channel)) =
                        state.remove_member(key, member_slot, reason, (now_ms, &self.clock))
                {
                    looks += left.looks;
                    disconnect_calls.extend(removed.keep(left));
                    removed.channels.extend(channel);
                    // The next sweep evicts what there is no room for here.
                    state.trim(key, now_ms, &mut removed.entries);
                }
            }
            let is_done = next.0 >= state.slots_end();
            drop(state);
            self.finish_removals(removed);
            disconnect_calls.into_iter().for_each(&mut call);
            if is_done {
                return;
            }
            self.give_way();
        }
    }

    /// Returns the number of channels of any kind.
    #[cfg(feature = "internals")]
    pub(crate) fn channels_held(&self) -> usize {
        let mut count = 0;
        self.for_each_channel(|_, _| count += 1);
        count
    }

    /// Returns the number of channels that a whole sweep looks at.
    pub(crate) fn channels_capacity(&self) -> usize {
        self.lock().slots_end()
    }

    /// Cleans up to `count` channels. Returns how many are left: a channel that has much
    /// to evict needs several calls.
    pub(crate) fn sweep(&self, count: usize) -> usize {
        let mut removed = Removed::new();
        let mut state = self.lock();
        let left = count.min(state.slots_end());
        let left = state.sweep(left, &self.clock, &mut removed);
        state
            .for_all
            .trim(self.clock.now_ms(), &mut removed.entries);
        state.shrink(None, &mut removed.entries);
        drop(state);
        self.finish_removals(removed);
        left
    }

    /// Goes on with what a locked section has begun to remove, and drops what it has
    /// taken out.
    pub(super) fn finish_removals(&self, removed: Removed) {
        self.wake(removed.wake);
        drop_channels(removed.channels);
        for key in removed.closing {
            self.finish_removal(self.lock(), key, DisconnectReason::ChannelClosed);
        }
    }

    /// Evicts what a channel need not keep any longer, with the lock open between two
    /// steps.
    pub(super) fn finish_trims(&self, key: ChannelKey, now_ms: u64) {
        while {
            self.give_way();
            let mut dropped = Dropped::new();
            self.lock().trim(key, now_ms, &mut dropped)
        } {}
    }
}
