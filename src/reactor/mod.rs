//! The one thread: a loop over connections, feeds and timers.
//!
//! A turn polls the network, serves what is ready, takes the hub's work,
//! pumps feeds, resumes cursors and fires timers. Each part has a budget and
//! a queue for what the budget leaves over, so no client, channel or request
//! holds up another for more than a slice. The reactor has no lock of its
//! own, and blocks on nothing but the poll.
//!
//! Three owners do the work. They know each other in one direction, and what one
//! has for another passes through the turn:
//!
//! | part | owns |
//! | --- | --- |
//! | `io` | sockets and timers: the network, connections, the wheel, the acceptor; and the turn |
//! | `streams` | from logs to sockets: feeds, cursors, how streams begin and end |
//! | `http` | from bytes to responses: requests, handlers, the opening of streams |
//! | `turn` | the time, the budgets and the shutdown; `io` has it, so all of them do |
//!
//! `drain` and `shutdown` end the loop; `budgets` and `stopwatch` say what a turn may
//! do and how long it took.

mod budgets;
mod drain;
mod guard;
mod http;
pub(crate) mod io;
mod pressure;
mod retry;
mod shutdown;
mod stopwatch;
mod streams;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::exchange::{Command, CommandQueue, InFlight};
use crate::http::Headers;
use crate::hub::client::DisconnectReason;
use crate::hub::engine_thread::EngineThread;
use crate::hub::held_wakes::{self, HeldWakes, Kind};
use crate::hub::manager::ChannelManager;
use crate::hub::{Attachment, Departure, Hub, Work};
use crate::limits::Limits;
use crate::proxies::Proxies;
pub use budgets::Budgets;
use drain::Drain;
use guard::{call_on_disconnect, guard};
use http::Http;
pub(crate) use http::Service;
use io::Io;
#[cfg(target_os = "linux")]
pub(crate) use io::batch;
pub(crate) use io::counts::ConnectionCounts;
use io::net::{LISTENER, Net, Readiness};
pub(crate) use io::{net, sockets};
use pressure::PressureLog;
use streams::Streams;
use streams::opening::Opening;
#[cfg(feature = "internals")]
pub use turn::Spent;
use turn::Turn;

/// The time between two sweeps of the channels for entries that are too old.
const SWEEP_MS: u64 = 1000;
/// The channels that one lock of the hub sweeps.
const SWEEP_SLICE: usize = 256;

/// Departures for which memory is kept after a burst.
const DEPARTURES_KEPT: usize = 1024;

/// What a reactor is made with.
pub(crate) struct Setup {
    pub(crate) index: u16,
    /// All of the engine's reactors hold it.
    pub(crate) attachment: Arc<Attachment>,
    pub(crate) channels: ChannelManager,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) limits: Limits,
    /// These two count for all of the engine's reactors.
    pub(crate) counts: Arc<ConnectionCounts>,
    pub(crate) in_flight: InFlight,
    pub(crate) budgets: Budgets,
    /// On every response.
    pub(crate) headers: Headers,
    pub(crate) proxies: Proxies,
}

/// See the [module](self).
pub(crate) struct Reactor<N: Net> {
    hub: Arc<Hub>,
    /// Whether it sweeps the channels: the first reactor of each engine and mount does.
    sweeps: bool,
    io: Io<N>,
    streams: Streams,
    http: Http,
    commands: Receiver<Command>,
    ready: Vec<Readiness>,
    work: Work,
    /// Clients that the hub has sent away, whose connections are to end.
    departures: VecDeque<Departure>,
    swept_at_ms: u64,
    /// The channels that the sweep has yet to look at.
    sweep_left: usize,
    pressure: PressureLog,
}

impl<N: Net> Reactor<N> {
    pub(crate) fn new(net: N, setup: Setup) -> Reactor<N> {
        let hub = setup.channels.hub().clone();
        let (command_queue, commands) = CommandQueue::new(&setup.attachment, setup.index);
        let now_ms = hub.clock.now_ms();
        let meters = setup.attachment.engine().meters(setup.index).clone();
        let turn = Turn::new(setup.budgets, now_ms);
        let sweeps = setup.index == setup.attachment.engine().first;
        Reactor {
            io: Io::new(net, setup.index, setup.limits, meters, setup.counts, turn),
            streams: Streams::new(hub.clone()),
            http: Http::new(
                setup.service,
                setup.channels,
                setup.attachment,
                setup.in_flight,
                setup.headers,
                setup.proxies,
                command_queue,
            ),
            hub,
            sweeps,
            commands,
            ready: Vec::new(),
            work: Work::default(),
            departures: VecDeque::new(),
            swept_at_ms: now_ms,
            sweep_left: 0,
            pressure: PressureLog::default(),
        }
    }

