//! What an engine takes from its peers: how many, how large, how long.
//!
//! Plain numbers, which every floor may read. Each says what the other side
//! sees at it; `docs/limits.md` has them in one table, with those of the
//! channels.

use std::time::Duration;

/// How many connections and requests an engine has at once, how large a
/// request may be, and how long a client may take.
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
/// An engine that runs takes others with
/// [`EngineHandle::set_limits`](crate::EngineHandle::set_limits).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many connections the engine has at once, all its threads together.
    /// Default 1,000,000. Where
    /// [descriptors](crate::EngineBuilder::descriptors_max) run out sooner, they
    /// are the limit.
    ///
    /// Those beyond it are let in as overflow connections: up to 256 for each thread, for
    /// five seconds and one request each. That of an overflow connection request is answered as any
    /// other, with `Connection: close`, so that a health check, a publisher
    /// and an administrator are heard by a full engine; but it gets no stream.
    /// A `GET` that accepts `text/event-stream` gets `200` with a jittered
    /// `retry:` and the end of the stream, for a browser comes back only after
    /// that; any other gets `503` with `Retry-After`, code `server_full`. When
    /// there is no room for an overflow connection either, the one who has been there longest
    /// is disconnected for the next: whoever says nothing keeps nobody out.
    pub connections_max: usize,
    /// How many of them may be from one address; of IPv6, from one network of
    /// 64 bits, and an IPv4 address that is mapped into IPv6 is itself.
    /// Default: no limit, because behind a proxy all come from one address:
    /// unless it announces its clients by the
    /// [PROXY protocol](crate::EngineBuilder::proxy_protocol), whose addresses
    /// count instead. A [trusted proxy](crate::EngineBuilder::trusted_proxies),
    /// whose connections carry many clients, may have any number.
    ///
    /// Those beyond it are overflow connections as above, with the code `address_full`. The
    /// limit costs each client 8 bytes, each address some 30 more. Where it is
    /// set while the engine runs, it counts those who come from then on.
    pub connections_per_address_max: usize,
    /// How many requests may wait for an answer from another thread
    /// ([`Response::deferred`](crate::Response::deferred)), all of the
    /// engine's threads together. Default 10,000. One more is answered `503`
    /// with `Retry-After`, code `too_many_in_flight`, or as an overflow connection's stream
    /// if it is a `GET` that accepts `text/event-stream`. A request counts until its
    /// [`Responder`](crate::Responder) has answered, whether or not the client
    /// is still there.
    pub requests_in_flight_max: usize,

    /// The request line with its line end, in bytes. Default 8 KiB. Beyond it
    /// the client gets `414`, code `uri_too_long`.
    ///
    /// A request line has to fit into `head_bytes_max` too; whichever of the
    /// two is smaller is the limit.
    pub request_line_bytes_max: usize,
    /// All of the head, from the request line to the empty line after the
    /// headers, in bytes. Default 32 KiB. Beyond it the client gets `431`, code
    /// `head_too_large`.
    pub head_bytes_max: usize,
    /// How many header lines, at most 256 whatever is said
    /// here. Default 100. Beyond it the client gets `431`, code
    /// `too_many_headers`.
    pub headers_max: usize,
    /// The body after decoding, in bytes. Default 1 MiB. Beyond it the client
    /// gets `413`, code `payload_too_large`: before any of the body when
    /// `Content-Length` says so, else at the chunk that goes too far.
    pub body_bytes_max: usize,

    /// How long a client may take for a request's head, from its first byte, be
    /// that of an empty line before it, and between the parts of its body.
    /// Default 10 s. Then it gets `408`, code `request_timeout`.
    pub head_timeout: Duration,
    /// How long a client may take for a body in all, however steadily it drips
    /// in. Default 60 s: a body of 1 MiB has to come with 17 KiB a second.
    /// Then the client gets `408`, code `request_timeout`.
    pub body_timeout: Duration,
    /// How long a connection may be idle before its first request and between
    /// requests. Default 60 s. Then it is closed without a word.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of what is written to it. Default
    /// 30 s. Then it is disconnected; a stream's `on_disconnect` is told
    /// [`Stalled`](crate::DisconnectReason::Stalled).
    pub stall_timeout: Duration,
    /// How old a stream of channels may become. Then it is sent what waits for
    /// it, told when to come back, each at another time, and ended; its client
    /// resumes like after any lost connection, and its `on_disconnect` is told
    /// [`Aged`](crate::DisconnectReason::Aged). Each stream is given an age of
    /// its own when it begins, between three quarters of this and all of it, so
    /// that those who came together do not go together. A stream for one client
    /// ([`Response::stream`](crate::Response::stream)) has no age: its sink
    /// says when it ends.
    ///
    /// For engines behind a load balancer, which spreads connections only when
    /// they are made, and to have credentials looked at again that know no time
    /// of their own. Kept in steps of 64 ms; more than four years count as four.
    /// Default: [`Duration::MAX`], no limit.
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
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            stream_age_max: Duration::MAX,
        }
    }
}
