//! The load of other channels while a channel is measured: clients that are idle or
//! receive events without pause.

use std::time::Duration;

use super::load::{Background, Load, Together};
use super::options::Beside;
use super::server::Server;
use super::{Result, fault};

/// Clients of other channels.
#[derive(Debug)]
pub(crate) struct OtherChannels {
    load: Load,
    /// Whether to publish without pause.
    may_be_busy: bool,
    is_busy: bool,
    /// Deliveries in progress.
    waiting: usize,
}

impl OtherChannels {
    /// Creates the channels with an event in each, and connects the clients, distributed
    /// over them.
    pub(crate) fn new(server: &Server, options: &Beside) -> Result<Box<OtherChannels>> {
        let Some(channels) = &server.channels else {
            return fault("--beside-clients needs a server that the bench starts. Omit --url");
        };
        let first = channels.join("beside-0");
        let mut load = Load::new(&first, &first, EVENTS_A_TURN)?;
        for number in 0..options.beside_channels {
            let path = channels.join(&format!("beside-{number}")).path;
            load.publisher.add(&path, "text/plain", b"the first");
            if number % PIPELINED == 0 {
                load.send()?;
                load.await_answers()?;
            }
        }
        load.send()?;
        load.await_answers()?;
        let clients = options.beside_clients.unwrap_or(0);
        let used = options.beside_channels.min(clients);
        for number in 0..used {
            // Distributed evenly over all channels.
            let channel = number * options.beside_channels / used;
            load.subscribe_to(&channels.join(&format!("beside-{channel}")));
            load.connect(clients / used + usize::from(number < clients % used))?;
        }
        Ok(Box::new(OtherChannels {
            load,
            may_be_busy: options.beside_busy,
            is_busy: false,
            waiting: 0,
        }))
    }
}

impl Background for OtherChannels {
    fn begin(&mut self) {
        self.is_busy = self.may_be_busy;
    }

    /// Keeps one event in progress while it is busy.
    fn turn(&mut self) -> Result<bool> {
        if self.is_busy {
            let clients = self.load.clients();
            // The next event is published before the last clients have this one, so the
            // server never rests.
            if self.waiting <= clients / 2 {
                self.load.publish_together(1, BYTES, Together::Ndjson)?;
                self.waiting += clients;
            }
        }
        let progress = self.load.turn(Duration::ZERO)?;
        self.waiting -= progress.events;
        Ok(self.is_busy)
    }
}

/// At most this many sockets per turn, so that the measured clients wait for at most
/// about 50 microseconds.
const EVENTS_A_TURN: usize = 16;
const PIPELINED: usize = 256;
const BYTES: usize = 128;
