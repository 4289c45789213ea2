//! [`Shutdown`]: the options of a shutdown.

use std::time::Duration;

/// The options of a shutdown, by method chaining; see
/// [`EngineHandle::shutdown`](crate::EngineHandle::shutdown).
///
/// ```text
///   shutdown()            delay                    window                      within
///       ├─ health: draining ─┼─ no new connections ───┼─ slow clients and ───────┤
///       │  all else as       │  streams end, each at  │  pending requests        │ the end
///       │  before            │  a random moment       │  have until here         │
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
/// A [`Duration`] alone is a shutdown without delay and window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "pass it to `EngineHandle::shutdown`"]
pub struct Shutdown {
    pub(crate) within: Duration,
    pub(crate) delay: Duration,
    pub(crate) window: Duration,
}

impl Shutdown {
    /// Returns a shutdown that takes at most `deadline`, including delay and window. Then
    /// the remaining connections are closed.
    pub fn within(deadline: Duration) -> Shutdown {
        Shutdown {
            within: deadline,
            delay: Duration::ZERO,
            window: Duration::ZERO,
        }
    }

    /// Sets the time at the beginning in which the engine serves as before, except that
    /// [`Request::is_draining`](crate::Request::is_draining) is true: the time that a load
    /// balancer needs to notice it from a health check, so that it sends no client to an
    /// address without a listener. Default: none.
    pub fn delay(mut self, time: Duration) -> Shutdown {
        self.delay = time;
        self
    }

    /// Sets the time in which streams of channels end, each at a random moment, so that
    /// browsers do not all reconnect at once. Events that are published meanwhile reach the
    /// clients that are still there. The engine does not wait for the rest of the window
    /// when its last connection has ended. Default: none, each stream ends when its client
    /// has received everything. A stream for one client has until the deadline, see
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
