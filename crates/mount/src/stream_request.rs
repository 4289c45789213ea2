//! What a stream takes from a request of the program's server.

use std::net::{Ipv4Addr, SocketAddr};

use http::request::Parts;
use http::{Method, header};
use pushwheel::MountedRequest;

/// What a stream takes from a request: the method, the path, the query, and the headers. In
/// axum it is an extractor.
///
/// The stream begins where the request says: in the header `Last-Event-ID`, or in a query
/// parameter ([`pushwheel::Request::start`]).
#[derive(Clone, Debug)]
#[must_use = "pass it to `Mount::respond`"]
pub struct StreamRequest {
    pub(crate) request: MountedRequest,
    /// Whether it is sent as an `EventSource` sends it, which gives up for good at any
    /// status but 200.
    pub(crate) is_for_a_stream: bool,
}

/// The address of a client that is unknown.
const UNKNOWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl StreamRequest {
    /// Returns what a stream takes from the parts of a request.
    ///
    /// They do not have the address of the client: set it with [`peer`](Self::peer).
    pub fn new(parts: &Parts) -> StreamRequest {
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let mut request = MountedRequest::new(parts.method.as_str(), target, UNKNOWN);
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        let host = parts
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        if let Some(host) = authority.or(host) {
            request = request.host(host);
        }
        for (name, value) in &parts.headers {
            request = request.header(name.as_str(), value.as_bytes());
        }
        let accepts_streams = |value: &header::HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            text.split([',', ';'])
                .any(|part| part.trim().eq_ignore_ascii_case("text/event-stream"))
        };
        let mut accepted = parts.headers.get_all(header::ACCEPT).iter();
        StreamRequest {
            request,
            is_for_a_stream: parts.method == Method::GET && accepted.any(accepts_streams),
        }
    }

    /// Sets the address of the client, for
    /// [`ClientInfo::address`](pushwheel::ClientInfo::address) and limits per address.
    /// Default: `0.0.0.0`. In axum it is in `ConnectInfo`.
    pub fn peer(mut self, peer: SocketAddr) -> StreamRequest {
        self.request = self.request.peer(peer);
        self
    }

    /// Sets the body, for a route of the mount.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> StreamRequest {
        self.request = self.request.body(body);
        self
    }
}

#[cfg(feature = "axum")]
impl<S: Send + Sync> axum_core::extract::FromRequestParts<S> for StreamRequest {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(StreamRequest::new(parts))
    }
}
