//! What an engine is made with.

use std::fmt;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

#[cfg(feature = "internals")]
use super::SimulatedEngine;
use super::listening::{Buffers, find_the_lost, listen_all};
use super::{Engine, EngineHandle};
use crate::exchange::{InFlight, IntoResponse, Rejection, Request, Response};
use crate::http::{HeaderError, Headers, Method};
use crate::hub::manager::ChannelManager;
use crate::hub::{REACTORS_MAX, Waker};
use crate::limits::Limits;
use crate::metrics::Meters;
use crate::proxies::{Network, Proxies};
use crate::reactor::net::Net;
use crate::reactor::sockets::Sockets;
use crate::reactor::{Budgets, ConnectionCounts, Reactor, Service, Setup};
use crate::router::{RouteError, Router};

/// An engine to be configured; see [`Engine::builder`].
#[must_use = "bind it"]
pub struct EngineBuilder {
    channels: Option<ChannelManager>,
    router: Router,
    limits: Limits,
    buffers: Buffers,
    budgets: Budgets,
    descriptors_max: usize,
    headers: Headers,
    proxies: Proxies,
    threads: usize,
    error_codes: Vec<&'static str>,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("limits", &self.limits)
            .field("buffers", &self.buffers)
            .finish_non_exhaustive()
    }
}

impl EngineBuilder {
    pub(super) fn new() -> EngineBuilder {
        EngineBuilder {
            channels: None,
            router: Router::default(),
            limits: Limits::default(),
            buffers: Buffers::default(),
            budgets: Budgets::default(),
            descriptors_max: usize::MAX,
            headers: Headers::new(),
            proxies: Proxies::default(),
            threads: 1,
            error_codes: Vec::new(),
        }
    }

    /// The channels to serve. Default: a manager of its own, which
    /// [`Engine::channels`] and [`Request::channels`] give. A manager is
    /// served by one engine.
    pub fn channels(mut self, channels: &ChannelManager) -> Self {
        self.channels = Some(channels.clone());
        self
    }

    /// Answers GET (and HEAD) requests to `path`. Parts in braces are
    /// parameters: `/rooms/{room}`; `{*rest}` at the end takes all that
    /// follows.
    ///
    /// Handlers run on the engine's thread and return at once; what takes
    /// time is for [`Response::deferred`]. A handler that panics answers 500, and is
    /// logged with the request's method, path and peer. So is a handler that runs
    /// for 100 ms or more, at most once a minute for each thread.
    ///
    /// # Errors
    /// When no request can match the route, when its path conflicts with another
    /// one, and when it already has a handler.
    pub fn get<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<Self, RouteError> {
        self.route(Method::Get, path, handler)
    }

    /// Answers POST requests to `path`; see [`get`](Self::get).
    ///
    /// # Errors
    /// When no request can match the route, when its path conflicts with another
    /// one, and when it already has a handler.
    pub fn post<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<Self, RouteError> {
        self.route(Method::Post, path, handler)
    }

    /// Answers DELETE requests to `path`; see [`get`](Self::get).
    ///
    /// # Errors
    /// When no request can match the route, when its path conflicts with another
    /// one, and when it already has a handler.
    pub fn delete<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<Self, RouteError> {
        self.route(Method::Delete, path, handler)
    }

