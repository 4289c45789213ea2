//! The arguments and results of handlers: requests, responses and subscriptions,
//! and the two values that outlive a handler, the [`Responder`] and the [`Sink`].

mod command_queue;
mod errors;
mod exchanged;
mod extensions;
mod handed_over;
mod in_flight;
mod lines;
mod rejection;
mod request;
mod responder;
mod response;
mod shutdown;
mod sink;
mod subscription;
mod welcome;

pub(crate) use command_queue::{Command, CommandQueue};
#[allow(unreachable_pub, reason = "the simulator names the network")]
pub use exchanged::Exchange;
pub use extensions::Extensions;
pub use handed_over::HandedOver;
pub(crate) use in_flight::InFlight;
pub use lines::{LineReply, ReadLines};
pub use rejection::Rejection;
pub use request::{BodyError, Request};
pub use responder::Responder;
pub(crate) use response::{Defer, Kind};
pub use response::{IntoResponse, Response};
pub use shutdown::Shutdown;
pub(crate) use sink::StreamPlan;
pub use sink::{Sink, SinkError, SinkOptions};
pub use subscription::Subscription;
pub use welcome::{WELCOME_BYTES_MAX, Welcome};
