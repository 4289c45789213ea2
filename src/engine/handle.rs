//! How other threads reach an engine.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::exchange::{Command, CommandQueue, InFlight, Shutdown};
use crate::hub::manager::ChannelManager;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::reactor::ConnectionCounts;

/// Reaches an engine from other threads.
#[derive(Clone)]
pub struct EngineHandle {
    pub(super) command_queues: Arc<[CommandQueue]>,
    pub(super) channels: ChannelManager,
    pub(super) counts: Arc<ConnectionCounts>,
    pub(super) in_flight: InFlight,
    /// Held while a command goes to all reactors, so that each finds commands
    /// from several threads in the same order.
    pub(super) order: Arc<Mutex<()>>,
}

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandle").finish_non_exhaustive()
    }
}

impl EngineHandle {
    /// Shuts the engine down in good order, and returns at once. It stops
    /// listening; what was published is delivered; streams of channels end,
    /// each browser with another delay after which it comes back; streams for
    /// one client go on until their [`Sink`](crate::Sink) is closed; requests
    /// under way are answered. What is left is disconnected at the deadline.
    ///
    /// A [`Duration`] is a deadline, for streams that end as soon as they
    /// have been sent everything; [`Shutdown`] says more. Called again, it can
    /// only make the end sooner: with [`Duration::ZERO`], at once.
    pub fn shutdown(&self, how: impl Into<Shutdown>) {
        let how = how.into();
        for command_queue in &*self.command_queues {
            command_queue.engine().start_draining();
            command_queue.send(Command::Shutdown(how));
        }
    }

    /// Puts others in the place of the engine's limits, as of a configuration
    /// that was read again, and returns at once. They hold for what begins
    /// from then on: whoever is in stays, though there be more than the limit,
    /// and a deadline that runs is not moved.
    pub fn set_limits(&self, limits: &Limits) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        for command_queue in &*self.command_queues {
            command_queue.send(Command::Limits(Box::new(limits.clone())));
        }
    }

    /// How many connections count towards
    /// [`Limits::connections_max`]: all of the engine's, but for overflow connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.connections()
    }

    /// How many requests count towards [`Limits::requests_in_flight_max`].
    #[must_use]
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// The engine's figures. Costs the same however many clients and channels
    /// there are.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.channels.hub().metrics()
    }

    /// Whether each of the engine's threads takes its turn: they are asked, and
    /// have so long to answer. The proof of life for a watchdog; not to be
    /// called from the engine's own threads, which could not answer.
    #[must_use]
    pub fn responds_within(&self, time: Duration) -> bool {
        let (sender, answers) = crossbeam_channel::bounded(self.command_queues.len());
        for command_queue in &*self.command_queues {
            command_queue.send(Command::Ping(sender.clone()));
        }
        let deadline = crossbeam_channel::after(time);
        self.command_queues.iter().all(|_| {
            crossbeam_channel::select! {
                recv(answers) -> answer => answer.is_ok(),
                recv(deadline) -> _ => false,
            }
        })
    }

    /// The engine's channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        &self.channels
    }
}
