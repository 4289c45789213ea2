//! Locked sections that read a log or append to it: first, the log is given the events for
//! all channels that it does not have yet.

use super::Hub;
use super::dropped::Dropped;
use super::key::ChannelKey;
use super::lock::Locked;
use super::looks::LOOKS_MAX;
use super::seeding::LOOKS_A_PLACE;
use super::state::State;

impl Hub {
    /// Returns the lock with all events for all channels placed in these.
    #[inline]
    pub(super) fn lock_served(&self, keys: &[ChannelKey]) -> Locked<'_, State> {
        let state = self.lock();
        match state.for_all.is_spreading() {
            true => self.serve(state, keys),
            false => state,
        }
    }

    /// Places the events for all channels in these, with the lock open between two steps.
    #[cold]
    pub(super) fn serve<'a>(
        &'a self,
        mut state: Locked<'a, State>,
        keys: &[ChannelKey],
    ) -> Locked<'a, State> {
        loop {
            let events = state.for_all.len_on_the_way();
            state.allow_batch(events);
            let (mut dropped, mut looks) = (Dropped::for_batch(events), 0);
            for key in keys {
                looks += LOOKS_A_PLACE * state.serve(*key, &mut dropped);
                if looks > LOOKS_MAX {
                    break;
                }
            }
            if looks == 0 {
                return state;
            }
            state.shrink(None, &mut dropped);
            drop(state);
            drop(dropped);
            self.give_way();
            state = self.lock();
        }
    }
}
