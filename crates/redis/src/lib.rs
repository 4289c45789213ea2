//! The log of a cluster of pushwheel nodes, in Redis or Valkey.
//!
//! [`RedisLog`] is a [`SharedLog`](pushwheel::cluster::SharedLog): nodes that join a cluster
//! with the same one have the same channels, events and ids.
//!
//! ```no_run
//! use pushwheel::ChannelManager;
//! use pushwheel::cluster::ClusterOptions;
//! use pushwheel_redis::{RedisLog, RedisOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let url = "redis://:s3cret@redis.example".parse()?;
//! let log = RedisLog::new(url, &RedisOptions::new().name("shop"))?;
//! let channels = ChannelManager::builder().join_cluster(log, ClusterOptions::new("node-1"))?;
//! # drop(channels);
//! # Ok(())
//! # }
//! ```
//!
//! # What a server keeps
//!
//! It needs Redis 6.2 or newer, or Valkey. All keys begin with the name of the cluster in
//! braces, so a server of a Redis Cluster has all of them.
//!
//! | key | content |
//! | --- | --- |
//! | `{NAME}:log` | a stream: each entry is a block, and its id the number of its first event |
//! | `{NAME}:meta` | a hash: the next number, the terms, the newest block of each writer |
//! | `{NAME}:snapshot` | a hash: the name of the newest snapshot |
//! | `{NAME}:chunks:…` | a hash: the chunks of a snapshot |
//! | `{NAME}:lease:…` | a string: the node that has a duty |
//! | `{NAME}:value:…` | a string: a value that is taken once, such as a ticket |
//!
//! A user of the server needs these rights, here for the name `pushwheel`:
//!
//! ```text
//! resetkeys ~{pushwheel}:* -@all +auth +ping +client|setname +info +role +select
//! +evalsha +script|load +xadd +xread +xrange +xrevrange +xtrim +xlen
//! +hmget +hget +hset +hdel +hlen +time +set +get +getdel
//! +expire +persist +unlink +wait
//! ```
//!
//! # Sessions
//!
//! Each session is a connection. A connection has a deadline in each call, for the look-up
//! of the name, the handshake of TLS, and each byte. After an error of the connection it is
//! not used again. A reply has a maximum size, and nothing in it is trusted.
//!
//! A session opens with a script that makes the log if there is none, and begins a term if
//! the process of the server is another one than the one that gave the newest numbers. So a
//! restart and a failover are both seen. An append is a script, too: it gives the numbers,
//! and appends a block once, however often it is sent.
//!
//! ```text
//!  log            RedisLog: opens sessions
//!  writer, reader what a node asks of a session
//!  session        a connection that was introduced; hello
//!  inspection     what a server is, for an operator
//!  broker         the way to the server: names, Sentinel, redirections
//!  scripts, keys  what the server runs and keeps
//!  faults         what the errors of a server mean
//!  connection     commands and replies, by deadlines
//!  replies        replies from bytes, of limited size
//!  stream, tls, resolver   sockets, by deadlines
//! ```

mod broker;
mod clock;
mod connection;
mod faults;
mod inspection;
mod keys;
mod log;
mod reader;
mod replies;
mod resolver;
mod scripts;
mod session;
mod stream;
mod tls;
mod url;
mod writer;

/// The reader of replies, for the fuzz target. Nothing in it is a promise.
#[cfg(feature = "internals")]
pub mod internals {
    pub use crate::replies::{Replies, ReplyError};
}

pub use inspection::{Inspection, inspect};
pub use log::{OptionsError, RedisLog, RedisOptions};
pub use tls::{TlsError, TlsFiles};
pub use url::{RedisUrl, UrlError};
