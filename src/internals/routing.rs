//! From a request's bytes to what its handler sees.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::http::{Message, Method};
use crate::reactor::Service;
use crate::router::Router;
use crate::{ChannelManager, Request, Response, RouteError};

/// A request as handlers see it, before it is routed.
pub fn request(message: Message, channels: &ChannelManager) -> Request {
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    Request::new(message, peer, channels.clone())
}

/// The status that a router with these paths, for GET, answers `request` with,
/// and the request as the handler saw it, if one did.
///
/// # Errors
///
/// When the paths do not go together.
///
/// # Panics
///
/// When a handler panicked.
pub fn routed(paths: &[&str], mut request: Request) -> Result<(u16, Option<Request>), RouteError> {
    let seen = Arc::new(Mutex::new(None));
    let mut router = Router::default();
    for path in paths {
        let seen = seen.clone();
        router.add(Method::Get, path, move |request: &Request| {
            *seen.lock().expect("no handler panics") = Some(request.clone());
            Response::status(204)
        })?;
    }
    let response = router.call(&mut request);
    let seen = seen.lock().expect("no handler panics").take();
    Ok((response.status_code(), seen))
}
