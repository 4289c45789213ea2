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
    pub(super) fn position_before_last(&self, join: &Join<'_>) -> Option<u64> {
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
pub(super) fn add_member(
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::client::ClientId;
    use crate::hub::id::Epoch;
    use crate::hub::ids::Ids;
    use crate::hub::numbering::Numbering;
    use crate::hub::options::ChannelOptions;
    use crate::hub::state::Settings;

    #[test]
    fn a_client_is_a_member_of_all_its_channels_and_replaces_the_one_of_its_id() {
        let ids = Ids::new(Epoch::from_random(7), Numbering::new(None));
        let (mut state, clock) = (State::new(Settings::default()), Clock::system());
        state.reactors.attach(1).unwrap();
        let channels = ["a", "b"].map(|name| {
            let options = Arc::new(ChannelOptions::new().max_clients(1));
            state.insert(Kind::Named(name.into()), options, 0)
        });
        let mut join = |token: u64, name: &str, channels: &[_]| {
            let join = Join {
                id: ClientId::new(name).unwrap(),
                ..Join::of(channels, token, &Start::Live)
            };
            let mut joined = Beginning::new(&state, &join, &ids).find(None)?;
            let mut removed = Removed::new();
            add_member(&mut state, join, &mut joined, (5, &clock), &mut removed);
            Ok((joined.readers.len(), state.clients))
        };
        assert_eq!(join(1, "ann", &channels), Ok((2, 2)));
        assert_eq!(join(2, "bob", &channels[1..]), Err(JoinError::Full));
        // Ann's second connection takes the place of her first one.
        assert_eq!(join(3, "ann", &channels[1..]), Ok((1, 2)));
        let member = |key| state.get(key).unwrap().members.range(0, 9).next();
        let tokens = channels.map(|key| member(key).map(|member| member.token));
        assert_eq!(tokens, [Some(1), Some(3)]);
        assert!(state.reactors.has_departures(0));
    }
}
