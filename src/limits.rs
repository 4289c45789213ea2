//! The limits of an engine towards its peers: numbers, sizes and times.
//!
//! Plain numbers that every layer may read. Each field documents the response at the
//! limit; `docs/limits.md` lists them in one table with the limits of channels.

use std::time::Duration;

/// Limits on connections, requests and the time that a client may take.
///
/// ```
/// use std::time::Duration;
/// use pushwheel::{Engine, Limits};
///
/// let mut limits = Limits::default();
/// limits.connections_max = 50_000;
/// limits.body_bytes_max = 64 * 1024;
/// limits.idle_timeout = Duration::from_secs(30);
/// let builder = Engine::builder().limits(limits);
/// ```
///
/// [`EngineHandle::set_limits`](crate::EngineHandle::set_limits) changes the limits of
/// an engine that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum connections of the engine, on all of its threads. Default: 1,000,000. If
    /// [descriptors](crate::EngineBuilder::descriptors_max) run out sooner, they are
    /// the limit.
    ///
    /// Connections beyond it are overflow connections: up to 256 for each thread, for
    /// 5 s and one request each. A request on an overflow connection is answered as any
    /// other, with `Connection: close`, so that health checks, publishers and
    /// administrators reach a full engine; but it cannot open a stream. A `GET` that
    /// accepts `text/event-stream` receives `200`, a jittered `retry:` and the end of
    /// the stream, because a browser would not reconnect after another status. Any other
    /// request for a stream receives `503` with `Retry-After`, code `server_full`. If
    /// there is no room for another overflow connection, the oldest one is closed, so a
    /// client that sends nothing keeps no other client out.
    pub connections_max: usize,
    /// Maximum connections of one address; for IPv6, of one network of 64 bits. An
    /// IPv4-mapped IPv6 address counts as IPv4. Default: no limit, because behind a
    /// proxy all connections have one address, unless the proxy sends the
    /// [PROXY protocol](crate::EngineBuilder::proxy_protocol): then the address in its
    /// header counts. A [trusted proxy](crate::EngineBuilder::trusted_proxies), whose
    /// connections carry the requests of many clients, has no limit.
    ///
    /// Connections beyond it are overflow connections as above, with the code
    /// `address_full`. The limit costs 8 bytes for each client and about 30 for each
    /// address. If it is set while the engine runs, it counts new connections only.
    pub connections_per_address_max: usize,
    /// Maximum requests that wait for an answer from another thread
    /// ([`Response::deferred`](crate::Response::deferred)), on all of the engine's
    /// threads. Default: 10,000. The next one is answered `503` with `Retry-After`, code
    /// `too_many_in_flight`, or as a stream on an overflow connection if it is a `GET`
    /// that accepts `text/event-stream`. A request counts until its
    /// [`Responder`](crate::Responder) has answered, also if its client has gone.
    pub requests_in_flight_max: usize,

    /// Maximum length of the request line with its line end, in bytes. Default: 8 KiB.
    /// Beyond it the response is `414`, code `uri_too_long`. `head_bytes_max` includes
    /// the request line, so the smaller of the two is the limit.
    pub request_line_bytes_max: usize,
    /// Maximum size of the head, from the request line to the empty line after the
    /// headers, in bytes. Default: 32 KiB. Beyond it the response is `431`, code
    /// `head_too_large`.
    pub head_bytes_max: usize,
    /// Maximum header lines; a value over 256 counts as 256. Default: 100. Beyond it the
    /// response is `431`, code `too_many_headers`.
    pub headers_max: usize,
    /// Maximum size of the decoded body, in bytes. Default: 1 MiB. Beyond it the response
    /// is `413`, code `payload_too_large`: before the body if `Content-Length` is too
    /// large, otherwise at the chunk that exceeds the limit.
    pub body_bytes_max: usize,

    /// Maximum time for a request's head, counted from its first byte (or that of an
    /// empty line before it), and between the parts of its body. Default: 10 s. Then the
    /// response is `408`, code `request_timeout`.
    pub head_timeout: Duration,
    /// Maximum time for a whole body, however steadily it arrives. Default: 60 s, in which
    /// a body of 1 MiB needs 17 KiB/s. Then the response is `408`, code
    /// `request_timeout`.
    pub body_timeout: Duration,
    /// Maximum time between two lines of a request that is read
    /// [line by line](crate::Response::lines). Default: 60 s. Then the response ends with an
    /// error, code `request_timeout`.
    pub line_timeout: Duration,
    /// Maximum idle time of a connection before its first request and between requests.
    /// Default: 60 s. Then it is closed without a response.
    pub idle_timeout: Duration,
    /// Maximum time in which a client reads nothing of the data that waits for it.
    /// Default: 30 s. Then it is disconnected; the reason of a stream is
    /// [`Stalled`](crate::DisconnectReason::Stalled).
    pub stall_timeout: Duration,
    /// Maximum age of a stream of channels. Then the client receives the rest of its
    /// backlog and a jittered `retry:`, and the stream ends with the reason
    /// [`Aged`](crate::DisconnectReason::Aged); the client reconnects and resumes. Each
    /// stream has an age of its own, drawn between three quarters of this and all of
    /// it, so that clients that came together do not leave together. It does not apply
    /// to a stream for one client ([`Response::stream`](crate::Response::stream)), which
    /// ends when its sink is closed.
    ///
    /// For engines behind a load balancer, which distributes only new connections, and
    /// for credentials without an expiry time, which are checked again. Accurate to
    /// 64 ms; more than four years count as four. Default: [`Duration::MAX`], no limit.
    pub stream_age_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 1_000_000,
            connections_per_address_max: usize::MAX,
            requests_in_flight_max: 10_000,
            request_line_bytes_max: 8 * 1024,
            head_bytes_max: 32 * 1024,
            headers_max: 100,
            body_bytes_max: 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            line_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            stream_age_max: Duration::MAX,
        }
    }
}