    /// Answers requests of any method to `path`; see [`get`](Self::get).
    /// OPTIONS is answered without a route: with the methods that there are.
    ///
    /// # Errors
    /// When no request can match the route, when its path conflicts with another
    /// one, and when it already has a handler.
    pub fn route<R: IntoResponse>(
        mut self,
        method: Method,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Result<Self, RouteError> {
        self.router.add(method, path, handler)?;
        Ok(self)
    }

    /// Looks at every request before the routes do, in the order added; the
    /// first response wins. The place to refuse strangers, and to answer
    /// preflights.
    ///
    /// It looks once, as soon as the head is there: [`Request::body`] is empty
    /// then. Who is refused before its body has come is disconnected after the
    /// answer, and nothing of the body is kept. The response has to be a whole
    /// one: neither a stream nor deferred.
    pub fn before(
        mut self,
        look: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        self.router.before.push(Box::new(look));
        self
    }

    /// Checks the requests of one route before its handler runs, in the order
    /// added, after [`before`](Self::before) and in the same way: without the
    /// body. The place for access control. The route's handler may be added before
    /// or after its guards. A guard for GET also covers HEAD requests that the GET
    /// handler answers.
    ///
    /// # Errors
    /// When no request can match the route, and when its path conflicts with
    /// another one. [`bind`](Self::bind) fails if a guard's route has no handler.
    pub fn guard(
        mut self,
        method: Method,
        path: &str,
        look: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Result<Self, RouteError> {
        self.router.add_guard(method, path, look)?;
        Ok(self)
    }

    /// Looks at every response to a well-formed request before it is
    /// written, in the order added. The place to add headers.
    pub fn after(mut self, look: impl Fn(&Request, &mut Response) + Send + Sync + 'static) -> Self {
        self.router.after.push(Box::new(look));
        self
    }

    /// Calls `hook` for every malformed request, which no route receives. For logs;
    /// it runs on the engine's thread and must return at once.
    pub fn on_refusal(mut self, hook: impl Fn(&Rejection<'_>) + Send + Sync + 'static) -> Self {
        self.router.on_refusal.push(Box::new(hook));
        self
    }

    /// A header of every response, of those to malformed requests too.
    ///
    /// # Errors
    /// When the name or the value cannot be a header's, or the name is one of
    /// those with which the engine frames its responses.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HeaderError> {
        self.headers.insert(name.to_owned(), value.to_owned())?;
        Ok(self)
    }

    /// The proxies that say by the PROXY protocol (version 1 or 2) for whom
    /// they open a connection. What comes from these networks has to begin
    /// with its header, or is refused (`400`, code `proxy_header_invalid`), for
    /// else a client behind the proxy could bring a header of its own. What
    /// comes from elsewhere cannot claim an address: a header is no request,
    /// and refused too. Default: none.
    ///
    /// The address is told by [`Request::client_address`] and
    /// [`ClientInfo::address`](crate::ClientInfo::address).
    ///
    /// ```
    /// # use pushwheel::Engine;
    /// let engine = Engine::builder().proxy_protocol(["10.0.0.0/8".parse()?]);
    /// # Ok::<(), pushwheel::NetworkError>(())
    /// ```
    pub fn proxy_protocol(mut self, proxies: impl IntoIterator<Item = Network>) -> Self {
        self.proxies.with_preface.extend(proxies);
        self
    }

    /// The proxies whose `X-Forwarded-For` is believed. The client is the
    /// rightmost address in it that is none of theirs: whatever stands further
    /// left, anybody may have written. The header of a request that comes from
    /// elsewhere says nothing. Default: none.
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = Network>) -> Self {
        self.proxies.forwarding.extend(proxies);
        self
    }

    /// The codes of the errors that the routes answer (see
    /// [`Response::error`]), each to be counted by itself in
    /// [`Metrics::refusals`](crate::Metrics::refusals); those that nobody names count as `other`.
    pub fn error_codes(mut self, codes: &[&'static str]) -> Self {
        self.error_codes.extend_from_slice(codes);
        self
    }

    /// How many connections and requests there may be at once, how large a
    /// request may be, and how long a client may take: all of it, in place of
    /// what was said before. Defaults: see [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How many connections there may be at once. Default: 1,000,000; see
    /// [`Limits::connections_max`].
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.limits.connections_max = connections;
        self
    }

    /// How many of them one address may have. Default: no limit; see
    /// [`Limits::connections_per_address_max`].
    pub fn connections_per_address_max(mut self, connections: usize) -> Self {
        self.limits.connections_per_address_max = connections;
        self
    }

    /// How many descriptors the engine's connections may take: the process's limit
    /// on open files, less all else that it opens. Of that are four for each of the
    /// engine's threads: its listener, its poller, its waker, and whoever is at the
    /// acceptor.
    ///
    /// An eighth of them, 256 for each thread at the most, is kept for overflow connections. The
    /// rest limits the connections as [`Limits::connections_max`] does, if it is
    /// less: then the engine is full, and whoever comes is answered so.
    ///
    /// Default: nothing is known of them. When they run out, and no overflow connection is there
    /// to make room, the engine accepts nobody until somebody leaves, and is silent
    /// to health checks as well.
    pub fn descriptors_max(mut self, descriptors: usize) -> Self {
        self.descriptors_max = descriptors;
        self
    }

    /// How many requests may wait for answers from other threads. Default:
    /// 10,000; see [`Limits::requests_in_flight_max`].
    pub fn requests_in_flight_max(mut self, requests: usize) -> Self {
        self.limits.requests_in_flight_max = requests;
        self
    }

    /// How long a client may take for a request's head, and between the
    /// parts of its body; then it gets `408 Request Timeout`. Default: 10 s.
    pub fn head_timeout(mut self, time: Duration) -> Self {
        self.limits.head_timeout = time;
        self
    }

    /// How long a client may take for a body in all; then it gets `408 Request
    /// Timeout`. Default: 60 s.
    pub fn body_timeout(mut self, time: Duration) -> Self {
        self.limits.body_timeout = time;
        self
    }

    /// How long a connection may be idle between requests; then it is
    /// closed. Default: 60 s.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.limits.idle_timeout = time;
        self
    }

    /// How long a client may take nothing of what is written to it; then it
    /// is disconnected. Default: 30 s.
    pub fn stall_timeout(mut self, time: Duration) -> Self {
        self.limits.stall_timeout = time;
        self
    }

