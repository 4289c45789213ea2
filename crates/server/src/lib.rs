//! The standalone server: what `pushwheel serve` answers, as routes of an
//! engine.
//!
//! It uses the crate's public names only, so whatever it does an embedder can
//! do. It keeps no state of its own: all there is, is in the engine's
//! channels.
//!
//! ```no_run
//! use pushwheel_server::Config;
//!
//! let engine = Config::new().engine().bind("127.0.0.1:8080")?;
//! engine.run()?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The builder that [`Config::engine`] gives takes more routes: a program can
//! have this interface and its own on one port.

mod access;
mod access_log;
mod assets;
mod clock;
mod config;
mod context;
mod cors;
mod errors;
mod limiter;
mod loopback;
mod manage;
mod message;
mod metadata;
mod metrics;
mod page;
mod pattern;
mod publish;
mod routes;
mod stats_query;
mod subscribe;
mod throttle;
mod worker;

pub use access::{
    AllowedOrigin, KEY_CHARACTERS_MIN, Key, KeyError, OriginError, TokenKeyError, TokenKeys, redact,
};
pub use access_log::{ACCESS_LOG, EVENT_LOG};
pub use config::{Config, Reloader, Server, channel_options, limits};
pub use pattern::{Pattern, PatternError};

/// Parsers of untrusted text, for this workspace's own fuzz targets. Nothing in
/// here is a promise.
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
