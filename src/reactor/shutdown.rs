//! A shutdown, from its command to the last connection's end.
//!
//! | stage | what happens | until |
//! | --- | --- | --- |
//! | telling | health checks are told; all goes on | the delay is over |
//! | closing | those who wait to be accepted are, and nobody after them | nobody waits |
//! | parting | streams of channels get their moments, idle connections their last | all have |
//! | waiting | timers do the rest | nobody is left |
//! | late | who is left is disconnected | nobody is left |
//!
//! No stage holds the loop up: each connection costs the same few steps, a
//! slice of them a turn.

use std::time::Duration;

use super::http::serving::call_on_disconnect;
use super::io::connection::{Phase, State};
use super::io::net::Net;
use super::{Reactor, TICK_MS, as_ms};
use crate::exchange::{EngineThread, Shutdown};
use crate::hub::Work;
use crate::hub::client::DisconnectReason;

/// Connections that get their moment, or their end, in one turn.
const PARTINGS_A_TURN: u32 = 256;
/// For how many turns those who wait are accepted: as long as it takes for a
/// full queue of 4096, and not for ever.
const CLOSING_TURNS_MAX: u32 = 64;
/// For how long a connection without a request stays: what is under way from
/// the client arrives within that, and is answered.
const LAST_REQUEST: Duration = Duration::from_millis(200);

/// A shutdown under way.
pub(crate) struct Drain {
    pub(crate) deadline_ms: u64,
    /// What was published up to here is sent before anything ends.
    pub(crate) through: u64,
    /// When streams begin to end, and when the last of them does.
    begins_ms: u64,
    ends_ms: u64,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Telling,
    Closing { turns_left: u32 },
    Parting { next_key: u32 },
    Waiting,
    Late { next_key: u32 },
}

impl Drain {
    /// Whether new connections are taken.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Telling | Stage::Closing { .. })
    }

    /// Whether the next turn has something to do for it.
    pub(crate) fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::Telling | Stage::Waiting)
    }

    /// When it goes on by itself.
    pub(crate) fn due_ms(&self) -> u64 {
        match self.stage {
            Stage::Telling => self.begins_ms.min(self.deadline_ms),
            _ => self.deadline_ms,
        }
    }

    /// Whether connections are to end.
    fn is_parting(&self) -> bool {
        !matches!(self.stage, Stage::Telling)
    }
}

impl<N: Net> Drop for Reactor<N> {
    fn drop(&mut self) {
        if !self.connections.is_empty() || !self.departures.is_empty() {
            self.abandon();
        }
        self.tell_figures(self.hub.clock.now_us(), true);
    }
}

impl<N: Net> Reactor<N> {
    /// A second one can only be sooner.
    pub(crate) fn start_drain(&mut self, shutdown: Shutdown) {
        let now_ms = self.now_ms;
        let deadline_ms = now_ms.saturating_add(as_ms(shutdown.within));
        let begins_ms = now_ms.saturating_add(as_ms(shutdown.delay));
        let ends_ms = begins_ms.saturating_add(as_ms(shutdown.window));
        let through = self.hub.newest_sequence();
        let drain = self.drain.get_or_insert(Drain {
            deadline_ms,
            through,
            begins_ms,
            ends_ms,
            stage: Stage::Telling,
        });
        drain.deadline_ms = drain.deadline_ms.min(deadline_ms);
        drain.begins_ms = drain.begins_ms.min(begins_ms);
        if ends_ms < drain.ends_ms {
            drain.ends_ms = ends_ms;
            if matches!(drain.stage, Stage::Parting { .. } | Stage::Waiting) {
                // Whoever has a moment gets a sooner one.
                drain.stage = Stage::Parting { next_key: 0 };
            }
        }
    }

    /// Whether a shutdown has come to its end: nobody is left, and nobody has yet
    /// to be told that somebody left.
    pub(crate) fn is_over(&self) -> bool {
        let is_closed = self.drain.as_ref().is_some_and(|drain| !drain.is_open());
        is_closed
            && self.connections.is_empty()
            && self.departures.is_empty()
            && !self.hub.has_departures(self.index)
    }

    /// Whether connections without a request are to end.
    pub(crate) fn is_parting(&self) -> bool {
        self.drain.as_ref().is_some_and(Drain::is_parting)
    }

    /// How long a connection may be idle between requests.
    pub(crate) fn idle_time(&self) -> Duration {
        match self.is_parting() {
            true => self.limits.idle_timeout.min(LAST_REQUEST),
            false => self.limits.idle_timeout,
        }
    }

