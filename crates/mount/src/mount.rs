//! [`Mount`]: streams for the responses of another server.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use pushwheel::{
    Answering, ChannelManager, EngineHandle, IntoResponse, MountError, Mounted, Shutdown,
};

use crate::body::Body;
use crate::stream_request::StreamRequest;

/// The delay after which a client comes back to a program that shuts down. It is drawn for
/// each client, so that they do not all come at once.
const RETRY_MS: std::ops::Range<u64> = 2_000..10_000;

/// Streams for the responses of the program's server: [`pushwheel::Mount`] for `http` and
/// `http_body`. A cheap handle, as that is.
///
/// A graceful shutdown of the program's server waits until each response has ended. Shut the
/// mount down beside it, so that its streams end:
///
/// ```no_run
/// # async fn serve(listener: tokio::net::TcpListener, app: axum::Router) -> std::io::Result<()> {
/// # let mount = pushwheel_mount::Mount::new(&pushwheel::ChannelManager::new())?;
/// # async fn stopped() {}
/// use std::time::Duration;
///
/// let shutdown = async move {
///     stopped().await;
///     mount.shutdown(Duration::from_secs(10));
/// };
/// axum::serve(listener, app).with_graceful_shutdown(shutdown).await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Mount(pushwheel::Mount<Bytes>);

/// A mount that [`EngineBuilder::mount`](pushwheel::EngineBuilder::mount) has made, with
/// limits, headers and routes of its own.
impl From<pushwheel::Mount<Bytes>> for Mount {
    fn from(mount: pushwheel::Mount<Bytes>) -> Mount {
        Mount(mount)
    }
}

impl Mount {
    /// Returns a mount of these channels, with a thread of its own.
    ///
    /// # Errors
    /// As [`EngineBuilder::mount`](pushwheel::EngineBuilder::mount).
    pub fn new(channels: &ChannelManager) -> io::Result<Mount> {
        pushwheel::Mount::new(channels).map(Mount)
    }

    /// Returns the response to a request for a stream. `answer` is a
    /// [`Subscription`](pushwheel::Subscription), or any other response of pushwheel.
    ///
    /// The response has no headers that describe a connection. Its status is 200, or 204 if
    /// the client has seen all of a finished channel. Where there is no room for the client,
    /// and when the mount was shut down, a browser receives 200 with a `retry:` for later,
    /// and any other client 503.
    pub fn respond(&self, request: StreamRequest, answer: impl IntoResponse) -> Responding {
        Responding {
            answering: self.0.respond(&request.request, answer),
            is_for_a_stream: request.is_for_a_stream,
        }
    }

    /// Returns the response of the mount's own routes, if it was built with any.
    pub fn call(&self, request: StreamRequest) -> Responding {
        Responding {
            answering: self.0.call(&request.request),
            is_for_a_stream: request.is_for_a_stream,
        }
    }

    /// Shuts the mount down gracefully, and returns at once: see
    /// [`pushwheel::Mount::shutdown`].
    pub fn shutdown(&self, how: impl Into<Shutdown>) {
        self.0.shutdown(how);
    }

    /// Returns a handle for the mount's limits and figures.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.0.handle()
    }

    /// Returns the channels.
    #[must_use]
    pub fn channels(&self) -> &ChannelManager {
        self.0.channels()
    }
}

/// A response that is being made: a future.
///
/// It is small, because it is a part of the future of the program's handler. Of the request
/// and the subscription it holds nothing.
#[derive(Debug)]
#[must_use = "it is a future: await it"]
pub struct Responding {
    answering: Answering<Bytes>,
    is_for_a_stream: bool,
}

impl Future for Responding {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response<Body>> {
        let answer = ready!(Pin::new(&mut self.answering).poll(context));
        Poll::Ready(response(self.is_for_a_stream, answer))
    }
}

fn response(is_for_a_stream: bool, answer: Result<Mounted<Bytes>, MountError>) -> Response<Body> {
    match answer {
        Ok(mounted) => {
            let mut response = Response::new(Body::mounted(mounted.body));
            *response.status_mut() = StatusCode::from_u16(mounted.status).unwrap_or_default();
            for (name, value) in mounted.headers {
                if let (Ok(name), Ok(value)) = (
                    header::HeaderName::try_from(name),
                    HeaderValue::try_from(value),
                ) {
                    response.headers_mut().append(name, value);
                }
            }
            response
        }
        Err(MountError::Ended) if is_for_a_stream => {
            let retry = format!("retry: {}\n\n", retry_ms());
            let stream = HeaderValue::from_static("text/event-stream");
            error(StatusCode::OK, (header::CONTENT_TYPE, stream), retry)
        }
        Err(problem @ MountError::Ended) => {
            let later = (
                header::RETRY_AFTER,
                HeaderValue::from(retry_ms() / 1000 + 1),
            );
            error(StatusCode::SERVICE_UNAVAILABLE, later, problem.to_string())
        }
        Err(problem) => {
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            let text = (header::CONTENT_TYPE, text);
            error(StatusCode::BAD_REQUEST, text, problem.to_string())
        }
    }
}

fn retry_ms() -> u64 {
    // The keys of a new state are random.
    let random = RandomState::new().hash_one(());
    RETRY_MS.start + random % (RETRY_MS.end - RETRY_MS.start)
}

fn error(
    status: StatusCode,
    (name, value): (header::HeaderName, HeaderValue),
    text: String,
) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(name, value);
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}
