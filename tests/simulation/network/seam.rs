//! The network as the engine has it: what happens in a poll, and what sockets do
//! when they are read from and written to.

use std::cell::{RefCell, RefMut};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pushwheel::internals::net::{Exception, Net, Readiness, Targets, UNSENT_BYTES_MAX, write_once};

use super::{Actors, EMPTY_POLLS_MAX, Event, Network, READS_A_TURN_MAX, Side, Socket};

/// The network as one of the engine's loops has it.
pub struct Seam {
    pub network: Rc<RefCell<Network>>,
    pub actors: Rc<RefCell<dyn Actors>>,
    /// Which loop's it is.
    pub side: usize,
    /// Turns the others, which is for the first one to do; says whether one was
    /// left to be turned.
    pub turn_others: Option<Box<dyn Fn() -> bool>>,
}

impl Seam {
    fn act(&self) -> RefMut<'_, Network> {
        let mut network = self.network.borrow_mut();
        network.sides[self.side].has_acted = true;
        network
    }

    /// The engine is about to poll.
    fn begin_poll(&self, timeout: Option<Duration>) {
        let timeout_ms = timeout.map(|timeout| timeout.as_nanos().div_ceil(1_000_000) as u64);
        // A drain looks around each millisecond and need not be woken.
        let is_asleep = timeout_ms.is_none_or(|ms| ms > 1);
        self.network.borrow_mut().sides[self.side].is_asleep = is_asleep;
        if self.network.borrow().sleeps() {
            self.actors.borrow_mut().before_sleep();
        }
        let mut network = self.network.borrow_mut();
        network.turns += 1;
        // A turn takes its time.
        if network.rng.u32(0..50) < network.slow_turns {
            network.clock.fetch_add(1, Ordering::Relaxed);
        }
        let now = network.now();
        let side = &mut network.sides[self.side];
        let has_acted = std::mem::take(&mut side.has_acted);
        side.empty_polls = match timeout_ms {
            Some(0) if !has_acted => side.empty_polls + 1,
            _ => 0,
        };
        assert!(
            side.empty_polls < EMPTY_POLLS_MAX,
            "the loop spins: it polls without a wait, and does nothing"
        );
        side.deadline = timeout_ms.map(|ms| now + ms);
    }

    fn is_due(&self) -> bool {
        let network = self.network.borrow();
        network.sides[self.side].is_due(network.now())
    }

    /// Whether this poll is over before the others have had a turn.
    fn skips_others(&self) -> bool {
        self.turn_others.is_none() || self.network.borrow_mut().rng.u32(0..4) == 0
    }

    /// Goes on to what happens next, where there is no loop to turn.
    pub fn idle(&self) {
        self.let_happen();
        self.network.borrow_mut().let_time_pass();
    }

    /// Lets happen what is due.
    fn let_happen(&self) {
        loop {
            let mut network = self.network.borrow_mut();
            let now = network.now();
            match network.events.first_key_value() {
                Some(((at, _, _), _)) if *at <= now => {}
                _ => return,
            }
            let rate = network.overlaps;
            if rate > 0 && network.rng.u32(0..1000) < rate {
                return;
            }
            let (_, event) = network.events.pop_first().expect("it was looked at");
            match event {
                Event::Act(act) => {
                    drop(network);
                    let has_made_work = self.actors.borrow_mut().act(act);
                    let network = self.network.borrow();
                    // Work for a loop that has ended needs no wake-up.
                    let sleeps = |side: &Side| side.is_asleep && !side.is_over;
                    let is_asleep = network.sides.iter().all(sleeps);
                    let is_woken = |side: &Side| side.woken.load(Ordering::Relaxed);
                    assert!(
                        !(has_made_work && is_asleep && !network.sides.iter().any(is_woken)),
                        "a lost wake-up: {act:?} made work while the engine sleeps"
                    );
                }
                event => network.arrive(event),
            }
        }
    }
}

impl Socket {
    /// Whether bytes are there of which the engine could know in this turn.
    fn has_unread(&self, turn: u64) -> bool {
        !self.incoming.is_empty() && self.deceived_in != turn
    }
}

impl Net for Seam {
    type Socket = usize;

