//! The configuration of an engine: its channels, routes, limits and sockets.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

#[cfg(feature = "internals")]
use super::SimulatedEngine;
use super::listening::{Buffers, detect_dead_peers, listen_all};
use super::{Engine, EngineHandle};
use crate::exchange::{InFlight, IntoResponse, Rejection, Request, Response};
use crate::http::{Headers, Method};
use crate::hub::manager::ChannelManager;
use crate::hub::{REACTORS_MAX, Waker};
use crate::limits::Limits;
use crate::metrics::Meters;
use crate::proxies::{Network, Proxies};
use crate::reactor::net::Net;
use crate::reactor::sockets::Sockets;
use crate::reactor::{Budgets, ConnectionCounts, Reactor, Service, Setup};
use crate::router::Router;

/// Configures an engine, by method chaining; see [`Engine::builder`].
///
/// No method but [`bind`](Self::bind) and [`listen_on`](Self::listen_on) fails: they
/// return the first mistake of the configuration, such as a second handler for a
/// route.
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
    /// The first mistake of the configuration.
    mistake: Option<Box<dyn Error + Send + Sync>>,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("limits", &self.limits)
            .field("buffers", &self.buffers)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Returns a builder that configures an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
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
            mistake: None,
        }
    }

    /// Keeps the first mistake for [`bind`](Self::bind).
    fn note<E: Error + Send + Sync + 'static>(&mut self, result: Result<(), E>) {
        if let Err(error) = result {
            self.mistake.get_or_insert_with(|| error.into());
        }
    }

    /// Sets the channels to serve. Default: a new manager, which
    /// [`Engine::channels`] and [`Request::channels`] return.
    ///
    /// One engine at a time serves a manager. When it has ended, another engine may
    /// serve the same manager: histories, ids and figures continue.
    pub fn channels(mut self, channels: &ChannelManager) -> Self {
        self.channels = Some(channels.clone());
        self
    }

    /// Answers GET (and HEAD) requests to `path`. Parts in braces are
    /// parameters: `/rooms/{room}`; `{*rest}` at the end matches the rest of a path.
    ///
    /// Handlers run on the engine's thread and must return at once: for slow work
    /// see [`Response::deferred`]. If a handler panics, the response is 500, and the
    /// panic is logged with the request's method, path and client address. A handler
    /// that runs for 100 ms or more is logged too, at most once a minute for each
    /// thread.
    ///
    /// A route that no request can match, a path that conflicts with another one, and
    /// a second handler for a route are errors, which [`bind`](Self::bind) returns.
    pub fn get<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::Get, path, handler)
    }

    /// Answers POST requests to `path`; see [`get`](Self::get).
    pub fn post<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::Post, path, handler)
    }

    /// Answers DELETE requests to `path`; see [`get`](Self::get).
    pub fn delete<R: IntoResponse>(
        self,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(Method::Delete, path, handler)
    }

    /// Answers requests of `method` to `path`; see [`get`](Self::get). OPTIONS
    /// requests need no route: the response lists the methods of the path.
    pub fn route<R: IntoResponse>(
        mut self,
        method: Method,
        path: &str,
        handler: impl Fn(&Request) -> R + Send + Sync + 'static,
    ) -> Self {
        let added = self.router.add(method, path, handler);
        self.note(added);
        self
    }

    /// Checks every request before it is routed, in the order added; the first
    /// response wins. The place for access control of all routes, and for CORS
    /// preflights.
    ///
    /// A check runs once, when the request's head is complete: [`Request::body`] is
    /// empty then. If it answers before the body has arrived, the client is
    /// disconnected after the response, and nothing of the body is kept. The
    /// response must have a body: not a stream, and not deferred.
    ///
    /// A check can pass a value to the handler: see [`Request::extensions_mut`].
    pub fn before(
        mut self,
        check: impl Fn(&mut Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        self.router.before.push(Box::new(check));
        self
    }

    /// Checks the requests of one route before its handler runs, in the order
    /// added, after [`before`](Self::before) and in the same way: without the
    /// body. The place for access control. The route's handler may be added before
    /// or after its guards. A guard for GET also covers HEAD requests that the GET
    /// handler answers. A guard whose route has no handler is an error, which
    /// [`bind`](Self::bind) returns.
    ///
    /// A guard can pass a value to the handler, such as the user that a cookie
    /// stands for:
    ///
    /// ```
    /// use pushwheel::{Engine, Method, Request, Response};
    ///
    /// #[derive(Debug)]
    /// struct User(String);
    ///
    /// # fn user_of(cookie: Option<&str>) -> Option<User> { cookie.map(|c| User(c.into())) }
    /// let engine = Engine::builder()
    ///     .guard(Method::Get, "/inbox", |request: &mut Request| {
    ///         match user_of(request.header("cookie")) {
    ///             Some(user) => {
    ///                 request.extensions_mut().insert(user);
    ///                 None
    ///             }
    ///             None => Some(Response::error(401, "sign_in", "no session. Sign in")),
    ///         }
    ///     })
    ///     .get("/inbox", |request| {
    ///         let user: Option<&User> = request.extensions().get();
    ///         format!("{user:?}")
    ///     });
    /// ```
    pub fn guard(
        mut self,
        method: Method,
        path: &str,
        check: impl Fn(&mut Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        let added = self.router.add_guard(method, path, check);
        self.note(added);
        self
    }

    /// Calls `hook` for every response to a well-formed request before it is written,
    /// in the order added. The place to add headers.
    pub fn after(mut self, hook: impl Fn(&Request, &mut Response) + Send + Sync + 'static) -> Self {
        self.router.after.push(Box::new(hook));
        self
    }

    /// Calls `hook` for every malformed request, which no route receives. For logs;
    /// the hook runs on the engine's thread and must return at once.
    pub fn on_refusal(mut self, hook: impl Fn(&Rejection<'_>) + Send + Sync + 'static) -> Self {
        self.router.on_refusal.push(Box::new(hook));
        self
    }

    /// Sets a header of every response, of those to malformed requests too. A
    /// response's own header of this name wins. An invalid name or value, and a
    /// header that the engine sets itself, is an error, which [`bind`](Self::bind)
    /// returns.
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        let inserted = self.headers.insert(name, value);
        self.note(inserted);
        self
    }

    /// Sets the networks of proxies that send the PROXY protocol (version 1 or 2). A
    /// connection from these networks must begin with its header, otherwise it is
    /// rejected with 400 and the code `proxy_header_invalid`: without this rule, a
    /// client behind such a proxy could send a header of its own. A PROXY header from
    /// another address is a malformed request. Default: none.
    ///
    /// The address in the header is [`Request::client_address`] and
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

    /// Sets the networks of proxies whose `X-Forwarded-For` is trusted. The client's
    /// address is the rightmost address in the header that is outside these networks,
    /// because a client can write anything to the left of it. The header is ignored in
    /// requests from other addresses. Default: none.
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = Network>) -> Self {
        self.proxies.forwarding.extend(proxies);
        self
    }

    /// Adds error codes (see [`Response::error`]) that
    /// [`Metrics::refusals`](crate::Metrics::refusals) counts separately. Other codes
    /// count as `other`.
    pub fn error_codes(mut self, codes: &[&'static str]) -> Self {
        self.error_codes.extend_from_slice(codes);
        self
    }

    /// Replaces all limits on connections, requests and times, including those set
    /// before. Defaults: see [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Maximum connections. Default: 1,000,000; see [`Limits::connections_max`].
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.limits.connections_max = connections;
        self
    }

    /// Maximum connections of one address. Default: no limit; see
    /// [`Limits::connections_per_address_max`].
    pub fn connections_per_address_max(mut self, connections: usize) -> Self {
        self.limits.connections_per_address_max = connections;
        self
    }

    /// Maximum descriptors that the engine may use: the process's limit on open files
    /// minus all other files of the process. Each of the engine's threads needs four:
    /// listener, poller, waker, and the connection that is being accepted.
    ///
    /// An eighth of the rest, at most 256 for each thread, is reserved for overflow
    /// connections: a request for a stream on one is answered that the engine is full. The remainder limits
    /// connections as [`Limits::connections_max`] does, if it is lower.
    ///
    /// Default: unknown. Then, when the process has no more descriptors and no
    /// overflow connection can be closed, the engine accepts no connection until
    /// another one ends, and health checks get no response either.
    pub fn descriptors_max(mut self, descriptors: usize) -> Self {
        self.descriptors_max = descriptors;
        self
    }

    /// Maximum requests that wait for answers from other threads. Default: 10,000;
    /// see [`Limits::requests_in_flight_max`].
    pub fn requests_in_flight_max(mut self, requests: usize) -> Self {
        self.limits.requests_in_flight_max = requests;
        self
    }

    /// Maximum time for a request's head, and between the parts of its body. Then the
    /// client receives `408 Request Timeout`. Default: 10 s.
    pub fn head_timeout(mut self, time: Duration) -> Self {
        self.limits.head_timeout = time;
        self
    }

    /// Maximum time for a whole body. Then the client receives `408 Request Timeout`.
    /// Default: 60 s.
    pub fn body_timeout(mut self, time: Duration) -> Self {
        self.limits.body_timeout = time;
        self
    }

    /// Maximum idle time of a connection between requests. Then it is closed. Default:
    /// 60 s.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.limits.idle_timeout = time;
        self
    }

    /// Maximum time in which a client reads nothing of the data that waits for it. Then
    /// it is disconnected. Default: 30 s.
    pub fn stall_timeout(mut self, time: Duration) -> Self {
        self.limits.stall_timeout = time;
        self
    }

    /// Size of the kernel's send buffer of each connection. Default: the system's. On
    /// Linux it grows with the connection up to the third number of
    /// `net.ipv4.tcp_wmem`, 4 MiB.
    ///
    /// No limit of the engine counts this memory, and a client that stops reading
    /// occupies it until `stall_timeout`. Set 16 to 32 KiB with very many clients, or
    /// with hostile ones: events beyond it wait in the channel's log, once for all
    /// clients. The cost is throughput to one client, which receives at most this many
    /// bytes in a round trip (32 KiB at 100 ms: about 300 KB/s), and more writes for a
    /// replay. Linux doubles the number for its bookkeeping, after it has capped it at
    /// `net.core.wmem_max`, and uses at least 4,608 bytes.
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffers.send_bytes = Some(bytes);
        self
    }

    /// Size of the kernel's receive buffer of each connection. Default: the system's,
    /// on Linux up to the third number of `net.ipv4.tcp_rmem`, 6 MiB.
    ///
    /// Subscribers send next to nothing, so this concerns publishers: large bodies
    /// arrive slower with less, by the arithmetic of
    /// [`send_buffer_bytes`](Self::send_buffer_bytes). Linux doubles this number too,
    /// caps it at `net.core.rmem_max`, and uses at least 2,304 bytes. Below 16 KiB
    /// whole packets may not fit.
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffers.receive_bytes = Some(bytes);
        self
    }

    /// Maximum age of a stream of channels. Then it ends, and its client reconnects and
    /// resumes. Default: no limit; see [`Limits::stream_age_max`].
    pub fn stream_age_max(mut self, time: Duration) -> Self {
        self.limits.stream_age_max = time;
        self
    }

    /// Number of the engine's threads, each with connections of its own; the kernel
    /// distributes new ones. One thread serves very many clients: use more if one core
    /// is fully loaded. Default: 1.
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