    /// How many bytes the kernel holds for each client that does not take what
    /// was written to it. Default: the system's, which on Linux grows with the
    /// connection up to the third number of `net.ipv4.tcp_wmem`, 4 MiB.
    ///
    /// This is memory that no limit of the engine's counts, and it is pinned
    /// by whoever stops reading, for as long as `stall_timeout`. Give some 16
    /// or 32 KiB where there are very many clients, or hostile ones; the rest
    /// waits in the channel's log, once for all. It costs throughput to one
    /// client, to which no more than so many bytes are sent in a round trip (at
    /// 100 ms and 32 KiB some 300 KB/s, which is plenty for events), and a
    /// replay takes more writes. Linux doubles the number, for its own
    /// bookkeeping, caps it at `net.core.wmem_max` before that, and takes 4,608
    /// bytes at the least.
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffers.send_bytes = Some(bytes);
        self
    }

    /// How many bytes the kernel holds for each client that sends more than is
    /// read. Default: the system's, on Linux up to the third number of
    /// `net.ipv4.tcp_rmem`, 6 MiB.
    ///
    /// Subscribers send next to nothing, so this is about those who publish:
    /// large bodies come slower with less, by the same arithmetic as in
    /// [`send_buffer_bytes`](Self::send_buffer_bytes). Linux doubles this
    /// number too, caps it at `net.core.rmem_max`, and takes 2,304 bytes at the
    /// least. 16 KiB or more is advised: below that whole packets may not fit.
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffers.receive_bytes = Some(bytes);
        self
    }

    /// How old a stream of channels may become; then it ends, and its client
    /// comes back and resumes. Default: no limit; see
    /// [`Limits::stream_age_max`].
    pub fn stream_age_max(mut self, time: Duration) -> Self {
        self.limits.stream_age_max = time;
        self
    }

    /// On how many threads the engine runs, each with connections of its own;
    /// the kernel spreads new ones over them. One thread reaches very many
    /// clients: more are for machines whose one core is full. Default: 1.
    ///
    /// # Panics
    /// When `threads` is 0 or more than 64.
    pub fn threads(mut self, threads: usize) -> Self {
        assert!(
            (1..=REACTORS_MAX).contains(&threads),
            "an engine runs on 1 to {REACTORS_MAX} threads"
        );
        self.threads = threads;
        self
    }

    /// Listens on `address`; port 0 takes any that is free, which
    /// [`Engine::local_addr`] then names. Of several addresses that a name
    /// stands for, the first that can be bound is taken.
    ///
    /// # Errors
    /// When no address can be bound, when another engine serves these channels,
    /// and when a guard protects no route: then the error has a [`RouteError`]
    /// inside.
    pub fn bind(self, address: impl ToSocketAddrs) -> io::Result<Engine> {
        let mut failure = io::Error::other("the address stands for nothing: give HOST:PORT");
        for address in address.to_socket_addrs()? {
            match listen_all(address, self.threads) {
                Ok(listeners) => return self.serve(listeners),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Serves a socket that listens already, as one from systemd does.
    ///
    /// # Errors
    /// When the socket cannot be polled, and as [`bind`](Self::bind).
    pub fn listen_on(self, listener: TcpListener) -> io::Result<Engine> {
        let others = (1..self.threads).map(|_| listener.try_clone());
        let mut listeners = others.collect::<io::Result<Vec<TcpListener>>>()?;
        listeners.push(listener);
        self.serve(listeners)
    }

    fn serve(self, listeners: Vec<TcpListener>) -> io::Result<Engine> {
        let address = listeners[0].local_addr()?;
        let mut nets = Vec::with_capacity(listeners.len());
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let socket = SockRef::from(&listener);
            find_the_lost(&socket)?;
            self.buffers.set(&socket)?;
            let sockets = Sockets::new(listener)?;
            let waker = sockets.waker();
            let wake: Waker = Box::new(move || {
                if let Err(error) = waker.wake() {
                    log::error!("an engine's thread cannot be woken: {error}");
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
        let (reactors, handle) = self.build(nets)?;
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
        let guards = self.router.check_guards();
        guards.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let channels = self.channels.unwrap_or_default();
        let (nets, wakers): (Vec<N>, Vec<Waker>) = nets.into_iter().unzip();
        let attached = channels.hub().attach(wakers);
        attached.map_err(|_| io::Error::other("another engine serves these channels"))?;
        let meters = nets.iter().map(|_| Meters::new(&self.error_codes).into());
        channels.hub().install(meters.collect());
        let service: Arc<dyn Service> = Arc::new(self.router);
        let descriptors = self.budgets.share(self.descriptors_max, nets.len());
        let counts = Arc::new(ConnectionCounts::new(descriptors));
        let in_flight = InFlight::default();
        let setup = |index: u16| Setup {
            index,
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
