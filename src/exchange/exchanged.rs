//! A request that another server has read, on its way to a reactor.

use std::net::SocketAddr;

use super::response::Response;
use crate::http::Message;

/// See the [module](self).
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the simulator names the network")]
pub struct Exchange {
    pub(crate) message: Message,
    pub(crate) peer: SocketAddr,
    /// The response, if it has one already: without it, the routes answer.
    pub(crate) answer: Option<Response>,
}
