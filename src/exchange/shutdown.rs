//! How an engine is to shut down.

use std::time::Duration;

/// How an engine shuts down, by method chaining; see
/// [`EngineHandle::shutdown`](crate::EngineHandle::shutdown).
///
/// ```text
///   shutdown()            delay                    window                      within
///       ├─ health: draining ─┼─ nobody is accepted ───┼─ the slow and the late ──┤
///       │  all goes on       │  streams end, each at  │  have until here         │ the end
///       │                    │  a moment of its own   │                          │
/// ```
///
/// ```
/// use std::time::Duration;
/// use pushwheel::Shutdown;
///
/// let shutdown = Shutdown::within(Duration::from_secs(30))
///     .delay(Duration::from_secs(5))
///     .window(Duration::from_secs(15));
/// ```
///
/// A [`Duration`] alone is one without delay and window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "give it to `EngineHandle::shutdown`"]
pub struct Shutdown {
    pub(crate) within: Duration,
    pub(crate) delay: Duration,
    pub(crate) window: Duration,
}

impl Shutdown {
    /// One that takes no longer than `deadline`, delay and window included:
    /// clients that are left then are disconnected.
    pub fn within(deadline: Duration) -> Shutdown {
        Shutdown {
            within: deadline,
            delay: Duration::ZERO,
            window: Duration::ZERO,
        }
    }

    /// For how long at first everything goes on, but for
    /// [`Request::is_draining`](crate::Request::is_draining): the time that a
    /// load balancer needs to find out from a health check, so that it sends
    /// nobody to an address where nobody listens. Default: none.
    pub fn delay(mut self, time: Duration) -> Shutdown {
        self.delay = time;
        self
    }

    /// The time over which streams of channels end, each at a random moment, so
    /// that browsers do not all come back at once. Events that are published
    /// meanwhile reach the clients that are still there. When the last
    /// connection has ended the engine does not wait for the rest of it.
    /// Default: none, each ends as soon as it was sent everything. A stream for
    /// one client has until the deadline, see
    /// [`Sink::is_draining`](crate::Sink::is_draining).
    pub fn window(mut self, time: Duration) -> Shutdown {
        self.window = time;
        self
    }
}

impl From<Duration> for Shutdown {
    fn from(deadline: Duration) -> Shutdown {
        Shutdown::within(deadline)
    }
}