    /// How other threads reach this reactor.
    pub(crate) fn command_queue(&self) -> &CommandQueue {
        self.http.command_queue()
    }

    /// The network, for a simulator to act on.
    #[cfg(feature = "internals")]
    pub(crate) fn net_mut(&mut self) -> &mut N {
        self.io.net_mut()
    }

    /// What the reactor holds, to be checked by a simulator: connections,
    /// feeds, cursors, readers, timers; connections and addresses that count,
    /// and overflow connections.
    #[cfg(feature = "internals")]
    pub(crate) fn holdings(&self) -> [usize; 8] {
        let [feeds, cursors, readers] = self.streams.holdings();
        let [counted, networks, overflows] = self.io.acceptor.holdings();
        let (connections, timers) = (self.io.connections.len(), self.io.timers());
        [
            connections,
            feeds,
            cursors,
            readers,
            timers,
            counted,
            networks,
            overflows,
        ]
    }

    /// What the last turn has done, to be checked by a simulator.
    #[cfg(feature = "internals")]
    pub(crate) fn spent(&self) -> Spent {
        self.io.turn.spent
    }

    /// Turns until it is shut down.
    ///
    /// # Errors
    /// When the network fails as a whole.
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        let _here = EngineThread::enter();
        let _held = HeldWakes::begin(&[Kind::Journal]);
        while !self.is_over() {
            self.turn()?;
            held_wakes::release();
        }
        Ok(())
    }

    /// Whether a shutdown has come to its end: no connection is left, and every
    /// `on_disconnect` was called.
    pub(crate) fn is_over(&self) -> bool {
        let drain = self.io.turn.drain.as_ref();
        drain.is_some_and(|drain| !drain.is_open())
            && self.io.connections.is_empty()
            && self.departures.is_empty()
            && self.work.departures.is_empty()
            && !self.hub.has_departures(self.io.index)
    }

    /// Polls once, and does what there is to do.
    pub(crate) fn turn(&mut self) -> std::io::Result<()> {
        let timeout = self.sleep_time();
        let mut ready = std::mem::take(&mut self.ready);
        self.io.poll(&mut ready, timeout)?;
        let now_us = self.hub.clock.now_us();
        if self.io.turn.stopwatch.is_running() {
            // There was no sleep: one turn ends where the next one begins.
            self.publish_figures(now_us, false);
        }
        let [feeds, cursors] = self.streams.has_queued();
        let waited = [self.http.has_queued(), feeds, cursors];
        self.io.turn.begin(now_us, waited);
        for readiness in ready.drain(..) {
            self.on_ready(readiness);
            held_wakes::release_many();
        }
        self.ready = ready;

        self.http.accept(&mut self.io);
        self.serve_exchanges();
        self.run_commands();
        // What these requests publish is on its way to clients in this turn.
        self.serve_queued();
        if held_wakes::release() {
            // The journal may have the answers to these requests already.
            self.run_commands();
        }
        self.take_work();
        self.disconnect_departed();
        self.streams.release_paced(&self.io.turn);
        self.streams.pump(&mut self.io);
        self.streams.run_cursors(&mut self.io);
        self.fire_timers();
        self.sweep();
        shutdown::advance(&mut self.io, &mut self.streams, &self.hub);
        let is_idle = self.streams.is_idle() && !self.http.has_queued();
        self.streams.report(&mut self.io, is_idle);
        Ok(())
    }

    /// How long the next poll may sleep: not at all while there is work.
    fn sleep_time(&mut self) -> Option<Duration> {
        let drain = self.io.turn.drain.as_ref();
        let is_busy = !self.streams.is_idle()
            || self.streams.has_reports()
            || self.http.has_queued()
            || !self.departures.is_empty()
            || self.sweep_left > 0
            || !self.work.is_empty()
            || drain.is_some_and(Drain::is_busy)
            || (self.io.acceptor.is_busy() && self.io.turn.is_open());
        let drain_ms = drain.map(Drain::due_ms);
        // The command queue is looked at after the hub has noted the sleep: a thread
        // that writes a command in between wakes the loop.
        if is_busy || !self.hub.may_sleep(self.io.index) || !self.commands.is_empty() {
            return Some(Duration::ZERO);
        }
        let now_us = self.hub.clock.now_us();
        self.publish_figures(now_us, true);
        let sweep_ms = self.sweeps.then_some(self.swept_at_ms + SWEEP_MS);
        let due_ms = [
            self.io.next_timer_ms(),
            sweep_ms,
            drain_ms,
            self.streams.next_paced_ms(),
            self.io.acceptor.paused_until_ms,
        ];
        let due_ms = due_ms.into_iter().flatten().min()?;
        Some(Duration::from_millis(due_ms.saturating_sub(now_us / 1000)))
    }

    /// Ends what was measured of the turn before, and lets other threads read it.
    fn publish_figures(&mut self, now_us: u64, sleeps: bool) {
        let stopwatch = &mut self.io.turn.stopwatch;
        stopwatch.end(now_us, &self.io.meters);
        if stopwatch.is_due(sleeps) {
            self.io.publish_traffic();
            let behind = self.streams.behind() as u64;
            self.io.meters.clients_behind.set(behind);
        }
    }

    fn on_ready(&mut self, readiness: Readiness) {
        if readiness.token == LISTENER {
            self.io.acceptor.has_pending = true;
            return;
        }
        let Some(key) = self.io.connections.find(readiness.token) else {
            return;
        };
        let stream = self.io.connections.as_stream(key);
        if readiness.is_writable {
            match stream {
                Some(stream) => self.streams.queue_cursor(&self.io, stream),
                None => self.http.on_writable(&mut self.io, key),
            }
        }
        if readiness.is_readable {
            match stream {
                Some(stream) => self.streams.listen(&mut self.io, stream),
                None => {
                    let opening = self.http.on_readable(&mut self.io, key);
                    self.open(key, opening);
                }
            }
        }
    }

    /// Starts the stream that a request has opened, if it has.
    fn open(&mut self, key: u32, opening: Option<Box<Opening>>) {
        let Some(mut opening) = opening else {
            return;
        };
        let token = self.io.connections.token(key);
        let on_open = opening.on_open.take();
        self.streams.start(&mut self.io, key, *opening);
        if let Some(on_open) = on_open {
            guard("a handler that streams", on_open);
        }
        // What came behind the request may be the connection's end.
        if let Some(stream) = self.io.connections.find_stream(token) {
            self.streams.listen(&mut self.io, stream);
        }
    }

    #[inline(always)]
    fn run_commands(&mut self) {
        // It costs less than to find nothing to receive.
        if !self.commands.is_empty() {
            self.run_some_commands();
        }
    }

    fn run_some_commands(&mut self) {
        let commands_max = self.io.turn.spent.commands + self.io.turn.budgets.chores_a_turn;
        while self.io.turn.spent.commands < commands_max {
            match self.commands.try_recv() {
                Ok(Command::Answer {
                    token,
                    request,
                    response,
                    ticket,
                }) => {
                    drop(ticket);
                    if let Some(key) = self.io.connections.find(token) {
                        let io = &mut self.io;
                        let opening = self.http.on_answer(io, key, request, *response);
                        self.open(key, opening);
                    }
                }
                Ok(Command::Line {
                    token,
                    request,
                    line,
                    is_last,
                }) => {
                    if let Some(key) = self.io.connections.find(token) {
                        let io = &mut self.io;
                        let opening = self.http.on_line_reply(io, key, request, line, is_last);
                        self.open(key, opening);
                    }
                }
                Ok(Command::Limits(limits)) => self.io.limits = *limits,
                Ok(Command::Shutdown(shutdown)) => {
                    let through = self.hub.newest_sequence();
                    Drain::begin(
                        &mut self.io.turn.drain,
                        shutdown,
                        self.io.turn.now_ms,
                        through,
                    );
                }
                // The thread that has asked may have stopped waiting.
                Ok(Command::Ping(answer)) => drop(answer.try_send(())),
                Err(_) => return,
            }
            self.io.turn.spent.commands += 1;
        }
    }

    /// Takes the hub's work when that which was taken before is done, and passes a slice of
    /// it on.
    fn take_work(&mut self) {
        let is_done = self.work.is_empty();
        if is_done {
            self.hub.take_work(self.io.index, &mut self.work);
        }
        let slice = self.io.turn.budgets.looks_a_slice;
        let leaving = self.work.departures.len().min(slice);
        for _ in 0..leaving {
            let Some(departure) = self.work.departures.pop_front() else {
                break;
            };
            self.streams.note_leaving(&mut self.io, departure.token);
            self.departures.push_back(departure);
        }
        self.io.turn.spent.looks += leaving;
        self.streams
            .spread_work(&mut self.io, &mut self.work, is_done);
    }

    /// Ends the connections of clients that the hub has sent away.
    fn disconnect_departed(&mut self) {
        for _ in 0..self.io.turn.budgets.chores_a_turn {
            let Some(departure) = self.departures.pop_front() else {
                return;
            };
            if let Some(key) = self.io.connections.find_stream(departure.token) {
                self.streams.end(&mut self.io, key, departure.reason);
            }
            if let Some(disconnect_call) = departure.disconnect_call {
                call_on_disconnect(disconnect_call, departure.reason);
            }
        }
    }

    /// Answers requests that another server has read.
    fn serve_exchanges(&mut self) {
        while self.io.turn.may_answer() {
            let Some((socket, exchange)) = self.io.take_exchange() else {
                return;
            };
            if let Some((key, opening)) = self.http.on_exchange(&mut self.io, socket, exchange) {
                self.open(key, Some(opening));
            }
        }
    }

    /// Continues with the connections that speak HTTP and were stopped.
    fn serve_queued(&mut self) {
        for _ in 0..self.http.queue_len() {
            if !self.io.turn.may_serve() {
                return;
            }
            self.io.turn.spent.taken[0] += 1;
            let Some(key) = self.http.next_queued(&mut self.io) else {
                return;
            };
            let opening = self.http.serve(&mut self.io, key);
            self.open(key, opening);
        }
    }

    fn fire_timers(&mut self) {
        let tick = self.io.turn.tick();
        while self.io.turn.may_fire() {
            let Some(key) = self.io.pop_timer(tick) else {
                break;
            };
            self.io.turn.spent.timers += match self.io.connections.as_stream(key) {
                Some(stream) => self.streams.on_timer(&mut self.io, stream),
                None => {
                    let beyond = self.io.turn.requests_beyond();
                    let opening = self.http.on_timeout(&mut self.io, key);
                    self.open(key, opening);
                    let turn = &self.io.turn;
                    let beyond = turn.requests_beyond() - beyond;
                    turn.budgets.reads_a_turn.max(1).max(beyond)
                }
            };
        }
        self.streams.write_heartbeats(&mut self.io);
    }

    /// Sweeps a slice of the channels, if a sweep is due or under way, and gives
    /// memory back.
    fn sweep(&mut self) {
        let now_ms = self.io.turn.now_ms;
        if now_ms >= self.swept_at_ms + SWEEP_MS {
            self.swept_at_ms = now_ms;
            self.streams.shrink(&mut self.io);
            self.departures.shrink_to(DEPARTURES_KEPT);
            self.work.departures.shrink_to(DEPARTURES_KEPT);
            if self.sweeps {
                // Few channels at once, very many within ten sweeps.
                self.sweep_left = (self.hub.channels_capacity() / 10).max(SWEEP_SLICE);
            }
        }
        if self.sweep_left == 0 {
            return;
        }
        let slice = self.sweep_left.min(SWEEP_SLICE);
        self.sweep_left -= slice - self.hub.sweep(slice).min(slice);
        if self.sweep_left == 0 {
            self.pressure.warn(self.hub.pressure(), now_ms);
        }
    }

    /// The loop ends with connections open: the poller has failed, or the loop
    /// has panicked. What it holds may be half changed, so it is not relied on:
    /// the hub knows the clients that it had.
    fn abandon(&mut self) {
        let _here = EngineThread::enter();
        let reason = DisconnectReason::Failed;
        self.hub
            .leave_all(self.io.index, reason, |disconnect_call| {
                call_on_disconnect(disconnect_call, reason);
            });
        // No member is left, so no other thread can send one away any more.
        let mut work = Work::default();
        self.hub.take_work(self.io.index, &mut work);
        let noted = std::mem::take(&mut self.departures).into_iter();
        let taken = std::mem::take(&mut self.work.departures);
        for departure in noted.chain(taken).chain(work.departures) {
            if let Some(disconnect_call) = departure.disconnect_call {
                call_on_disconnect(disconnect_call, departure.reason);
            }
        }
        let connections = &self.io.connections;
        for key in (0..connections.keys_end()).filter(|key| connections.contains(*key)) {
            if connections.as_stream(key).is_some() {
                self.io.meters.count_end(reason);
            }
        }
    }
}

impl<N: Net> Drop for Reactor<N> {
    fn drop(&mut self) {
        let has_departures = !self.departures.is_empty() || !self.work.departures.is_empty();
        if !self.io.connections.is_empty() || has_departures {
            self.abandon();
        }
        self.publish_figures(self.hub.clock.now_us(), true);
    }
}
