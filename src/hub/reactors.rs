//! The reactors, as the hub sees them: what each has to do, and whether it sleeps.
//!
//! The invariant to remember: *a reactor that has work is awake, or is woken by the
//! thread that brings the work*. Each method that brings work returns the reactors to
//! [wake](Wake) when the lock is open.

use std::collections::VecDeque;

use super::client::{ClientInfo, DisconnectHook, DisconnectReason};
use super::key::ChannelKey;

/// Maximum number of reactors that serve one hub: they are the bits of a mask.
pub(crate) const REACTORS_MAX: usize = 64;

/// A client that the hub has taken out of a channel. Its reactor has to close its
/// connection.
pub(crate) struct Departure {
    pub(crate) token: u64,
    pub(crate) reason: DisconnectReason,
    pub(crate) disconnect_call: Option<DisconnectCall>,
}

/// The call of a client's `on_disconnect`. It is passed on by value, so it is made
/// once.
pub(crate) struct DisconnectCall {
    pub(crate) info: ClientInfo,
    pub(crate) hook: DisconnectHook,
}

/// What a reactor has to do.
#[derive(Default)]
pub(crate) struct Work {
    /// Channels that have new entries for its members, and since when, in
    /// microseconds.
    pub(crate) dirty: VecDeque<(ChannelKey, u64)>,
    pub(crate) departures: VecDeque<Departure>,
    /// Channels that have other options.
    pub(crate) changed: VecDeque<ChannelKey>,
}

impl Work {
    pub(crate) fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.departures.is_empty() && self.changed.is_empty()
    }
}

/// The reactors that a locked section has found asleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a reactor that is not woken sleeps over its work"]
pub(crate) struct Wake(u64);

impl Wake {
    fn add(&mut self, reactor: usize) {
        self.0 |= 1 << reactor;
    }

    pub(super) fn merge(&mut self, other: Wake) {
        self.0 |= other.0;
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn contains(self, reactor: usize) -> bool {
        self.0 & (1 << reactor) != 0
    }
}

/// What one reactor has to do with one channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// How many of the channel's members the reactor has.
    pub(super) members: u32,
    /// The [number](ReactorState::work_number) of the last work that the channel
    /// is in as dirty; 0 is none.
    dirty_in: u64,
    /// The same for the last work that has its options.
    changed_in: u64,
    /// All of its members have been sent everything up to here.
    pub(super) sent_through: u64,
}

struct ReactorState {
    is_attached: bool,
    /// Whether it will look at its work without being woken.
    is_awake: bool,
    work: Work,
    /// Rises whenever the reactor takes its work. So the marks of all channels in
    /// that work are void at once, however many they are. It is never the same again,
    /// also not for a reactor of a later engine.
    work_number: u64,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Reactors {
    all: Vec<ReactorState>,
}

impl Reactors {
    /// Adds `count` reactors with consecutive numbers. Returns the first of these, if
    /// there is room: it is the lowest that is free.
    pub(super) fn attach(&mut self, count: usize) -> Option<u16> {
        let last = self.all.iter().map(|reactor| reactor.work_number).max();
        let work_number = last.unwrap_or(0) + 1;
        let is_taken = |number: &usize| self.all.get(*number).is_some_and(|r| r.is_attached);
        let mut first = 0;
        while let Some(taken) = (first..first + count).rev().find(is_taken) {
            first = taken + 1;
        }
        let end = first + count;
        if end > REACTORS_MAX {
            return None;
        }
        let vacant = || ReactorState {
            is_attached: false,
            is_awake: false,
            work: Work::default(),
            work_number,
        };
        if self.all.len() < end {
            self.all.resize_with(end, vacant);
        }
        for reactor in &mut self.all[first..end] {
            *reactor = ReactorState {
                is_attached: true,
                ..vacant()
            };
        }
        u16::try_from(first).ok()
    }

    /// Removes reactors, which have no members.
    pub(super) fn detach(&mut self, first: u16, count: usize) {
        let first = usize::from(first);
        for reactor in &mut self.all[first..first + count] {
            reactor.is_attached = false;
        }
    }

    /// Puts a channel on the lists of all reactors that have members of it, with the
    /// time at which it got there. `progress` is the channel's, by reactor.
    pub(super) fn mark_dirty(
        &mut self,
        key: ChannelKey,
        progress: &mut [Progress],
        now_us: u64,
    ) -> Wake {
        let mut wake = Wake::default();
        for (reactor, progress) in progress.iter_mut().enumerate() {
            // An engine that has ended may have had more reactors.
            if progress.members == 0 {
                continue;
            }
            let state = &mut self.all[reactor];
            if progress.dirty_in == state.work_number {
                continue;
            }
            progress.dirty_in = state.work_number;
            state.work.dirty.push_back((key, now_us));
            if !state.is_awake {
                state.is_awake = true;
                wake.add(reactor);
            }
        }
        wake
    }

    /// Hands a client that is no member any longer to its reactor.
    pub(super) fn depart(&mut self, reactor: u16, departure: Departure) -> Wake {
        let reactor = usize::from(reactor);
        self.all[reactor].work.departures.push_back(departure);
        self.wake(reactor)
    }

