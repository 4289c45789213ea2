//! From a configuration to an engine that listens.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;

use socket2::SockRef;

use super::EngineBuilder;
#[cfg(feature = "internals")]
use crate::engine::SimulatedEngine;
use crate::engine::listening::{detect_dead_peers, listen_all};
use crate::engine::{Engine, EngineHandle};
use crate::exchange::InFlight;
use crate::hub::Waker;
use crate::metrics::Meters;
#[cfg(feature = "internals")]
use crate::reactor::Budgets;
use crate::reactor::net::Net;
use crate::reactor::sockets::Sockets;
use crate::reactor::{ConnectionCounts, Reactor, Service, Setup};

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
        let mut failure = io::Error::other("the name has no address. Pass HOST:PORT");
        for address in address.to_socket_addrs()? {
            match listen_all(address, builder.threads) {
                Ok(listeners) => return builder.serve(listeners),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Serves a socket that already listens, such as one from systemd.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and when the socket cannot be polled.
    pub fn listen_on(self, listener: TcpListener) -> io::Result<Engine> {
        let builder = self.checked()?;
        let others = (1..builder.threads).map(|_| listener.try_clone());
        let mut listeners = others.collect::<io::Result<Vec<TcpListener>>>()?;
        listeners.push(listener);
        builder.serve(listeners)
    }

    /// Fails with the first mistake of the configuration, if it has one.
    fn checked(mut self) -> io::Result<Self> {
        let guards = self.router.check_guards();
        self.note(guards);
        match self.mistake.take() {
            Some(mistake) => Err(io::Error::new(io::ErrorKind::InvalidInput, mistake)),
            None => Ok(self),
        }
    }

    fn serve(self, listeners: Vec<TcpListener>) -> io::Result<Engine> {
        let address = listeners[0].local_addr()?;
        let mut nets = Vec::with_capacity(listeners.len());
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let socket = SockRef::from(&listener);
            detect_dead_peers(&socket)?;
            self.buffers.set(&socket)?;
            let sockets = Sockets::new(listener)?;
            let waker = sockets.waker();
            let wake: Waker = Box::new(move || {
                if let Err(error) = waker.wake() {
                    log::error!("cannot wake a thread of the engine ({error})");
                }
            });
            nets.push((sockets, wake));
        }
        let (reactors, handle) = self.build(nets)?;
        Ok(Engine {
            reactors,
            address,
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
        let (reactors, handle) = self.checked()?.build(nets)?;
        let simulated = |reactor| SimulatedEngine {
            reactor,
            handle: handle.clone(),
        };
        Ok(reactors.into_iter().map(simulated).collect())
    }

    fn build<N: Net>(
        mut self,
        nets: Vec<(N, Waker)>,
    ) -> io::Result<(Vec<Reactor<N>>, EngineHandle)> {
        let channels = self.channels.unwrap_or_default();
        let (nets, wakers): (Vec<N>, Vec<Waker>) = nets.into_iter().unzip();
        let meters = || Meters::new(&self.error_codes);
        let attached = channels
            .hub()
            .attach(wakers.into_iter().map(|waker| (waker, meters())));
        let attachment = Arc::new(attached.map_err(|_| {
            let message = "another engine serves these channels. Shut it down first";
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
        let reactors = (0..)
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
