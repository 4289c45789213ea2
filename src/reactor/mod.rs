//! The one thread: a loop over connections, feeds and timers.
//!
//! A turn polls the network, serves what is ready, takes the hub's work,
//! pumps feeds, resumes cursors and fires timers. Each part has a budget and
//! a queue for what the budget leaves over, so no client, channel or request
//! holds up another for more than a slice. The reactor has no lock of its
//! own, and blocks on nothing but the poll.
//!
//! | part | is |
//! | --- | --- |
//! | `io` | sockets and timers: the network, connections, the wheel, who is let in |
//! | `streams` | from logs to sockets: feeds, cursors, how streams end |
//! | `http` | from bytes to answers: requests, responses, the opening of streams |
//! | `shutdown` | the end of it all |
//! | `budgets` | how much of everything is done in one go |

mod budgets;
mod http;
pub(crate) mod io;
mod shutdown;
mod streams;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use budgets::Budgets;
use crossbeam_channel::Receiver;
pub(crate) use io::counts::ConnectionCounts;
pub(crate) use io::{net, sockets};
use slab::Slab;

use crate::exchange::{
    Command, CommandQueue, EngineThread, InFlight, Rejection, Request, Response,
};
use crate::http::Headers;
use crate::hub::batch::Batch;
use crate::hub::bounds::Pressure;
use crate::hub::client::ConnectionId;
use crate::hub::manager::ChannelManager;
use crate::hub::{Attachment, ChannelKey, ChannelReader, Departure, Hub, Position, Work};
use crate::limits::Limits;
use crate::metrics::Meters;
use crate::proxies::Proxies;
use io::acceptor::Acceptor;
use io::connection::{Connections, State};
use io::metered::{Metered, Stopwatch};
use io::net::{LISTENER, Net, Readiness};
use io::wheel::Wheel;
use shutdown::Drain;
use streams::feed::{Cursor, Feeds};
use streams::sums::Sums;

/// How often the channels are looked through for what is too old.
const SWEEP_MS: u64 = 1000;
/// How often it is logged that the limits on all channels were reached.
const PRESSURE_LOG_MS: u64 = 60_000;
/// How many channels one lock of the hub sweeps.
const SWEEP_SLICE: usize = 256;
/// The wheel's tick. Coarse, so that the timers of many idle clients fire
/// together in one turn, and fine enough for any interval in practice.
const TICK_MS: u64 = 64;

/// What answers requests: the router, as the reactor sees it.
pub(crate) trait Service: Send + Sync {
    /// Answers at once; a panic is caught and answered for it.
    fn call(&self, request: &mut Request) -> Response;

    /// Answers a request whose body is on its way still, if it needs none of it.
    fn admit(&self, request: &mut Request) -> Option<Response>;

    /// Looks at every answer before it is written.
    fn finish(&self, request: &Request, response: &mut Response);

    /// Receives each malformed request and the response to it.
    fn on_refusal(&self, rejection: &Rejection<'_>);
}

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
    net: Metered<N>,
    index: u16,
    attachment: Arc<Attachment>,
    hub: Arc<Hub>,
    channels: ChannelManager,
    service: Arc<dyn Service>,
    limits: Limits,
    in_flight: InFlight,
    budgets: Budgets,
    headers: Headers,
    proxies: Proxies,

    command_queue: CommandQueue,
    commands: Receiver<Command>,
    meters: Arc<Meters>,
    stopwatch: Stopwatch,

    connections: Connections<N::Socket>,
    feeds: Feeds,
    cursors: Slab<Cursor>,
    /// The readers of streams of several channels.
    readers: Slab<Box<[ChannelReader]>>,
    sums: Sums,
    wheel: Wheel,

    /// Feeds that have something to pump.
    pump_queue: VecDeque<u32>,
    /// Feeds that wait for their time, the soonest first.
    paced: BinaryHeap<Reverse<(u64, u32)>>,
    /// Connections that speak HTTP and stopped for their budget's sake, by token.
    request_queue: VecDeque<u64>,
    /// Clients that are behind and can be written to, by token.
    cursor_queue: VecDeque<u64>,
    departures: VecDeque<Departure>,
    /// Where clients stand that were blocked or caught up in this turn, for the
    /// hub to learn at its end: a short write takes no lock.
    positions: Vec<Position>,
    /// Channels to report to the hub about.
    to_report: Vec<ChannelKey>,

    acceptor: Acceptor,
    swept_at_ms: u64,
    /// What was logged of the hub's lack of room, and when.
    pressure: (Pressure, u64),
    drain: Option<Drain>,

