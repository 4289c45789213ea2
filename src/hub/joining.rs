//! Joining: from a request to a member of its channels.

use super::Hub;
use super::beginning::Beginning;
use super::channel_state::Kind;
use super::client::{DisconnectReason, Member};
use super::clock::Clock;
use super::join::{Join, JoinError, Joined, LAST_MAX, Start};
use super::merge;
use super::merged::Merged;
use super::state::{Removed, State};

impl Hub {
    /// Makes a client a member of all the channels at once, so that it sees
    /// a consistent cut of them.
    pub(crate) fn join(&self, join: Join<'_>) -> Result<Joined, JoinError> {
        let before_last = self.position_before_last(&join);
        let now_ms = self.clock.now_ms();
        let mut state = self.lock_served(join.channels);
        let beginning = Beginning::new(&state, &join, &self.ids);
        let mut joined = beginning.find(before_last)?;
        let (now, mut removed) = ((now_ms, &self.clock), Removed::new());
        add_member(&mut state, join, &mut joined, now, &mut removed);
        drop(state);
        self.finish_removals(removed);
        Ok(joined)
    }

    /// Returns where a client would begin, without making it a member.
    pub(crate) fn could_join(&self, join: &Join<'_>) -> Result<Joined, JoinError> {
        let before_last = self.position_before_last(join);
        Beginning::new(&self.lock_served(join.channels), join, &self.ids).find(before_last)
    }

    /// Returns where a reader begins that is not a client.
    pub(super) fn start_of(&self, join: &Join<'_>) -> Joined {
        let before_last = self.position_before_last(join);
        Beginning::new(&self.lock_served(join.channels), join, &self.ids).joined(before_last)
    }

    /// Finds the position before the last events that a client asks for, with the
    /// lock open between two steps. The client is sent what is published meanwhile
    /// too.
    fn position_before_last(&self, join: &Join<'_>) -> Option<u64> {
        let Start::Last(count) = join.start else {
            return None;
        };
        let mut look_back = merge::LookBack::new((*count).min(LAST_MAX));
        loop {
            let state = self.lock_served(join.channels);
            let merged = Merged::new(&state, join.channels);
            let has_more = look_back.step(merged.logs(), |entry| join.admits(entry));
            let newest = merged.now();
            drop(state);
            if !has_more {
                return look_back.position().or(Some(newest));
            }
            self.give_way();
        }
    }
}

/// Makes the client a member everywhere. A member with the same id is disconnected.
fn add_member(
    state: &mut State,
    mut join: Join<'_>,
    joined: &mut Joined,
    now: (u64, &Clock),
    removed: &mut Removed,
) {
    let gaps = u64::from(joined.gap.is_some());
    state.totals.gaps += gaps;
    for (index, (key, reader)) in join.channels.iter().zip(&mut joined.readers).enumerate() {
        let reason = DisconnectReason::Replaced;
        // A channel that can be joined is not removed with its last member.
        state.disconnect(*key, &join.id, reason, now, removed);
        let mut member = Member::new(
            join.id.clone(),
            join.connection,
            join.address,
            now.0,
            join.extra_of_next(),
        );
        member.has_generated_id = join.has_generated_id;
        member.is_first = index == 0;
        let Some(channel) = state.get_mut(*key) else {
            continue;
        };
        channel.streams += usize::from(member.is_first);
        reader.slot = channel.members.insert(member);
        channel.counts.gaps += gaps;
        let is_named = matches!(channel.kind, Kind::Named(_));
        let progress = channel.progress_mut(join.connection.reactor);
        progress.sent_through = match progress.members {
            0 => joined.seen,
            _ => progress.sent_through.min(joined.seen),
        };
        progress.members += 1;
        state.clients += usize::from(is_named);
    }
}
