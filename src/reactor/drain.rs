//! A shutdown under way: its times and its stage.
//!
//! | stage | what happens | until |
//! | --- | --- | --- |
//! | delaying | health checks receive that it drains; all goes on | the delay is over |
//! | closing | the listen queue is accepted, and nothing after it | the queue is empty |
//! | parting | streams of channels get their moments, idle connections their last | all have |
//! | waiting | timers do the rest | no connection is left |
//! | late | connections that are left are closed | no connection is left |

use crate::exchange::Shutdown;
use crate::hub::clock::as_ms;

/// The number of turns for which the listen queue is accepted: as long as it takes
/// for a full queue of 4096, and not for ever.
const CLOSING_TURNS_MAX: u32 = 64;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Drain {
    pub(crate) deadline_ms: u64,
    /// What was published up to here is sent before anything ends.
    pub(crate) through: u64,
    /// When streams begin to end, and when the last of them does.
    pub(super) begins_ms: u64,
    pub(crate) ends_ms: u64,
    pub(super) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Delaying,
    Closing { turns_left: u32 },
    Parting { next_key: u32 },
    Waiting,
    Late { next_key: u32 },
}

impl Drain {
    /// Begins a shutdown, or hastens the one that is under way: a second one can
    /// only be sooner.
    pub(super) fn begin(drain: &mut Option<Drain>, shutdown: Shutdown, now_ms: u64, through: u64) {
        let deadline_ms = now_ms.saturating_add(as_ms(shutdown.within));
        let begins_ms = now_ms.saturating_add(as_ms(shutdown.delay));
        let ends_ms = begins_ms.saturating_add(as_ms(shutdown.window));
        let drain = drain.get_or_insert(Drain {
            deadline_ms,
            through,
            begins_ms,
            ends_ms,
            stage: Stage::Delaying,
        });
        drain.deadline_ms = drain.deadline_ms.min(deadline_ms);
        drain.begins_ms = drain.begins_ms.min(begins_ms);
        if ends_ms < drain.ends_ms {
            drain.ends_ms = ends_ms;
            if matches!(drain.stage, Stage::Parting { .. } | Stage::Waiting) {
                // Streams that have a moment get a sooner one.
                drain.stage = Stage::Parting { next_key: 0 };
            }
        }
    }

    /// Closes the listen queue: what is published from now on is not waited for.
    pub(super) fn close(&mut self, through: u64) {
        self.through = through;
        let turns_left = CLOSING_TURNS_MAX;
        self.stage = Stage::Closing { turns_left };
    }

    /// Whether connections are accepted.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Delaying | Stage::Closing { .. })
    }

    /// Whether the next turn has something to do for it.
    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::Delaying | Stage::Waiting)
    }

    /// Whether connections are to end.
    pub(crate) fn is_parting(&self) -> bool {
        !matches!(self.stage, Stage::Delaying)
    }

    /// When it goes on by itself.
    pub(super) fn due_ms(&self) -> u64 {
        match self.stage {
            Stage::Delaying => self.begins_ms.min(self.deadline_ms),
            _ => self.deadline_ms,
        }
    }
}
