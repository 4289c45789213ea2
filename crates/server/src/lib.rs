//! The standalone server: the HTTP interface of `pushwheel serve`, as routes of an engine.
//!
//! It uses the public interface of the crate `pushwheel` only, so an embedder can do the
//! same. Its channels are the engine's; it has no storage of its own.
//!
//! ```no_run
//! use pushwheel_server::Config;
//!
//! let engine = Config::new().engine().bind("127.0.0.1:8080")?;
//! engine.run()?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A program can add routes to the builder that [`Config::engine`] returns, and so have
//! this interface and its own on one port.

mod access;
mod access_log;
mod assets;
mod channel_names;
mod channel_view;
mod clock;
mod cluster;
mod conditions;
mod config;
mod context;
mod cors;
mod errors;
mod limiter;
mod limits;
mod loopback;
mod manage;
mod message;
mod metadata;
mod metrics;
mod page;
mod parameters;
mod pattern;
mod process;
mod publish;
mod readiness;
mod routes;
mod server_stats;
mod stats_query;
mod subscribe;
mod throttle;
mod tickets;
mod worker;

pub use access::{
    AllowedOrigin, HeaderName, HeaderNameError, KEY_CHARACTERS_MIN, Key, KeyError, OriginError,
    TokenError, TokenKeyError, TokenKeys, redact,
};
pub use access_log::{ACCESS_LOG, EVENT_LOG};
pub use config::{Config, Reloader, Server};
pub use limits::{channel_options, limits};
pub use pattern::{Pattern, PatternError};

/// Parsers of untrusted text, for this workspace's own fuzz targets. They may change at any
/// time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    /// Cookies, tokens and what is redacted.
    pub mod access {
        pub use crate::access::internals::*;
    }

    /// Publishers' JSON.
    pub mod message {
        pub use crate::message::internals::*;
    }
}
