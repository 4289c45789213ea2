//! Finding the channel of a record of the log, which may have to be made or ended first.

use std::sync::Arc;

use super::Hub;
use super::applying::{Found, Lacks, Options, Step, finish_of};
use super::channel_state::{Kind, Life};
use super::client::DisconnectReason;
use super::state::{Removed, State};
use crate::journal::record::Change;

impl Hub {
    /// Finds the channel of a record. One that is not there is made, whatever the limits
    /// are.
    pub(super) fn find_for(
        &self,
        state: &mut State,
        name: &Arc<str>,
        step: &Step,
        now_us: u64,
        options: &mut Options,
        removed: &mut Removed,
    ) -> Result<Found, Lacks> {
        let now_ms = now_us / 1000;
        loop {
            if step.is_after_finish(state, name) {
                return Ok(Found::Finished);
            }
            // A publish makes a channel where there is none, so it is for any of the name.
            let is_end = matches!(step.change, Change::Finish { .. });
            if is_end && step.is_for_removed(state, name) {
                return Ok(Found::Removed);
            }
            state.finishes.end(name, step.number);
            let key = state.names.get(name).copied();
            let channel = key.and_then(|key| state.get(key));
            let is_applied = match channel {
                Some(channel) => step.last <= channel.through(),
                None => state.heads.is_over(name, step.last),
            };
            if is_applied {
                // Records behind it may have been proposed before it. They are decided by it,
                // also if the channel has been removed since.
                if finish_of(&step.change).is_some() {
                    match state.finishes.is_refused(step.last) {
                        true => state.finishes.note_refused(step.last),
                        false => state.finishes.insert(name.clone(), step.last),
                    }
                }
                return Ok(Found::Applied);
            }
            let key = match key {
                Some(key) => key,
                None => {
                    let found = options.found.get(name);
                    let found = found.ok_or_else(|| Lacks::Options(name.clone()))?;
                    let key = state.insert(Kind::Named(name.clone()), found.clone(), now_ms);
                    state.seed(key, now_ms, &mut removed.entries);
                    if let Some(after) = step.makes_after(state, name) {
                        state.note_began(key, after);
                    }
                    options.made.push((name.clone(), key));
                    key
                }
            };
            let channel = state.get(key).expect("names lead to channels");
            if step.last <= channel.through() {
                return Ok(Found::Applied);
            }
            match channel.life {
                Life::Open => return Ok(Found::Open(key)),
                // It was proposed with the knowledge that the channel's time is over.
                Life::Finishing(_) => {
                    let wake =
                        state.end_finishing(key, (now_ms, &self.clock), &mut removed.entries);
                    removed.wake.merge(wake);
                    if state
                        .get(key)
                        .is_some_and(|channel| channel.members.is_empty())
                    {
                        let channel = state.remove_empty(key, DisconnectReason::ChannelClosed);
                        removed.channels.extend(channel);
                    }
                }
                Life::Over { .. } | Life::Closing => state.free_name(key),
            }
        }
    }
}
