//! [`Engine`]: routes and channels behind a listening socket.

mod builder;
mod handle;
mod listening;
#[cfg(feature = "internals")]
mod simulated;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::exchange::Shutdown;
use crate::hub::manager::ChannelManager;
use crate::reactor::Reactor;
use crate::reactor::sockets::Sockets;
pub use builder::EngineBuilder;
pub use handle::EngineHandle;
pub use listening::Listener;
#[cfg(feature = "internals")]
pub use simulated::SimulatedEngine;

/// A push engine: it listens, answers requests by its routes, and streams the events of its
/// channels. It runs on one thread by default
/// ([`EngineBuilder::threads`]).
///
/// ```no_run
/// use pushwheel::{ChannelManager, Engine, Event, Response};
///
/// let channels = ChannelManager::new();
/// let news = channels.get_or_create("news")?;
/// let stream = news.clone();
/// let engine = Engine::builder()
///     .channels(&channels)
///     .get("/news", move |_| Response::subscribe(&stream))
///     .bind("127.0.0.1:8080")?;
/// let running = engine.spawn()?;
/// news.broadcast(Event::new("headline", "It works"))?;
/// running.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    /// One for each thread.
    reactors: Vec<Reactor<Sockets>>,
    address: SocketAddr,
    handle: EngineHandle,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Returns the address on which the engine listens: the first of several, and `0.0.0.0:0`
    /// if it listens on UNIX sockets only.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the engine's channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        &self.handle.channels
    }

    /// Returns a handle, with which other threads shut the engine down.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Serves on this thread, and on more threads if the engine has several, until it is
    /// shut down. Afterwards another engine can serve the same channels.
    ///
    /// # Errors
    /// When the system's poller fails, or a thread cannot be started. The engine has ended
    /// then too.
    pub fn run(self) -> io::Result<()> {
        let tie = || Tie(Some(self.handle.clone()));
        let own = tie();
        let mut reactors = self.reactors.into_iter();
        let first = reactors.next();
        let others = reactors.map(|mut reactor| {
            let (tie, thread) = (tie(), thread::Builder::new().name("pushwheel".into()));
            thread.spawn(move || tie.hold(|| reactor.run()))
        });
        let others = others.collect::<io::Result<Vec<_>>>()?;
        let mut result = own.hold(|| first.map_or(Ok(()), |mut reactor| reactor.run()));
        for thread in others {
            result = result.and(thread.join().unwrap_or_else(panicked));
        }
        result
    }

    /// Serves on a new thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(self) -> io::Result<RunningEngine> {
        let (address, handle) = (self.address, self.handle.clone());
        let thread = thread::Builder::new()
            .name("pushwheel".into())
            .spawn(move || self.run())?;
        Ok(RunningEngine {
            thread,
            address,
            handle,
        })
    }
}

/// An engine that serves on a thread of its own.
///
/// If this is dropped, the engine continues. It ends with the process or by
/// [`EngineHandle::shutdown`].
#[derive(Debug)]
#[must_use = "the engine continues if this is dropped: join it or shut it down"]
pub struct RunningEngine {
    thread: JoinHandle<io::Result<()>>,
    address: SocketAddr,
    handle: EngineHandle,
}

impl RunningEngine {
    /// Returns the address on which the engine listens, as [`Engine::local_addr`].
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the engine's channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        &self.handle.channels
    }

    /// Returns a handle, with which other threads shut the engine down.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Waits until the engine has ended.
    ///
    /// # Errors
    /// When the system's poller failed or a thread of the engine panicked, and when this is
    /// called in a handler or callback of this engine, whose thread cannot wait for itself.
    pub fn join(self) -> io::Result<()> {
        if self.thread.thread().id() == thread::current().id() {
            return Err(io::Error::other(
                "an engine's own thread cannot wait for its end. Call `EngineHandle::shutdown` \
                 in a handler, and `join` on another thread",
            ));
        }
        self.thread.join().unwrap_or_else(panicked)
    }

    /// Shuts the engine down and waits until it has ended. A handler calls
    /// [`EngineHandle::shutdown`] instead, which does not wait.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn shutdown(self, how: impl Into<Shutdown>) -> io::Result<()> {
        self.handle.shutdown(how);
        self.join()
    }
}

/// Ties an engine's threads together: if one of them fails, the others stop too.
struct Tie(Option<EngineHandle>);

impl Tie {
    fn hold(mut self, run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        run()?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.shutdown(Duration::ZERO);
        }
    }
}

/// Returns the result of a thread that panicked.
fn panicked(_: Box<dyn std::any::Any + Send>) -> io::Result<()> {
    Err(io::Error::other("an engine's thread panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_fails_or_panics_or_never_begins_stops_the_others() {
        type Run = fn() -> io::Result<()>;
        let ends: [Run; 2] = [
            || Err(io::Error::other("the poller is gone")),
            || panic!("a mistake of ours"),
        ];
        for end in ends {
            let running = Engine::builder().threads(2).bind("127.0.0.1:0");
            let running = running.unwrap().spawn().unwrap();
            let tie = Tie(Some(running.handle()));
            let ended = thread::spawn(move || tie.hold(end)).join();
            assert!(!matches!(ended, Ok(Ok(()))));
            running.join().unwrap();
        }
        let running = Engine::builder().threads(2).bind("127.0.0.1:0");
        let running = running.unwrap().spawn().unwrap();
        drop(Tie(Some(running.handle())));
        running.join().unwrap();
    }
}