    now_ms: u64,
    /// What is left of the turn's steps.
    steps_left: usize,
    /// What is left of the turn's bytes for clients that are behind.
    cursor_bytes_left: usize,
    /// What is left of the turn's requests.
    requests_left: usize,
    date: Date,
    ready: Vec<Readiness>,
    work: Work,
    /// Where everything is read into.
    input: Vec<u8>,
    /// Where answers are written before they go out.
    output: Vec<u8>,
    /// Where a cursor's next frames are gathered.
    scratch: Batch,
    targets: Vec<u64>,
    /// Batches to use again.
    #[allow(
        clippy::vec_box,
        reason = "a feed holds its batch by a pointer; these are the same boxes"
    )]
    spare_batches: Vec<Box<Batch>>,
}

/// The value of the header `Date`, made once a second.
struct Date {
    second: u64,
    text: String,
}

impl<N: Net> Reactor<N> {
    pub(crate) fn new(net: N, setup: Setup) -> Reactor<N> {
        let hub = setup.channels.hub().clone();
        let (command_queue, commands) = CommandQueue::new(&setup.attachment, setup.index);
        let now_ms = hub.clock.now_ms();
        Reactor {
            net: Metered::new(net),
            meters: setup.attachment.engine().meters(setup.index).clone(),
            stopwatch: Stopwatch::default(),
            index: setup.index,
            attachment: setup.attachment,
            channels: setup.channels,
            service: setup.service,
            limits: setup.limits,
            in_flight: setup.in_flight,
            headers: setup.headers,
            proxies: setup.proxies,
            command_queue,
            commands,
            connections: Connections::new(),
            feeds: Feeds::new(),
            cursors: Slab::new(),
            readers: Slab::new(),
            sums: Sums::default(),
            wheel: Wheel::new(now_ms / TICK_MS),
            pump_queue: VecDeque::new(),
            paced: BinaryHeap::new(),
            positions: Vec::new(),
            request_queue: VecDeque::new(),
            cursor_queue: VecDeque::new(),
            departures: VecDeque::new(),
            to_report: Vec::new(),
            acceptor: Acceptor::new(setup.counts),
            swept_at_ms: now_ms,
            pressure: Default::default(),
            drain: None,
            now_ms,
            steps_left: 0,
            cursor_bytes_left: 0,
            requests_left: 0,
            date: Date::at(&hub, now_ms),
            hub,
            ready: Vec::new(),
            work: Work::default(),
            input: vec![0; setup.budgets.buffer_bytes],
            budgets: setup.budgets,
            output: Vec::new(),
            scratch: Batch::default(),
            targets: Vec::new(),
            spare_batches: Vec::new(),
        }
    }

    /// How other threads reach this reactor.
    pub(crate) fn command_queue(&self) -> &CommandQueue {
        &self.command_queue
    }

    /// The network, for a simulator to act on.
    #[cfg(feature = "internals")]
    pub(crate) fn net_mut(&mut self) -> &mut N {
        &mut self.net.net
    }

    /// What the reactor holds, to be checked by a simulator: connections,
    /// feeds, cursors, readers, timers; connections and addresses that count,
    /// and overflow connections.
    #[cfg(feature = "internals")]
    pub(crate) fn holdings(&self) -> [usize; 8] {
        let [counted, networks, overflows] = self.acceptor.holdings();
        [
            self.connections.len(),
            self.feeds.slots.len(),
            self.cursors.len(),
            self.readers.len(),
            self.wheel.len(),
            counted,
            networks,
            overflows,
        ]
    }

