//! Clusters: nodes of `pushwheel serve --broker`, a Redis, and what lies between them, as
//! real processes that are stopped, killed and cut off.
//!
//! | file | is |
//! | --- | --- |
//! | `redis`, `nodes`, `relay` | Redis and its sentinels, the nodes and HAProxy, a TCP proxy with faults |
//! | `clients`, `load` | many clients on one thread, and publishers that remember each answer |
//! | `oracle` | what must hold in the end |
//! | `setting` | what each test starts |
//! | `of_nodes`, `of_redis`, `of_network`, `of_http`, `of_settings`, `soak` | the tests, by what fails |
//!
//! `tests/run cluster` runs them. `PUSHWHEEL_SEED` repeats the choices of a run,
//! `PUSHWHEEL_ROUNDS`, `PUSHWHEEL_CLIENTS` and `PUSHWHEEL_SECONDS` make it longer, and
//! `PUSHWHEEL_REDIS_SERVER` names another server, such as Valkey's.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may fail, and measures a time"
)]

#[path = "../shared/accepted.rs"]
mod accepted;
#[path = "../../../../tests/common/mod.rs"]
mod common;
#[path = "../shared/directory.rs"]
mod directory;
#[path = "../shared/running.rs"]
mod running;

mod clients;
mod load;
mod nodes;
mod of_http;
mod of_network;
mod of_nodes;
mod of_redis;
mod of_settings;
mod oracle;
mod redis;
mod relay;
mod setting;
mod soak;