    fn poll(&mut self, ready: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<()> {
        if self.network.borrow().has_failed {
            return Err(io::Error::other("the poller has failed"));
        }
        self.begin_poll(timeout);
        // The others do not wait until this one sleeps.
        let mut may_return = self.skips_others();
        loop {
            self.let_happen();
            let is_due = self.is_due();
            if is_due && may_return {
                break;
            }
            may_return = true;
            if self.turn_others.as_ref().is_some_and(|turn| turn()) {
                // Time goes by while those sleep as well.
                continue;
            }
            if is_due {
                break;
            }
            let mut network = self.network.borrow_mut();
            let now = network.now();
            if network.sides.iter().any(|side| side.is_due(now)) {
                break;
            }
            network.let_time_pass();
        }
        let mut network = self.network.borrow_mut();
        let side = &mut network.sides[self.side];
        let is_woken = side.woken.swap(false, Ordering::Relaxed);
        if std::mem::take(&mut side.is_interrupted) {
            side.has_acted = true;
        } else {
            ready.append(&mut side.ready);
        }
        side.is_asleep = false;
        side.has_acted |= is_woken || !ready.is_empty();
        network.rng.shuffle(ready);
        Ok(())
    }

    fn accept(&mut self) -> io::Result<(usize, SocketAddr)> {
        let mut network = self.network.borrow_mut();
        let side = &mut network.sides[self.side];
        if !side.is_listening || side.backlog.is_empty() {
            side.is_listener_armed = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        side.has_acted = true;
        if network.open >= network.faults.descriptors_max {
            network.count("descriptors exhausted");
            network.exhausted_at = network.now();
            return Err(io::Error::from_raw_os_error(24));
        }
        let side = &mut network.sides[self.side];
        let number = side.backlog.pop_front().expect("it is not empty");
        let rate = network.faults.aborted_accepts;
        if network.happens(rate, "aborted accepts") {
            network.sockets[number].is_closed = true;
            network.arrive(Event::Reset(number));
            return Err(ErrorKind::ConnectionAborted.into());
        }
        network.open += 1;
        Ok((number, SocketAddr::from(([10, 0, 0, 1], number as u16))))
    }

    fn stop_listening(&mut self) {
        let mut network = self.network.borrow_mut();
        network.sides[self.side].is_listening = false;
        while let Some(number) = network.sides[self.side].backlog.pop_front() {
            network.sockets[number].is_closed = true;
            network.arrive(Event::Reset(number));
        }
    }

    fn register(&mut self, socket: &mut usize, token: u64) -> io::Result<()> {
        let mut network = self.network.borrow_mut();
        let rate = network.faults.failed_registrations;
        if network.happens(rate, "failed registrations") {
            network.sockets[*socket].is_refused = true;
            return Err(io::Error::other("the poller is full"));
        }
        network.sockets[*socket].token = Some(token);
        network.arm_read(*socket);
        network.arm_write(*socket);
        Ok(())
    }

    fn read(&mut self, socket: &mut usize, buffer: &mut [u8]) -> io::Result<usize> {
        let number = *socket;
        let mut network = self.act();
        let turn = network.turns;
        let (last, reads) = network.sockets[number].reads;
        let reads = if last == turn { reads + 1 } else { 1 };
        assert!(
            reads <= READS_A_TURN_MAX,
            "a turn is held up by one socket, which is read from again and again"
        );
        network.sockets[number].reads = (turn, reads);
        if network.sockets[number].is_reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let rate = network.faults.interrupted_reads;
        if network.happens(rate, "interrupted reads") {
            return Err(ErrorKind::Interrupted.into());
        }
        let available = network.sockets[number].incoming.len();
        if available == 0 && network.sockets[number].has_end {
            return Ok(0);
        }
        let rate = network.faults.spurious_blocks;
        if available == 0 || network.happens(rate, "reads that block with bytes there") {
            network.sockets[number].deceived_in = turn;
            network.arm_read(number);
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = available.min(buffer.len());
        let rate = network.faults.partial_reads;
        if count > 1 && network.happens(rate, "partial reads") {
            count = network.rng.usize(1..count);
        }
        for (to, from) in buffer
            .iter_mut()
            .zip(network.sockets[number].incoming.drain(..count))
        {
            *to = from;
        }
        if count < buffer.len() {
            network.arm_read(number);
        }
        Ok(count)
    }

    fn write(&mut self, socket: &mut usize, bytes: &[u8]) -> io::Result<usize> {
        let number = *socket;
        let mut network = self.act();
        let (now, turn) = (network.now(), network.turns);
        let socket = &mut network.sockets[number];
        assert!(!socket.is_shut, "a write after the end of writing");
        assert!(!bytes.is_empty(), "a write of nothing");
        // What arrives after that was decided does not count.
        let is_late = bytes.starts_with(b"HTTP/1.1 408");
        let is_late = is_late && !std::mem::replace(&mut socket.is_reported_late, is_late);
        assert!(
            !is_late || !socket.has_unread(turn),
            "a request is answered that it is late, and more of it was there to be read"
        );
        if socket.is_reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if socket.is_client_gone {
            // The system takes it; the peer's system answers with a reset.
            let latency_ms_max = network.faults.latency_ms_max;
            let at = now + network.rng.u64(0..=latency_ms_max);
            network.schedule(at, Event::Reset(number));
            return Ok(bytes.len());
        }
        let rate = network.faults.interrupted_writes;
        if network.happens(rate, "interrupted writes") {
            return Err(ErrorKind::Interrupted.into());
        }
        let socket = &network.sockets[number];
        let room = socket.outgoing_max - socket.outgoing.len();
        // A write without a report of room meets the truth.
        let is_unasked = network.withholds_room && network.sockets[number].armed.write;
        let rate = match is_unasked {
            true => 0,
            false => network.faults.spurious_blocks,
        };
        if room == 0 || network.happens(rate, "writes that block with room there") {
            if room == 0 {
                network.sockets[number].full_since.get_or_insert(now);
            }
            network.sockets[number].blocked_in = turn;
            network.arm_write(number);
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = room.min(bytes.len());
        if count < bytes.len() {
            network.count("writes cut short by a full buffer");
        }
        let rate = network.faults.partial_writes;
        if count > 1 && network.happens(rate, "partial writes") {
            count = network.rng.usize(1..count);
        }
        let socket = &mut network.sockets[number];
        let was_empty = socket.outgoing.is_empty();
        socket.outgoing.extend(&bytes[..count]);
        if socket.outgoing.len() == socket.outgoing_max && count < bytes.len() {
            socket.full_since.get_or_insert(now);
        }
        if was_empty {
            network.tell_client(number);
        }
        if count < bytes.len() {
            network.arm_write(number);
        }
        Ok(count)
    }

    fn write_limited(&mut self, socket: &mut usize, bytes: &[u8]) -> io::Result<usize> {
        let is_limited = self.network.borrow().sockets[*socket].is_limited;
        assert!(is_limited, "a limit is kept that was not set");
        loop {
            match self.write(socket, bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_to_all(
        &mut self,
        targets: &mut impl Targets<usize>,
        bytes: &[u8],
        is_limited: bool,
        exceptions: &mut Vec<Exception>,
    ) {
        let (order, usual) = self.network.borrow_mut().begin_batch(targets.count());
        for index in order {
            let socket = targets.socket(index);
            let client = self.network.borrow_mut().fail_write_of_batch(*socket);
            if let Some(client) = client {
                self.actors.borrow_mut().lose(client, *socket);
            }
            let outcome = write_once(self, socket, bytes, is_limited);
            if outcome != Ok(bytes.len()) {
                exceptions.push(Exception { index, outcome });
            }
        }
        exceptions.sort_unstable_by_key(|exception| exception.index);
        self.network.borrow_mut().end_batch(usual);
    }

    fn limit_unsent(&mut self, socket: &mut usize) {
        let mut network = self.act();
        let socket = &mut network.sockets[*socket];
        socket.is_limited = true;
        // What it holds already goes out as it is.
        let bytes_max = UNSENT_BYTES_MAX.max(socket.outgoing.len());
        socket.outgoing_max = socket.outgoing_max.min(bytes_max);
        network.count("sockets that hold little");
    }

    fn shutdown_write(&mut self, socket: &mut usize) {
        let mut network = self.act();
        network.sockets[*socket].is_shut = true;
        network.tell_client(*socket);
    }

    fn close(&mut self, number: usize) {
        let mut network = self.act();
        let turn = network.turns;
        network.open -= 1;
        let socket = &mut network.sockets[number];
        assert!(!socket.is_closed, "a socket is closed twice");
        socket.is_closed = true;
        socket.full_since = None;
        let is_all_read = socket.incoming.is_empty();
        // With answers that the client does not take it is closed as stalled, and so
        // it is if the last write said that there was no room.
        let has_stalled = !socket.outgoing.is_empty() || socket.blocked_in == turn;
        socket.is_closed_unread = !has_stalled && socket.has_unread(turn);
        if let Some(token) = socket.token {
            network.sides[self.side].old_tokens.push(token);
        }
        match is_all_read {
            true => network.tell_client(number),
            false => network.break_off(number),
        }
    }
}
