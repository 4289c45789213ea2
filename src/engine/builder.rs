//! The configuration of an engine: its channels, routes, limits and sockets.

mod binding;
mod limits;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
#[cfg(target_os = "linux")]
use std::io;
#[cfg(target_os = "linux")]
use std::sync::Arc;

use super::Engine;
use super::listening::Buffers;
use crate::exchange::{HandedOver, IntoResponse, Rejection, Request, Response};
use crate::http::{Headers, Method};
use crate::hub::REACTORS_MAX;
use crate::hub::manager::ChannelManager;
use crate::limits::Limits;
use crate::proxies::{Network, Proxies};
use crate::reactor::Budgets;
#[cfg(target_os = "linux")]
use crate::reactor::batch::{BatchSender, BatchSenders};
use crate::router::Router;

/// Configures an engine, by method chaining; see [`Engine::builder`].
///
/// No method fails but [`bind`](Self::bind) and those whose names begin with `listen`:
/// when the engine is made, they return the first mistake of the configuration, such as a
/// second handler for a route.
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
    #[cfg(target_os = "linux")]
    batch_senders: Option<Arc<BatchSenders>>,
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
            #[cfg(target_os = "linux")]
            batch_senders: None,
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

    /// Asks `handler` for requests of `method` to `path` when their head is complete, before
    /// their handler: for a request whose body is to be read line by line while it arrives,
    /// it returns [`Response::lines`](crate::Response::lines), or an error. With `None` the
    /// request is handled as any other. [`Request::body`](crate::Request::body) is empty or
    /// not; do not use it.
    ///
    /// ```
    /// use pushwheel::{Channel, ChannelManager, Engine, Event, LineReply, Method, ReadLines, Response};
    ///
    /// /// Publishes each line.
    /// struct Publish(Channel);
    ///
    /// impl ReadLines for Publish {
    ///     fn line(&mut self, number: u64, line: &[u8], reply: LineReply) {
    ///         let text = String::from_utf8_lossy(line);
    ///         match self.0.broadcast(Event::message(&*text)) {
    ///             Ok(published) => reply.send(format!("{number}: {} clients", published.clients)),
    ///             Err(error) => reply.end(format!("{number}: {error}")),
    ///         }
    ///     }
    /// }
    ///
    /// let log = ChannelManager::new().get_or_create("log")?;
    /// let builder = Engine::builder()
    ///     .post("/log", |_| "send Content-Type: text/plain")
    ///     .lines(Method::Post, "/log", move |request| {
    ///         let is_text = request.header("content-type") == Some("text/plain");
    ///         is_text.then(|| Response::lines("text/plain", Publish(log.clone())))
    ///     });
    /// # Ok::<(), pushwheel::ChannelError>(())
    /// ```
    pub fn lines(
        mut self,
        method: Method,
        path: &str,
        handler: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        let added = self.router.add_lines(method, path, handler);
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

    /// Hands connections over to the program, for a server of its own on the same port:
    /// each connection with a request that no route takes. The engine continues to serve
    /// its streams, which cost what they cost on any engine.
    ///
    /// The request's first line decides, before the checks of [`before`](Self::before) and
    /// before anything else of the request is read, so the program's server accepts bodies
    /// of any length, upgrades, and HTTP/2 with prior knowledge. A path with routes for
    /// other methods only is no route of this request, except for `OPTIONS`. The connection
    /// no longer counts towards the engine's limits. When the engine is full, such a request
    /// is answered as one for which there is no room.
    ///
    /// A client that keeps its connection may send the next request, for a stream too, to
    /// the program's server: serve these with a [`Mount`](crate::Mount).
    ///
    /// The hook runs on the engine's thread and must return at once: it passes the
    /// connection on. A second hook replaces the first one. On Windows connections are
    /// closed instead.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use pushwheel::Engine;
    ///
    /// let (sender, connections) = mpsc::channel();
    /// let builder = Engine::builder()
    ///     .get("/events", |_| "a stream, usually")
    ///     .hand_over(move |connection| _ = sender.send(connection));
    /// ```
    pub fn hand_over(mut self, hook: impl Fn(HandedOver) + Send + Sync + 'static) -> Self {
        self.router.hand_over = Some(Box::new(hook));
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

    /// Sends an event to many clients in one system call, by a sender for each thread, which
    /// `make` returns on that thread; the package `pushwheel-uring` has one for Linux. A thread
    /// for which `make` fails, and one whose sender fails later, continues with a system call
    /// for each client. The log says that `make` fails once for all threads. [`Metrics::batch_senders`](crate::Metrics::batch_senders) counts
    /// the threads that have one. Default: none.
    #[cfg(target_os = "linux")]
    pub fn batch_senders(
        mut self,
        make: impl Fn() -> io::Result<Box<dyn BatchSender>> + Send + Sync + 'static,
    ) -> Self {
        self.batch_senders = Some(Arc::new(BatchSenders::new(make)));
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
}