    /// Has the reactors that have members of a channel look at its options.
    pub(super) fn mark_changed(&mut self, key: ChannelKey, progress: &mut [Progress]) -> Wake {
        let mut wake = Wake::default();
        for (reactor, progress) in progress.iter_mut().enumerate() {
            if progress.members == 0 || progress.changed_in == self.all[reactor].work_number {
                continue;
            }
            progress.changed_in = self.all[reactor].work_number;
            self.all[reactor].work.changed.push_back(key);
            wake.merge(self.wake(reactor));
        }
        wake
    }

    pub(super) fn wake(&mut self, reactor: usize) -> Wake {
        let mut wake = Wake::default();
        // A thread may still hold the command queue of an engine that has ended, and
        // that had more reactors.
        let state = self.all.get_mut(reactor).filter(|state| state.is_attached);
        if state.is_some_and(|state| !std::mem::replace(&mut state.is_awake, true)) {
            wake.add(reactor);
        }
        wake
    }

    /// Swaps a reactor's work with the empty `work`. The reactor counts as awake.
    pub(super) fn take_work(&mut self, reactor: u16, work: &mut Work) {
        let state = &mut self.all[usize::from(reactor)];
        state.is_awake = true;
        state.work_number += 1;
        std::mem::swap(&mut state.work, work);
    }

    /// Returns whether there are clients that a reactor has yet to disconnect.
    pub(super) fn has_departures(&self, reactor: u16) -> bool {
        let state = &self.all[usize::from(reactor)];
        !state.work.departures.is_empty()
    }

    /// Returns whether a reactor may sleep. If so, it is woken for its next work.
    pub(super) fn may_sleep(&mut self, reactor: u16) -> bool {
        let state = &mut self.all[usize::from(reactor)];
        let has_work = !state.work.is_empty();
        state.is_awake = has_work;
        !has_work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ChannelKey = ChannelKey {
        slot: 7,
        generation: 1,
    };

    fn with_members(members: u32) -> Progress {
        Progress {
            members,
            ..Progress::default()
        }
    }

    #[test]
    fn a_channel_is_dirty_once_until_its_reactor_has_taken_the_work() {
        let (mut reactors, mut work) = (Reactors::default(), Work::default());
        reactors.attach(2).unwrap();
        assert!(reactors.may_sleep(0) && reactors.may_sleep(1));
        let mut progress = [with_members(0), with_members(2)];
        let wake = reactors.mark_dirty(KEY, &mut progress, 5);
        assert!(wake.contains(1) && !wake.contains(0));
        assert!(reactors.mark_dirty(KEY, &mut progress, 6).is_empty());
        assert!(!reactors.may_sleep(1));
        reactors.take_work(1, &mut work);
        assert_eq!(work.dirty, [(KEY, 5)]);
        // It is awake, and finds this by itself.
        assert!(reactors.mark_dirty(KEY, &mut progress, 7).is_empty());
        work.dirty.clear();
        reactors.take_work(1, &mut work);
        assert_eq!(work.dirty, [(KEY, 7)]);
        assert!(reactors.may_sleep(1));
    }

    #[test]
    fn a_channel_that_was_dirty_for_an_earlier_engine_is_dirty_for_the_next_one_too() {
        let (mut reactors, mut progress) = (Reactors::default(), [with_members(1)]);
        for _ in 0..3 {
            assert_eq!(reactors.attach(1), Some(0));
            assert!(reactors.may_sleep(0));
            assert!(reactors.mark_dirty(KEY, &mut progress, 0).contains(0));
            assert!(!reactors.may_sleep(0));
            reactors.detach(0, 1);
        }
    }

    #[test]
    fn a_reactor_is_woken_for_a_client_that_it_has_to_disconnect() {
        let mut reactors = Reactors::default();
        reactors.attach(1).unwrap();
        assert!(reactors.may_sleep(0) && !reactors.has_departures(0));
        let departure = Departure {
            token: 1,
            reason: DisconnectReason::Kicked,
            disconnect_call: None,
        };
        assert!(reactors.depart(0, departure).contains(0));
        assert!(reactors.has_departures(0) && !reactors.may_sleep(0));
    }

    #[test]
    fn other_options_are_news_for_reactors_with_members_only() {
        let mut reactors = Reactors::default();
        reactors.attach(2).unwrap();
        let mut progress = [with_members(1), with_members(0)];
        let wake = reactors.mark_changed(KEY, &mut progress);
        assert!(wake.contains(0) && !wake.contains(1));
        // However often they change: the reactor looks at them once.
        assert!(reactors.mark_changed(KEY, &mut progress).is_empty());
        let mut work = Work::default();
        reactors.take_work(0, &mut work);
        assert_eq!(work.changed, [KEY]);
        assert!(reactors.may_sleep(0));
        assert!(reactors.mark_changed(KEY, &mut progress).contains(0));
        assert!(reactors.wake(9).is_empty(), "there is no such reactor");
    }
}
