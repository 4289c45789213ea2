//! Streams without sockets, for a program that has an HTTP server already.
//!
//! A [`Mount`] is a reactor on a network of pipes: its feeds, cursors, timers and endings
//! are those of an [`Engine`](crate::Engine). The program's server reads a request, passes
//! its head to the mount, and sends on the head and the body that the mount answers. A
//! batch is gathered once and copied once for all clients of a channel. A body holds no
//! queue: a client whose server takes nothing stays behind in the log, under the channel's
//! lag policy.
//!
//! The package `pushwheel-mount` has bodies and responses for hyper and axum.
//!
//! | file | content |
//! | --- | --- |
//! | `inbox`, `pipe` | what the server's threads and the reactor share |
//! | `pipes` | the network over these |
//! | `mounted_request`, `mounted` | requests and responses of another server |
//! | `events` | a channel's events in the program itself |

mod events;
mod inbox;
mod mounted;
mod mounted_request;
mod pipe;
mod pipes;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::engine::{Engine, EngineBuilder, EngineHandle};
use crate::exchange::{Exchange, IntoResponse, Response, Shutdown};
use crate::hub::manager::ChannelManager;
use crate::hub::{Place, Waker};
pub use events::{Events, LiveEvent};
use inbox::Inbox;
pub use mounted::{Answering, Mounted, MountedBody};
pub use mounted_request::{MountError, MountedRequest};
use pipe::Arrival;
pub use pipe::Chunk;
use pipes::Pipes;

/// Streams for a program that has an HTTP server already: the server reads requests and
/// writes responses, and the mount makes their bodies from the events of channels.
///
/// A cheap handle: clone it. When the last clone is dropped, the mount is shut down at once.
/// A mount has one thread. It may serve the channels of an engine that runs, and several
/// mounts may serve the same channels.
///
/// `C` is the type of the bytes that bodies return.
///
/// ```
/// use pushwheel::{ChannelManager, Event, Mount, MountedRequest, Response};
///
/// let channels = ChannelManager::new();
/// let news = channels.get_or_create("news")?;
/// let mount: Mount = Mount::new(&channels)?;
///
/// let request = MountedRequest::get("/news", ([192, 0, 2, 1], 4000).into());
/// let request = request.header("Accept", "text/event-stream");
/// let mut response = mount.respond(&request, Response::subscribe(&news)).wait()?;
/// assert_eq!(response.status, 200);
/// news.broadcast(Event::new("headline", "It works"))?;
/// let mut stream = String::new();
/// while !stream.contains("It works") {
///     let bytes = response.body.next_bytes().expect("it goes on");
///     stream.push_str(std::str::from_utf8(&bytes)?);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mount<C = Arc<[u8]>>(Arc<Shared<C>>);

/// What the handles of a mount share.
struct Shared<C> {
    handle: EngineHandle,
    inbox: Arc<Inbox<Arrival<C>>>,
}

impl<C> Drop for Shared<C> {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::ZERO);
    }
}

impl<C> Clone for Mount<C> {
    fn clone(&self) -> Self {
        Mount(self.0.clone())
    }
}

impl<C> fmt::Debug for Mount<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").finish_non_exhaustive()
    }
}

impl EngineBuilder {
    /// Returns a mount with this configuration instead of an engine that listens: its
    /// limits, headers, hooks and, for [`Mount::call`], routes. Limits that concern
    /// sockets and the reading of requests have no effect, nor has
    /// [`threads`](Self::threads).
    ///
    /// # Errors
    /// - [`InvalidInput`](io::ErrorKind::InvalidInput): the configuration has a mistake.
    /// - [`ResourceBusy`](io::ErrorKind::ResourceBusy): 64 threads of engines and mounts
    ///   serve these channels.
    /// - Other kinds: the thread cannot be started.
    pub fn mount<C: Chunk>(self) -> io::Result<Mount<C>> {
        let inbox = Arc::new(Inbox::new());
        let woken = inbox.clone();
        let wake: Waker = Box::new(move || woken.wake());
        let net = Pipes::new(inbox.clone());
        let (reactors, handle) = self.checked()?.build(Place::Mount, vec![(net, wake)])?;
        let shared = Arc::new(Shared { handle, inbox });
        for mut reactor in reactors {
            let thread = thread::Builder::new().name("pushwheel-mount".into());
            thread.spawn(move || {
                if let Err(error) = reactor.run() {
                    log::error!("a mount has failed ({error})");
                }
            })?;
        }
        Ok(Mount(shared))
    }
}

impl<C: Chunk> Mount<C> {
    /// Returns a mount of these channels with the default limits; see
    /// [`EngineBuilder::mount`] for others.
    ///
    /// # Errors
    /// As [`EngineBuilder::mount`].
    pub fn new(channels: &ChannelManager) -> io::Result<Mount<C>> {
        Engine::builder().channels(channels).mount()
    }

    /// Answers a request of the program's server with `answer`: usually a
    /// [`Subscription`](crate::Subscription), whose stream begins where the request says.
    /// The join, and the hooks of the subscription, run on the mount's thread.
    pub fn respond(&self, request: &MountedRequest, answer: impl IntoResponse) -> Answering<C> {
        self.pass(request, Some(answer.into_response()))
    }

    /// Answers a request by the routes that the mount was built with.
    pub fn call(&self, request: &MountedRequest) -> Answering<C> {
        self.pass(request, None)
    }

    fn pass(&self, request: &MountedRequest, answer: Option<Response>) -> Answering<C> {
        let message = match request.message() {
            Ok(message) => message,
            Err(error) => return Answering::failed(error),
        };
        let (writer, reader) = pipe::pipe(&self.0.inbox);
        let exchange = Exchange {
            message,
            peer: request.address(),
            answer,
        };
        // A mount that has ended drops the writer, so the response is an error.
        self.0.inbox.bring((writer, exchange));
        Answering::new(reader)
    }
}

impl<C> Mount<C> {
    /// Shuts the mount down gracefully, and returns at once; see
    /// [`EngineHandle::shutdown`]. Published events are delivered, and streams end, each
    /// with a different reconnection delay, so a graceful shutdown of the program's server
    /// comes to its end. Later requests are answered with [`MountError::Ended`].
    pub fn shutdown(&self, how: impl Into<Shutdown>) {
        self.0.handle.shutdown(how);
    }

    /// Returns a handle for the mount's limits and figures. It does not keep the mount
    /// alive.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.0.handle.clone()
    }

    /// Returns the channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        self.0.handle.channels()
    }
}