    /// Turns until it is shut down.
    ///
    /// # Errors
    /// When the network fails as a whole.
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        let _here = EngineThread::enter();
        while !self.is_over() {
            self.turn()?;
        }
        Ok(())
    }

    /// Polls once, and does what there is to do.
    pub(crate) fn turn(&mut self) -> std::io::Result<()> {
        let timeout = self.sleep_time();
        let mut ready = std::mem::take(&mut self.ready);
        self.net.poll(&mut ready, timeout)?;
        let now_us = self.hub.clock.now_us();
        if self.stopwatch.is_running() {
            // There was no sleep: one turn ends where the next one begins.
            self.tell_figures(now_us, false);
        }
        self.stopwatch.begin(now_us);
        self.now_ms = now_us / 1000;
        self.steps_left = self.budgets.steps_a_turn;
        self.cursor_bytes_left = self.budgets.cursor_bytes_a_turn;
        self.requests_left = self.budgets.requests_a_turn;
        for readiness in ready.drain(..) {
            self.on_ready(readiness);
        }
        self.ready = ready;

        self.accept();
        self.run_commands();
        self.take_work();
        self.part();
        self.release_paced();
        self.pump();
        self.serve_queued();
        self.run_cursors();
        self.fire_timers();
        self.sweep();
        self.drain();
        self.report();
        Ok(())
    }

    fn on_ready(&mut self, readiness: Readiness) {
        if readiness.token == LISTENER {
            self.acceptor.has_pending = true;
            return;
        }
        let Some(key) = self.connections.find(readiness.token) else {
            return;
        };
        if readiness.is_writable {
            self.on_writable(key);
        }
        if readiness.is_readable && self.connections.find(readiness.token).is_some() {
            self.on_readable(key);
        }
    }

    /// Ends what was measured of the turn before, and lets others read it.
    fn tell_figures(&mut self, now_us: u64, sleeps: bool) {
        self.stopwatch.end(now_us, &self.meters);
        if !self.stopwatch.is_due(sleeps) {
            return;
        }
        let is_full = self.acceptor.is_full(&self.limits);
        self.net.publish(&self.meters, is_full);
        self.meters.clients_behind.set(self.cursors.len() as u64);
    }

    /// How long the next poll may sleep: not at all while there is work.
    fn sleep_time(&mut self) -> Option<Duration> {
        let is_busy = !self.pump_queue.is_empty()
            || !self.request_queue.is_empty()
            || !self.cursor_queue.is_empty()
            || !self.departures.is_empty()
            || self.drain.as_ref().is_some_and(Drain::is_busy)
            || self.may_accept();
        // The command_queue is looked at after the hub was told of the nap: whoever
        // writes a command in between wakes the loop.
        if is_busy || !self.hub.may_sleep(self.index) || !self.commands.is_empty() {
            return Some(Duration::ZERO);
        }
        let now_us = self.hub.clock.now_us();
        self.tell_figures(now_us, true);
        let timer_ms = self.wheel.next_due().map(|tick| tick * TICK_MS);
        let sweep_ms = (self.index == 0).then_some(self.swept_at_ms + SWEEP_MS);
        let drain_ms = self.drain.as_ref().map(Drain::due_ms);
        let paced_ms = self.paced.peek().map(|Reverse((due_ms, _))| *due_ms);
        let due_ms = [
            timer_ms,
            sweep_ms,
            drain_ms,
            paced_ms,
            self.acceptor.paused_until_ms,
        ];
        let due_ms = due_ms.into_iter().flatten().min()?;
        Some(Duration::from_millis(due_ms.saturating_sub(now_us / 1000)))
    }

    fn run_commands(&mut self) {
        for _ in 0..self.budgets.chores_a_turn {
            match self.commands.try_recv() {
                Ok(Command::Answer {
                    token,
                    request,
                    response,
                    ticket,
                }) => {
                    drop(ticket);
                    self.on_answer(token, request, *response);
                }
                Ok(Command::Limits(limits)) => self.limits = *limits,
                Ok(Command::Shutdown(shutdown)) => self.start_drain(shutdown),
                // Whoever asked may have stopped waiting.
                Ok(Command::Ping(answer)) => drop(answer.try_send(())),
                Err(_) => return,
            }
        }
    }

    fn take_work(&mut self) {
        let mut work = std::mem::take(&mut self.work);
        self.hub.take_work(self.index, &mut work);
        for (key, since_us) in work.dirty.drain(..) {
            let Some(local) = self.feeds.locals.get(&key) else {
                continue;
            };
            for id in &local.feeds {
                let feed = &mut self.feeds.slots[*id as usize];
                feed.has_news = true;
                feed.news_since_us.get_or_insert(since_us);
                if !std::mem::replace(&mut feed.is_queued, true) {
                    self.pump_queue.push_back(*id);
                }
            }
        }
        for key in work.changed.drain(..) {
            self.take_options(key);
        }
        for departure in work.departures.drain(..) {
            self.note_leaving(departure.token);
            self.departures.push_back(departure);
        }
        self.work = work;
    }

    fn note_leaving(&mut self, token: u64) {
        if let Some(key) = self.connections.find(token)
            && let State::Stream(stream) = &mut self.connections.get_mut(key).state
            && !std::mem::replace(&mut stream.is_leaving, true)
        {
            self.feeds.get_mut(stream.feed).leaving += 1;
        }
    }

    /// Ends the connections of those whom the hub has taken out.
    fn part(&mut self) {
        for _ in 0..self.budgets.chores_a_turn {
            let Some(departure) = self.departures.pop_front() else {
                return;
            };
            if let Some(key) = self.connections.find(departure.token) {
                self.close(key, departure.reason);
            }
            if let Some(disconnect_call) = departure.disconnect_call {
                http::serving::call_on_disconnect(disconnect_call, departure.reason);
            }
        }
    }

    /// Continues with the connections that speak HTTP and were stopped.
    fn serve_queued(&mut self) {
        for _ in 0..self.request_queue.len() {
            if !self.has_budget() {
                return;
            }
            let Some(token) = self.request_queue.pop_front() else {
                return;
            };
            let Some(key) = self.connections.find(token) else {
                continue;
            };
            if let State::Http(http) = &mut self.connections.get_mut(key).state {
                http.is_queued = false;
                self.serve(key);
            }
        }
    }

    /// Continues with the clients that are behind. Requests do not wait in their
    /// queue: however many clients catch up, a turn writes a bounded number of
    /// bytes to them.
    fn run_cursors(&mut self) {
        for _ in 0..self.cursor_queue.len() {
            if self.cursor_bytes_left == 0 {
                return;
            }
            let Some(token) = self.cursor_queue.pop_front() else {
                return;
            };
            let Some(key) = self.connections.find(token) else {
                continue;
            };
            if let State::Stream(stream) = &self.connections.get(key).state
                && let Some(cursor) = self.cursors.get_mut(stream.cursor as usize)
            {
                cursor.is_queued = false;
                self.run_cursor(key);
            }
        }
    }

    fn fire_timers(&mut self) {
        let tick = self.now_ms / TICK_MS;
        let mut budget = self.budgets.timers_a_turn;
        while budget > 0 {
            let Some(key) = self.wheel.pop(&mut self.connections, tick) else {
                return;
            };
            let cost = match &self.connections.get(key).state {
                State::Http(_) => {
                    self.on_http_timeout(key);
                    self.budgets.reads_a_turn.max(1)
                }
                State::Stream(_) => {
                    self.on_stream_timer(key);
                    1
                }
            };
            budget = budget.saturating_sub(cost);
        }
    }

    fn sweep(&mut self) {
        if self.index != 0 || self.now_ms < self.swept_at_ms + SWEEP_MS {
            return;
        }
        self.swept_at_ms = self.now_ms;
        // Few channels at once, very many within ten sweeps.
        let mut left = (self.hub.channels_capacity() / 10).max(SWEEP_SLICE);
        while left > 0 {
            let slice = left.min(SWEEP_SLICE);
            self.hub.sweep(slice);
            left -= slice;
        }
        self.warn_of_pressure();
    }

    /// Logs that the limits on all channels together were reached, at most once a
    /// minute.
    fn warn_of_pressure(&mut self) {
        let (before, due_ms) = self.pressure;
        let pressure = self.hub.pressure();
        if pressure == before || self.now_ms < due_ms {
            return;
        }
        let evicted = pressure.evicted - before.evicted;
        if evicted > 0 {
            log::warn!(
                "{evicted} events were evicted because all channels together reached the limit \
                 on their memory. Keep less of each channel, or raise --history-total-bytes"
            );
        }
        let keys_evicted = pressure.keys_evicted - before.keys_evicted;
        if keys_evicted > 0 {
            log::warn!(
                "{keys_evicted} keys were evicted from channels that conflate. New clients \
                 receive a gap until these keys are published again or removed. Raise the \
                 limits of the keyed state, or remove unused keys"
            );
        }
        let displaced = pressure.displaced - before.displaced;
        if displaced > 0 {
            log::warn!(
                "{displaced} channels without events were closed to make room for a publisher's, \
                 because there are as many channels as there may be. Raise --max-channels, or \
                 lower --max-unpublished-channels"
            );
        }
        self.pressure = (pressure, self.now_ms + PRESSURE_LOG_MS);
    }

    /// When a timer that is set now for `duration` is due, rounded up.
    fn set_timer(&mut self, key: u32, duration: Duration) {
        let due_ms = self.now_ms.saturating_add(as_ms(duration));
        self.wheel
            .set(&mut self.connections, key, due_ms.div_ceil(TICK_MS));
    }

    /// The current tick, as connections note it: its low half.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "compared with wrapping arithmetic"
    )]
    fn tick32(&self) -> u32 {
        (self.now_ms / TICK_MS) as u32
    }

    fn connection_id(&self, key: u32) -> ConnectionId {
        ConnectionId {
            token: self.connections.token(key),
            reactor: self.index,
        }
    }

    /// The value of the header `Date`.
    fn refresh_date(&mut self) {
        if self.date.second != self.now_ms / 1000 {
            self.date = Date::at(&self.hub, self.now_ms);
        }
    }
}

impl Date {
    fn at(hub: &Hub, now_ms: u64) -> Date {
        Date {
            second: now_ms / 1000,
            text: httpdate::fmt_http_date(hub.clock.wall(now_ms)),
        }
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
