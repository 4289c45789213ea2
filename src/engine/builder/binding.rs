//! From a configuration to an engine that listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::EngineBuilder;
#[cfg(feature = "internals")]
use crate::engine::SimulatedEngine;
use crate::engine::{Engine, EngineHandle, Listener};
use crate::exchange::InFlight;
use crate::hub::{Place, Waker};
use crate::metrics::Meters;
#[cfg(feature = "internals")]
use crate::reactor::Budgets;
use crate::reactor::net::Net;
use crate::reactor::sockets::Sockets;
use crate::reactor::{ConnectionCounts, Reactor, Service, Setup};

/// The address of an engine that listens on UNIX sockets only.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl EngineBuilder {
    /// Listens on `address`. Port 0 means any free port, which
    /// [`Engine::local_addr`] returns. If a name resolves to several addresses, the
    /// engine uses the first that can be bound.
    ///
    /// # Errors
    /// - [`InvalidInput`](io::ErrorKind::InvalidInput): the configuration has a
    ///   mistake. The error inside is a [`RouteError`](crate::RouteError) or a
    ///   [`HeaderError`](crate::HeaderError).
    /// - [`ResourceBusy`](io::ErrorKind::ResourceBusy): another engine serves these
    ///   channels.
    /// - Other kinds: the system's, when no address can be bound.
    pub fn bind(self, address: impl ToSocketAddrs) -> io::Result<Engine> {
        let builder = self.checked()?;
        let listener = builder.listener_at(address)?;
        builder.serve(vec![listener])
    }

    /// Listens on `address` with a socket for each thread of this engine, as
    /// [`bind`](Self::bind) does, for [`listen_on_all`](Self::listen_on_all). Set
    /// [`threads`](Self::threads) before.
    ///
    /// # Errors
    /// The system's, when no address can be bound.
    pub fn listener_at(&self, address: impl ToSocketAddrs) -> io::Result<Listener> {
        let mut failure = io::Error::other("the name has no address. Pass HOST:PORT");
        for address in address.to_socket_addrs()? {
            match Listener::bind(address, self.threads) {
                Ok(listener) => return Ok(listener),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Serves a socket that already listens, such as one from systemd.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and when the socket cannot be polled.
    pub fn listen_on(self, listener: impl Into<Listener>) -> io::Result<Engine> {
        self.listen_on_all([listener.into()])
    }

    /// Serves several sockets that already listen, of TCP or UNIX.
    ///
    /// ```
    /// # use pushwheel::Engine;
    /// let builder = Engine::builder().threads(2);
    /// let [one, other] = ["127.0.0.1:0", "[::1]:0"].map(|at| builder.listener_at(at));
    /// # if other.is_err() { return Ok(()); } // a machine without IPv6
    /// let engine = builder.listen_on_all([one?, other?])?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`listen_on`](Self::listen_on), and [`InvalidInput`](io::ErrorKind::InvalidInput)
    /// without a socket.
    pub fn listen_on_all(
        self,
        listeners: impl IntoIterator<Item = Listener>,
    ) -> io::Result<Engine> {
        self.checked()?.serve(listeners.into_iter().collect())
    }

    /// Fails with the first mistake of the configuration, if it has one.
    pub(crate) fn checked(mut self) -> io::Result<Self> {
        let guards = self.router.check_guards();
        self.note(guards);
        match self.mistake.take() {
            Some(mistake) => Err(io::Error::new(io::ErrorKind::InvalidInput, mistake)),
            None => Ok(self),
        }
    }

    fn serve(self, listeners: Vec<Listener>) -> io::Result<Engine> {
        if listeners.is_empty() {
            let message = "an engine needs a socket that listens. Pass one";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let addresses = listeners.iter().map(Listener::local_addr);
        let addresses: Vec<_> = addresses.collect::<io::Result<_>>()?;
        let address = addresses.into_iter().flatten().next();
        let mut of_threads: Vec<Vec<_>> = (0..self.threads).map(|_| Vec::new()).collect();
        for listener in listeners {
            let sockets = listener.into_sockets(self.threads, self.buffers)?;
            for (of_thread, socket) in of_threads.iter_mut().zip(sockets) {
                of_thread.push(socket);
            }
        }
        let mut nets = Vec::with_capacity(self.threads);
        for listeners in of_threads {
            #[allow(unused_mut, reason = "only Linux sends in batches")]
            let mut sockets = Sockets::new(listeners)?;
            #[cfg(target_os = "linux")]
            if let Some(make) = &self.batch_senders {
                sockets.send_in_batches(make.clone());
            }
            let waker = sockets.waker();
            let wake: Waker = Box::new(move || {
                if let Err(error) = waker.wake() {
                    log::error!("cannot wake a thread of the engine ({error})");
                }
            });
            nets.push((sockets, wake));
        }
        let (reactors, handle) = self.build(Place::Engine, nets)?;
        Ok(Engine {
            reactors,
            address: address.unwrap_or(NO_ADDRESS),
            handle,
        })
    }

    /// Has the loop do more or less in one go, for simulations.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn budgets(mut self, budgets: Budgets) -> Self {
        self.budgets = budgets;
        self
    }

    /// Puts loops on networks of another making, one on each, for simulations.
    ///
    /// # Errors
    /// When another engine serves these channels.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub fn simulate<N: Net>(self, nets: Vec<(N, Waker)>) -> io::Result<Vec<SimulatedEngine<N>>> {
        let (reactors, handle) = self.checked()?.build(Place::Engine, nets)?;
        let simulated = |reactor| SimulatedEngine {
            reactor,
            handle: handle.clone(),
        };
        Ok(reactors.into_iter().map(simulated).collect())
    }

    /// Returns a reactor on each network, and the handle of all of them.
    pub(crate) fn build<N: Net>(
        mut self,
        place: Place,
        nets: Vec<(N, Waker)>,
    ) -> io::Result<(Vec<Reactor<N>>, EngineHandle)> {
        let channels = self.channels.unwrap_or_default();
        let (nets, wakers): (Vec<N>, Vec<Waker>) = nets.into_iter().unzip();
        let meters = || Meters::new(&self.error_codes);
        let attached = channels
            .hub()
            .attach(place, wakers.into_iter().map(|waker| (waker, meters())));
        let attachment = Arc::new(attached.map_err(|_| {
            let message = match place {
                Place::Engine => "another engine serves these channels. Shut it down first",
                Place::Mount => "64 threads serve these channels. Shut an engine or a mount down",
            };
            io::Error::new(io::ErrorKind::ResourceBusy, message)
        })?);
        let service: Arc<dyn Service> = Arc::new(self.router);
        let descriptors = self.budgets.share(self.descriptors_max, nets.len());
        let counts = Arc::new(ConnectionCounts::new(descriptors));
        let in_flight = InFlight::default();
        let setup = |index: u16| Setup {
            index,
            attachment: attachment.clone(),
            channels: channels.clone(),
            service: service.clone(),
            limits: self.limits.clone(),
            counts: counts.clone(),
            in_flight: in_flight.clone(),
            budgets: self.budgets.clone(),
            headers: self.headers.clone(),
            proxies: self.proxies.clone(),
        };
        let reactors = (attachment.engine().first..)
            .zip(nets)
            .map(|(index, net)| Reactor::new(net, setup(index)));
        let reactors: Vec<Reactor<N>> = reactors.collect();
        let handle = EngineHandle {
            command_queues: reactors.iter().map(|r| r.command_queue().clone()).collect(),
            channels: channels.clone(),
            counts: counts.clone(),
            in_flight: in_flight.clone(),
            order: Arc::default(),
        };
        Ok((reactors, handle))
    }
}
