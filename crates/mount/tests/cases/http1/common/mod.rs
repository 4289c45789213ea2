//! What the cases share, with an engine that is mounted in a server of HTTP/1.

#![allow(
    unused_imports,
    unreachable_pub,
    reason = "each case takes its part of it"
)]

pub use crate::engine_common::{
    Connection, PATIENCE, Subscriber, client, deferring, eventually, readers, receive, sequence,
    sse, summaries,
};
pub use crate::front::Http1 as Served;