    /// A turn's part of the shutdown.
    pub(crate) fn drain(&mut self) {
        let now_ms = self.now_ms;
        let Some(drain) = &mut self.drain else {
            return;
        };
        let is_late = matches!(drain.stage, Stage::Late { .. });
        if drain.deadline_ms <= now_ms && !is_late {
            drain.stage = Stage::Late { next_key: 0 };
            self.net.stop_listening();
        }
        match drain.stage {
            Stage::Telling if now_ms < drain.begins_ms => {}
            Stage::Telling => {
                drain.through = self.hub.newest_sequence();
                let turns_left = CLOSING_TURNS_MAX;
                drain.stage = Stage::Closing { turns_left };
                self.acceptor.has_pending = true;
            }
            Stage::Closing { turns_left } => {
                let somebody_waits = self.acceptor.is_busy();
                let goes_on = turns_left.checked_sub(1).filter(|_| somebody_waits);
                if let Some(turns_left) = goes_on {
                    return self.set_stage(Stage::Closing { turns_left });
                }
                self.net.stop_listening();
                self.set_stage(Stage::Parting { next_key: 0 });
            }
            Stage::Parting { next_key } => {
                let (end, is_all) = self.slice_end(next_key);
                self.for_slice(next_key, end, Self::set_moment);
                self.set_stage(match is_all {
                    true => Stage::Waiting,
                    false => Stage::Parting { next_key: end },
                });
            }
            Stage::Waiting => {}
            Stage::Late { next_key } => {
                let (end, is_all) = self.slice_end(next_key);
                self.for_slice(next_key, end, Self::see_off);
                let next_key = if is_all { 0 } else { end };
                self.set_stage(Stage::Late { next_key });
            }
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(drain) = &mut self.drain {
            drain.stage = stage;
        }
    }

    /// The end of the slice that begins at a key, and whether it is the last.
    fn slice_end(&self, first: u32) -> (u32, bool) {
        let all = self.connections.keys_end();
        let end = first.saturating_add(PARTINGS_A_TURN).min(all);
        (end, end == all)
    }

    fn for_slice(&mut self, first: u32, end: u32, part: fn(&mut Self, u32)) {
        for key in first..end {
            if self.connections.contains(key) {
                part(self, key);
            }
        }
    }

    /// The loop ends with connections open: the poller has failed, or the loop
    /// has panicked. What it holds may be half changed, so it is not relied on:
    /// the hub knows the clients that it had.
    fn abandon(&mut self) {
        let _here = EngineThread::enter();
        let mut work = Work::default();
        self.hub.take_work(self.index, &mut work);
        let departures = std::mem::take(&mut self.departures);
        for departure in departures.into_iter().chain(work.departures) {
            if let Some(disconnect_call) = departure.disconnect_call {
                call_on_disconnect(disconnect_call, departure.reason);
            }
        }
        let reason = DisconnectReason::Failed;
        let hub = self.hub.clone();
        hub.leave_all(self.index, reason, |disconnect_call| {
            call_on_disconnect(disconnect_call, reason);
        });
        for key in 0..self.connections.keys_end() {
            if self.connections.contains(key)
                && let State::Stream(_) = self.connections.get(key).state
            {
                self.meters.count_end(reason);
            }
        }
    }

    /// Says when a connection ends that need not be there.
    fn set_moment(&mut self, key: u32) {
        match &self.connections.get(key).state {
            State::Stream(_) => self.draw_moment(key),
            // An overflow connection has so long as it has.
            State::Http(_) if self.is_idle(key) && self.overflow(key).is_none() => {
                let idle = self.idle_time();
                self.set_timer(key, idle);
            }
            // It ends with its answer.
            State::Http(_) => {}
        }
    }

    /// In a shutdown each stream of channels has its moment within the window.
    /// A stream for one client cannot be resumed: it ends when its sink does,
    /// at the latest at the deadline.
    pub(crate) fn draw_moment(&mut self, key: u32) {
        let Some(drain) = self.drain.as_ref().filter(|drain| drain.is_parting()) else {
            return;
        };
        if self.feeds.get(self.connections.stream(key).feed).is_private {
            return;
        }
        let left_ms = drain.ends_ms.saturating_sub(self.now_ms);
        let moment_ms = match left_ms {
            0 => 0,
            left_ms => self.hub.random_below(left_ms),
        };
        let (now, ticks) = (self.tick32(), moment_ms / TICK_MS);
        let stream = self.connections.stream_mut(key);
        let cursor = self.cursors.get(stream.cursor as usize);
        let ends_already = cursor.is_some_and(|cursor| cursor.end.is_some());
        if !ends_already {
            stream.end_in(ticks, now, DisconnectReason::Shutdown);
            self.set_stream_timer(key);
        }
    }

    /// Whether a connection speaks HTTP, and nothing is under way on it.
    pub(crate) fn is_idle(&self, key: u32) -> bool {
        match &self.connections.get(key).state {
            State::Stream(_) => false,
            State::Http(http) => {
                matches!(http.phase, Phase::Request)
                    && http.is_idle()
                    && http.unsent.is_empty()
                    && http.unread.is_empty()
            }
        }
    }
}
