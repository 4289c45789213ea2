//! Mounts the streams of [pushwheel] in a program that has an HTTP server already: axum,
//! hyper, or any other that sends an [`http::Response`] with an [`http_body::Body`].
//!
//! A mounted stream has all that a stream of pushwheel's engine has: replay after a
//! reconnection, gaps, events for some clients, conflation, finished channels, and slow
//! clients without queues. TLS, HTTP/2 and HTTP/3 come from the program's server.
//!
//! ```
//! # #[cfg(feature = "axum")] {
//! use axum::Router;
//! use axum::extract::State;
//! use axum::routing::get;
//! use pushwheel::{ChannelManager, Event, Subscription};
//! use pushwheel_mount::{Mount, StreamRequest};
//!
//! let channels = ChannelManager::new();
//! let news = channels.get_or_create("news")?;
//! let mount = Mount::new(&channels)?;
//!
//! let stream = news.clone();
//! let events = async move |State(mount): State<Mount>, request: StreamRequest| {
//!     mount.respond(request, Subscription::new(&stream)).await
//! };
//! let app: Router = Router::new().route("/events", get(events)).with_state(mount);
//!
//! // Anywhere in the program:
//! news.broadcast(Event::new("headline", "It works"))?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Mount`] has one thread, which gathers what is new in a channel once for all of its
//! clients, and sends heartbeats. The bodies are polled on the server's threads, share no
//! lock with each other, and clone references to the same bytes.
//!
//! Without axum, a [`StreamRequest`] is made of the parts of an [`http::Request`].

mod body;
mod event_stream;
mod mount;
mod stream_request;

pub use body::Body;
pub use event_stream::EventStream;
pub use mount::{Mount, Responding};
pub use stream_request::StreamRequest;
