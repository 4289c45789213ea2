//! Losses: which channels have the gap of a term in which the log of a cluster has lost
//! events.
//!
//! Each node that had applied what is lost says so in the log, for the channels concerned or
//! for all. The first record places the gap, and later ones find it here. It is remembered
//! beside the own ids of publishers, because it has to be known for as long, and to be in
//! snapshots.

use super::applying::BlockTime;
use super::for_all::Held;
use super::key::ChannelKey;
use super::remembered::{ALL, IdRecord, key_of};
use super::state::State;

/// The beginning of the id under which a loss is remembered. No event has such an id: it
/// begins with a space.
const PREFIX: &str = " lost-";

/// Returns the term of a loss from the id under which it is remembered.
pub(super) fn term_of(id: &str) -> Option<u64> {
    id.strip_prefix(PREFIX)?.parse().ok()
}

impl State {
    /// Returns the id under which the loss of a term is remembered. A term that itself is left
    /// out has had no block, and its loss is that of the next one.
    fn loss_id(&self, term: u64) -> String {
        let first = self.terms.jump_over(term).map_or(term, |jump| jump.first);
        format!("{PREFIX}{first}")
    }

    /// Notes that a channel, or each one, has the gap of a loss from this number on. Returns
    /// false if it has one already.
    pub(super) fn note_loss(
        &mut self,
        scope: &str,
        term: u64,
        number: u64,
        time: BlockTime,
    ) -> bool {
        let id = self.loss_id(term);
        let is_known = |scope| self.remembered.known(scope, &id, time.wall_ms).is_some();
        if is_known(scope) || is_known(ALL) {
            return false;
        }
        let record = IdRecord {
            sequence: number,
            at_ms: time.at_ms,
            digest: 0,
            is_doubtful: false,
            audience: None,
        };
        self.remembered.insert(key_of(scope, &id), record);
        true
    }

    /// Returns whether a channel has the gap of a loss.
    pub(super) fn has_gap_of(&self, scope: &str, term: u64) -> bool {
        let id = self.loss_id(term);
        let has = |scope| self.remembered.get(scope, &id).is_some();
        has(scope) || has(ALL)
    }

    /// Returns whether a channel has had the gap of a loss when this one was placed in all.
    pub(super) fn has_earlier_gap(&self, key: ChannelKey, held: &Held) -> bool {
        let Some((term, channel)) = held.lost_in.zip(self.get(key)) else {
            return false;
        };
        self.remembered
            .get(channel.scope(), &self.loss_id(term))
            .is_some_and(|record| record.sequence < held.entry.sequence)
    }
}
