//! [`Sink`]: the writing end of a stream for one client.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::hub::client::DisconnectReason;
use crate::hub::engine_thread::EngineThread;
use crate::hub::options::ChannelOptions;
use crate::hub::private::{Refused, Wait};
use crate::hub::published::PublishError;
use crate::hub::ready::Ready;
use crate::hub::retention::History;
use crate::hub::sink_signal::SinkSignal;
use crate::hub::{Attachment, ChannelKey, EngineState, Hub};

/// The options of a stream for one client.
#[derive(Clone, Debug)]
pub struct SinkOptions {
    channel: ChannelOptions,
}

impl Default for SinkOptions {
    fn default() -> Self {
        SinkOptions::new()
    }
}

impl SinkOptions {
    /// Returns the defaults, which the methods document.
    #[must_use]
    pub fn new() -> SinkOptions {
        let channel = ChannelOptions::new()
            .history(History::NONE)
            .backlog_bytes_max(64 << 10);
        SinkOptions { channel }
    }

    /// Maximum bytes that wait for the client, in addition to the kernel's buffers, before
    /// [`Sink::send`] waits. Default: 64 KiB.
    #[must_use]
    pub fn buffer_bytes_max(mut self, bytes: usize) -> Self {
        self.channel = self.channel.backlog_bytes_max(bytes);
        self
    }

    /// Maximum silence on the stream before a heartbeat; `Duration::ZERO` turns heartbeats
    /// off. Default: 30 s.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.channel = self.channel.heartbeat(interval);
        self
    }

    pub(crate) fn into_channel_options(self) -> ChannelOptions {
        self.channel
    }
}

/// The options of a stream for one client, and the function that opens it.
pub(crate) struct StreamPlan {
    pub(crate) options: SinkOptions,
    pub(crate) open: Box<dyn FnOnce(Sink) + Send>,
}

/// Why a sink did not send an event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkError {
    /// The stream has ended for this reason. Stop sending.
    Ended(DisconnectReason),
    /// The client is slow, and the buffer is full. Try again later.
    Full,
    /// The event is invalid or too large.
    Invalid(PublishError),
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkError::Ended(reason) => {
                let why = match reason {
                    DisconnectReason::Gone => "the client has closed the connection",
                    DisconnectReason::Stalled => "the client read nothing for too long",
                    DisconnectReason::Misbehaved => "the client kept sending bytes",
                    DisconnectReason::Shutdown => "the engine has shut down",
                    DisconnectReason::Failed => "the engine has failed",
                    other => other.as_str(),
                };
                write!(f, "the stream has ended ({why}). Stop sending.")
            }
            SinkError::Full => f.write_str(
                "the client is slow, and the buffer is full. Send later, or wait with `send`",
            ),
            SinkError::Invalid(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SinkError {}

impl From<Refused> for SinkError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => SinkError::Full,
            Refused::Ended(reason) => SinkError::Ended(reason),
        }
    }
}

/// The writing end of a stream for one client; see
/// [`Response::stream`](crate::Response::stream).
///
/// It is owned and can be sent to another thread. When the sink is closed or dropped, the
/// client receives what was sent, and the stream ends. A client that reads nothing for
/// [`Limits::stall_timeout`](crate::Limits::stall_timeout) is disconnected.
///
/// An engine that shuts down leaves the stream open until the deadline. A program that
/// checks [`is_draining`](Self::is_draining) between events can send a last event and
/// close the stream before that:
///
/// ```
/// use pushwheel::{DisconnectReason, Event, Sink, SinkError};
///
/// fn count(sink: &Sink) -> Result<(), SinkError> {
///     for n in 0.. {
///         if sink.is_draining() {
///             return sink.send(Event::new("later", n.to_string()));
///         }
///         match sink.send(Event::message(n.to_string())) {
///             Err(SinkError::Ended(DisconnectReason::Gone)) => break,
///             other => other?,
///         }
///     }
///     Ok(())
/// }
/// ```
///
/// Events have no id unless the program sets one. When a client comes back, the handler
/// decides where to continue, with [`Request::start`](crate::Request::start).
pub struct Sink {
    hub: Arc<Hub>,
    engine: Arc<EngineState>,
    key: ChannelKey,
    signal: Arc<SinkSignal>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl Sink {
    pub(crate) fn new(attachment: &Attachment, key: ChannelKey, signal: Arc<SinkSignal>) -> Sink {
        Sink {
            hub: attachment.hub().clone(),
            engine: attachment.engine().clone(),
            key,
            signal,
        }
    }

    /// Sends an event, and waits while the client is slow. On the engine's own thread it
    /// does not wait and may return [`SinkError::Full`].
    ///
    /// # Errors
    /// When the stream has ended, or the event is invalid.
    pub fn send<'a>(&self, event: impl Borrow<Event<'a>>) -> Result<(), SinkError> {
        self.feed(self.encode(event.borrow())?, Wait::Forever)
    }

    /// Sends an event if the client is not slow; never waits.
    ///
    /// # Errors
    /// When the stream has ended, the client is slow, or the event cannot be
    /// written.
    pub fn try_send<'a>(&self, event: impl Borrow<Event<'a>>) -> Result<(), SinkError> {
        self.feed(self.encode(event.borrow())?, Wait::None)
    }

    /// Sends an event, and waits for a slow client until `deadline`.
    ///
    /// # Errors
    /// When the stream has ended, the client is still slow at the deadline, or
    /// the event cannot be written.
    pub fn send_by<'a>(
        &self,
        event: impl Borrow<Event<'a>>,
        deadline: Instant,
    ) -> Result<(), SinkError> {
        self.feed(self.encode(event.borrow())?, Wait::Until(deadline))
    }

    /// Sends bytes as they are, and waits while the client is slow. They are not checked:
    /// the caller has to send valid parts of an event stream.
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn send_raw(&self, bytes: &[u8]) -> Result<(), SinkError> {
        self.feed(Ready::raw(bytes), Wait::Forever)
    }

    /// Sends bytes as they are, if the client is not slow; never waits.
    ///
    /// # Errors
    /// When the stream has ended, or the client is slow.
    pub fn try_send_raw(&self, bytes: &[u8]) -> Result<(), SinkError> {
        self.feed(Ready::raw(bytes), Wait::None)
    }

    /// Returns whether the stream has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ended().is_some()
    }

    /// Returns why the stream has ended, or `None` while it continues.
    #[must_use]
    pub fn ended(&self) -> Option<DisconnectReason> {
        self.signal.ended()
    }

    /// Returns whether the engine has begun to shut down. The stream continues until the
    /// deadline of the shutdown.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.engine.is_draining()
    }

    /// Ends the stream when the client has received everything; the same as dropping the
    /// sink.
    pub fn close(self) {
        drop(self);
    }

    fn encode(&self, event: &Event<'_>) -> Result<Ready, SinkError> {
        self.hub.encode_private(event).map_err(SinkError::Invalid)
    }

    fn feed(&self, ready: Ready, how_long: Wait) -> Result<(), SinkError> {
        let how_long = match how_long {
            _ if EngineThread::is_current() => Wait::None,
            other => other,
        };
        Ok(self.hub.feed(self.key, &self.signal, ready, how_long)?)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.hub.finish_private(self.key);
    }
}
