//! The limits of an engine, and the buffers of its sockets.

use std::time::Duration;

use super::EngineBuilder;
use crate::limits::Limits;

impl EngineBuilder {
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
    /// listener (each, if there are several), poller, waker, and the connection that is being
    /// accepted.
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
}
