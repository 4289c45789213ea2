//! Losses: which channels have the gap of a term in which the log of a cluster has lost
//! events.
//!
//! Each node that had applied what is lost says so in the log, for the channels concerned or
//! for all. The first record places the gap, and later ones find it here. It is remembered
//! beside the own ids of publishers, because it has to be known for as long, and to be in
//! snapshots.

use super::applying::{BlockTime, LostIn};
use super::for_all::Held;
use super::key::ChannelKey;
use super::remembered::{ALL, IdRecord, key_of};
use super::state::State;
use crate::journal::terms::Jump;

/// The beginning of the id under which a loss is remembered. No event has such an id: it
/// begins with a space.
const PREFIX: &str = " lost-";

/// For how long after a loss publishers may publish again what is lost, in milliseconds.
const REPUBLISHED_MS: u64 = 60_000;

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

    /// Returns whether the log has what is said to be lost. The server from before, which has
    /// it, may have come back while the loss was on its way.
    fn has_again(&self, lost: LostIn) -> bool {
        if lost.had == 0 {
            return false;
        }
        let mut jumps = self.terms.jumps();
        let is_before = |jump: &Jump| lost.had <= jump.after;
        // What is lost is behind where the term began, or the one in its place.
        if jumps
            .clone()
            .find(|jump| lost.term <= jump.first)
            .is_some_and(is_before)
        {
            return true;
        }
        let is_known = jumps.next().is_some_and(|oldest| oldest.after < lost.had);
        // No number is given twice.
        is_known && lost.had < lost.said_at && self.terms.jump_over(lost.had).is_none()
    }

    /// Notes that a channel, or each one, has the gap of a loss. Returns false if it has one
    /// already, or if nothing is lost.
    pub(super) fn note_loss(&mut self, scope: &str, lost: LostIn, time: BlockTime) -> bool {
        if self.has_again(lost) {
            return false;
        }
        let id = self.loss_id(lost.term);
        let is_known = |scope| self.remembered.known(scope, &id, time.wall_ms).is_some();
        if is_known(scope) || is_known(ALL) {
            return false;
        }
        let record = IdRecord {
            sequence: lost.said_at,
            at_ms: time.at_ms,
            digest: 0,
            is_doubtful: false,
            audience: None,
        };
        self.remembered.insert(key_of(scope, &id), record);
        true
    }

    /// Returns the number of the gap of a loss in a channel, if it has one.
    pub(super) fn gap_of(&self, scope: &str, term: u64) -> Option<u64> {
        let gaps = self.gaps_of(scope, term);
        gaps.map(|gap| gap.sequence).min()
    }

    /// Returns the gaps of a loss that a channel may have: its own, and that of all channels.
    fn gaps_of<'a>(&'a self, scope: &'a str, term: u64) -> impl Iterator<Item = &'a IdRecord> {
        let id = self.loss_id(term);
        let scopes = [scope, ALL].into_iter();
        scopes.filter_map(move |scope| self.remembered.get(scope, &id))
    }

    /// Returns whether a channel has the gap of a loss.
    pub(super) fn has_gap_of(&self, scope: &str, term: u64) -> bool {
        self.gap_of(scope, term).is_some()
    }

    /// Returns whether an own id that is published to a channel now may be that of an event which
    /// the log has lost before. A client that has seen that one may have missed what is in its
    /// place, and the gap of the loss, too.
    pub(super) fn may_be_republished(&self, scope: &str) -> bool {
        let newest = self.terms.jumps().next_back();
        let (Some(newest), Some(now_ms)) = (newest, self.remembered.log_ms()) else {
            return false;
        };
        let mut gaps = self.gaps_of(scope, newest.first);
        gaps.any(|gap| now_ms.saturating_sub(gap.at_ms) <= REPUBLISHED_MS)
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
