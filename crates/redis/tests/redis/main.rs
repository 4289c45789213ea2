//! The log in real servers. Each test starts its own, on a free port, with a directory of
//! its own, and ends it. `PUSHWHEEL_REDIS_SERVER` names another program than `redis-server`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests; a deadline needs a clock"
)]

mod deadlines;
mod inspection;
mod log;
mod refusals;
mod replicas;
mod sentinel;
mod server;
mod sessions;
mod tls;
