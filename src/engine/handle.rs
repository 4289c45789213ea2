//! [`EngineHandle`]: access to an engine from other threads.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::exchange::{Command, CommandQueue, InFlight, Shutdown};
use crate::hub::manager::ChannelManager;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::reactor::ConnectionCounts;

/// Access to an engine from other threads. A cheap handle: clone it.
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
    /// Shuts the engine down gracefully, and returns at once. The engine stops listening;
    /// published events are delivered; streams of channels end, each with a different
    /// reconnection delay; streams for one client continue until their
    /// [`Sink`](crate::Sink) is closed; pending requests are answered. At the deadline the
    /// remaining connections are closed.
    ///
    /// A [`Duration`] is the deadline, for streams that end as soon as they have sent their
    /// backlog; [`Shutdown`] has more options. A second call can only make the end sooner:
    /// with [`Duration::ZERO`], at once. It has no effect on an engine that has ended.
    pub fn shutdown(&self, how: impl Into<Shutdown>) {
        let how = how.into();
        for command_queue in &*self.command_queues {
            command_queue.engine().start_draining();
            command_queue.send(Command::Shutdown(how));
        }
    }

    /// Replaces the engine's limits, for example after a reload of the configuration, and
    /// returns at once. They apply to new connections, requests and waits: no connection is
    /// closed because of a lower limit, and no running deadline changes.
    pub fn set_limits(&self, limits: &Limits) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        for command_queue in &*self.command_queues {
            command_queue.send(Command::Limits(Box::new(limits.clone())));
        }
    }

    /// Returns the number of connections that count towards [`Limits::connections_max`]: all
    /// except overflow connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.counts.connections()
    }

    /// Returns the number of requests that count towards [`Limits::requests_in_flight_max`].
    #[must_use]
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Returns the engine's figures. The cost does not grow with clients or channels.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.channels.hub().metrics()
    }

    /// Asks each of the engine's threads for a sign of life, and returns whether all have
    /// responded within `time`. For a watchdog. On one of the engine's own threads the
    /// result is false.
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

    /// Returns the engine's channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        &self.channels
    }
}
