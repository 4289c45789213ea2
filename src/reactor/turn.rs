//! A turn of the loop: its time, what it has done of each kind of work, and the
//! shutdown that is under way.
//!
//! `Io` holds it, so that each part that works in the turn knows how much more it may
//! do. Nothing here does any work.

use std::time::Duration;

use super::budgets::Budgets;
use super::drain::Drain;
use super::stopwatch::Stopwatch;
use crate::hub::clock::as_ms;
use crate::limits::Limits;

/// The wheel's tick. Coarse, so that the timers of many idle clients fire
/// together in one turn, and fine enough for any interval in practice.
pub(crate) const TICK_MS: u64 = 64;

/// The time that a connection without a request stays in a shutdown: what the
/// client has sent already arrives within it, and is answered.
const LAST_REQUEST: Duration = Duration::from_millis(200);

/// See the [module](self).
pub(crate) struct Turn {
    pub(crate) budgets: Budgets,
    pub(crate) now_ms: u64,
    pub(crate) spent: Spent,
    pub(crate) drain: Option<Drain>,
    pub(crate) stopwatch: Stopwatch,
}

/// What a turn has done so far. [`Budgets`] has the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(unreachable_pub, reason = "for the simulator alone")]
pub struct Spent {
    /// Steps of connections that speak HTTP: a write of what is unsent and a read each.
    pub steps: usize,
    /// Requests answered. A page counts as several.
    pub requests: usize,
    /// Commands of other threads. An answer with a page counts as several.
    pub commands: usize,
    /// Bytes written to clients that are behind, with the least that a round
    /// counts.
    pub cursor_bytes: usize,
    /// Writes to current clients, and clients that were given a cursor or ended
    /// instead.
    pub writes: usize,
    /// Clients, feeds and channels that were looked at without a write or a read.
    pub looks: usize,
    /// Timers, with what each counts.
    pub timers: usize,
    /// Connections that speak HTTP, feeds and cursors that were taken from their
    /// queues.
    pub taken: [usize; 3],
    /// Whether these queues held any when the turn began.
    pub waited: [bool; 3],
}

impl Turn {
    pub(crate) fn new(budgets: Budgets, now_ms: u64) -> Turn {
        Turn {
            budgets,
            now_ms,
            spent: Spent::default(),
            drain: None,
            stopwatch: Stopwatch::default(),
        }
    }

    /// Begins the next turn, with all its budgets.
    ///
    /// `waited`: whether connections that speak HTTP, feeds and cursors are queued.
    pub(crate) fn begin(&mut self, now_us: u64, waited: [bool; 3]) {
        self.stopwatch.begin(now_us);
        self.now_ms = now_us / 1000;
        self.spent = Spent {
            waited,
            ..Spent::default()
        };
    }

    /// The current tick.
    pub(crate) fn tick(&self) -> u64 {
        self.now_ms / TICK_MS
    }

    /// The low half of the current tick, as connections note it.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "compared with wrapping arithmetic"
    )]
    pub(crate) fn tick32(&self) -> u32 {
        self.tick() as u32
    }

    /// The ticks until a time is over that begins now, rounded up.
    pub(crate) fn ticks_in(&self, ms: u64) -> u64 {
        self.now_ms.saturating_add(ms).div_ceil(TICK_MS) - self.tick()
    }

    /// When a time is over that begins now.
    pub(crate) fn due_ms(&self, time: Duration) -> u64 {
        self.now_ms.saturating_add(as_ms(time))
    }

    /// Whether there is budget for another connection that speaks HTTP.
    pub(crate) fn may_serve(&self) -> bool {
        self.spent.steps < self.budgets.steps_a_turn && self.may_answer()
    }

    /// Whether there is budget for another request.
    pub(crate) fn may_answer(&self) -> bool {
        self.spent.requests < self.budgets.requests_a_turn
    }

    /// The requests answered beyond the budget.
    pub(crate) fn requests_beyond(&self) -> usize {
        let requests = self.spent.requests;
        requests.saturating_sub(self.budgets.requests_a_turn)
    }

    /// Whether there is budget for another write to current clients.
    pub(crate) fn may_write(&self) -> bool {
        self.spent.writes < self.budgets.writes_a_turn
    }

    /// Whether there is budget for another timer.
    pub(crate) fn may_fire(&self) -> bool {
        self.spent.timers < self.budgets.timers_a_turn
    }

    /// Whether there is budget for another client that is behind.
    pub(crate) fn may_read(&self) -> bool {
        self.spent.cursor_bytes < self.budgets.cursor_bytes_a_turn
    }

    /// Whether a shutdown has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether connections are accepted.
    pub(crate) fn is_open(&self) -> bool {
        self.drain.as_ref().is_none_or(Drain::is_open)
    }

    /// Whether connections without a request are to end.
    pub(crate) fn is_parting(&self) -> bool {
        self.drain.as_ref().is_some_and(Drain::is_parting)
    }

    /// The time that a connection may be idle between requests.
    pub(crate) fn idle_time(&self, limits: &Limits) -> Duration {
        match self.is_parting() {
            true => limits.idle_timeout.min(LAST_REQUEST),
            false => limits.idle_timeout,
        }
    }
}
