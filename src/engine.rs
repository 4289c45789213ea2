//! The engine: routes and channels behind a listening socket.

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
#[cfg(feature = "internals")]
pub use simulated::SimulatedEngine;

/// A push engine: it listens, answers requests by its routes, and streams the
/// events of its channels, all on one thread unless told otherwise.
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
    /// One a thread.
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
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        &self.handle.channels
    }

    /// What other threads need to shut it down.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Serves on this thread (and on others, if it has more than one) until
    /// it is shut down.
    ///
    /// # Errors
    /// When the system's poller fails, which leaves nothing to be served, and
    /// when there is no thread to be had.
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

    /// Serves on a thread of its own.
    ///
    /// # Errors
    /// When there is no thread to be had.
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
/// If this is dropped, the engine goes on without it, and ends with the process or
/// by [`EngineHandle::shutdown`].
#[derive(Debug)]
#[must_use = "the engine goes on if this is dropped: join it or shut it down"]
pub struct RunningEngine {
    thread: JoinHandle<io::Result<()>>,
    address: SocketAddr,
    handle: EngineHandle,
}

impl RunningEngine {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        &self.handle.channels
    }

    /// What other threads need to shut it down.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Waits until it is shut down.
    ///
    /// Not to be called from a handler or a callback of this engine: its thread
    /// cannot wait for itself.
    ///
    /// # Errors
    /// When the system's poller failed, and on a thread of the engine.
    pub fn join(self) -> io::Result<()> {
        if self.thread.thread().id() == thread::current().id() {
            return Err(io::Error::other(
                "an engine's own thread cannot wait for its end. Call `EngineHandle::shutdown` \
                 in a handler, and `join` on another thread",
            ));
        }
        self.thread.join().unwrap_or_else(panicked)
    }

    /// Shuts it down, see [`EngineHandle::shutdown`], and waits for that, as
    /// [`join`](Self::join) does. A handler calls [`EngineHandle::shutdown`], which
    /// does not wait.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn shutdown(self, how: impl Into<Shutdown>) -> io::Result<()> {
        self.handle.shutdown(how);
        self.join()
    }
}

/// What ties an engine's threads together: one of several is not an engine, so
/// unless it comes to a good end, the others stop too.
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

/// What a thread that panicked comes to.
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
