//! [`Response`]: the result of handlers, and the types that become one.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::lines::ReadLines;
use super::request::Request;
use super::responder::Responder;
use super::sink::{Sink, SinkOptions, StreamPlan};
use super::subscription::Subscription;
use crate::http::{HeaderError, Headers, check_stream_header};
use crate::hub::channel::Channel;
use crate::hub::id::EventId;
use crate::hub::names::ChannelError;
use crate::hub::published::PublishError;

/// The response to a request.
///
/// ```
/// use pushwheel::Response;
///
/// let made = Response::text("made").with_status(201);
/// let none = Response::error(404, "no_such_room", "there is no such room. See /rooms");
/// ```
#[must_use]
#[derive(Debug)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) kind: Kind,
    /// The code of an error.
    code: Option<Box<str>>,
    /// The error of the handler, which is logged and not sent.
    pub(crate) failure: Option<Box<dyn Error + Send + Sync>>,
    /// For a temporary error: the minimum time until the client comes back.
    pub(crate) passes_after: Option<Duration>,
}

pub(crate) type Defer = Box<dyn FnOnce(&Request, Responder) + Send>;

/// The rest of the response.
pub(crate) enum Kind {
    Body(Cow<'static, [u8]>),
    Subscribe(Box<Subscription>),
    Stream(Box<StreamPlan>),
    Defer(Defer),
    Lines(Box<dyn ReadLines>),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Body(body) => write!(f, "Body({} bytes)", body.len()),
            Kind::Subscribe(subscription) => subscription.fmt(f),
            Kind::Stream(_) => f.write_str("Stream"),
            Kind::Defer(_) => f.write_str("Defer"),
            Kind::Lines(_) => f.write_str("Lines"),
        }
    }
}

impl Response {
    fn new(status: u16, kind: Kind) -> Response {
        Response {
            status,
            headers: Headers::new(),
            kind,
            code: None,
            failure: None,
            passes_after: None,
        }
    }

    /// Returns `200 OK` with a body of this media type.
    ///
    /// # Panics
    /// When the type is not a valid header value.
    pub fn typed(
        content_type: impl Into<Cow<'static, str>>,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Response {
        let mut response = Response::bytes(body);
        let set = response.headers.insert("Content-Type", content_type);
        set.expect("a media type can be a header's value");
        response
    }

    /// Returns `200 OK` with plain text.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Response {
        Response::typed("text/plain; charset=utf-8", into_bytes(text.into()))
    }

    /// Returns `200 OK` with an HTML page.
    pub fn html(page: impl Into<Cow<'static, str>>) -> Response {
        Response::typed("text/html; charset=utf-8", into_bytes(page.into()))
    }

    /// Returns `200 OK` with compact JSON and a line end, for readers on a terminal. A
    /// value that cannot be written as JSON, such as a map whose keys are not strings,
    /// gives `500`.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Response {
        match serde_json::to_vec(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Response::typed("application/json", body)
            }
            Err(error) => Response::internal_error(error),
        }
    }

    /// Returns `200 OK` with bytes without a `Content-Type`.
    pub fn bytes(body: impl Into<Cow<'static, [u8]>>) -> Response {
        Response::new(200, Kind::Body(body.into()))
    }

    /// Returns a response with this status and an empty body.
    ///
    /// # Panics
    /// As [`with_status`](Self::with_status).
    pub fn status(status: u16) -> Response {
        Response::bytes(&[][..]).with_status(status)
    }

    /// Returns an error as JSON: `{"error": {"code": ..., "message": ...}}`. The code is
    /// for programs and should never change; the message should say what to do.
    ///
    /// # Panics
    /// As [`with_status`](Self::with_status).
    pub fn error(status: u16, code: &str, message: &str) -> Response {
        let body = json!({"error": {"code": code, "message": message}});
        let mut response = Response::json(&body).with_status(status);
        response.code = Some(code.into());
        response
    }

    /// Returns `500` with the code `internal_error`. The error and its causes are
    /// logged with the request's method, path and client address, and not sent.
    pub fn internal_error(error: impl Into<Box<dyn Error + Send + Sync>>) -> Response {
        let mut response = Response::internal();
        response.failure = Some(error.into());
        response
    }

    /// Names an event in `ETag`, unless its id has a character that ends the tag, as an id of
    /// a publisher may.
    pub(crate) fn set_etag(&mut self, id: &EventId) {
        let id = id.text();
        if !id.contains('"') {
            let set = self.headers.insert("ETag", format!("\"{id}\""));
            set.expect("an id is valid in a header");
        }
    }

    /// Returns the same for a failure that is logged elsewhere.
    pub(crate) fn internal() -> Response {
        let message = "the handler failed. The server's log has the cause";
        Response::error(500, "internal_error", message)
    }

    /// Returns a stream of the channel's events; see [`Subscription`] for more.
    pub fn subscribe(channel: &Channel) -> Response {
        Subscription::new(channel).into_response()
    }

    /// Returns a stream for this client alone. `open` is called on the engine's thread
    /// when the stream has begun, and must return at once: it passes the [`Sink`] to
    /// the thread that writes to it.
    ///
    /// ```
    /// use pushwheel::{Event, Response};
    ///
    /// let response = Response::stream(|sink| {
    ///     std::thread::spawn(move || {
    ///         for percent in 0..=100 {
    ///             let event = Event::new("progress", percent.to_string());
    ///             if sink.send(event).is_err() {
    ///                 return; // the client is disconnected
    ///             }
    ///         }
    ///     }); // the sink is dropped, and the stream ends
    /// });
    /// ```
    pub fn stream(open: impl FnOnce(Sink) + Send + 'static) -> Response {
        Response::stream_with(SinkOptions::new(), open)
    }

    /// Returns the same as [`stream`](Self::stream), with options.
    pub fn stream_with(options: SinkOptions, open: impl FnOnce(Sink) + Send + 'static) -> Response {
        let plan = StreamPlan {
            options,
            open: Box::new(open),
        };
        Response::new(200, Kind::Stream(Box::new(plan)))
    }

    /// Returns a response that another thread sends later. `defer` is called on the
    /// engine's thread and must return at once: it passes the [`Responder`] to that
    /// thread.
    ///
    /// ```
    /// use pushwheel::Response;
    ///
    /// let response = Response::deferred(|responder| {
    ///     std::thread::spawn(move || {
    ///         responder.respond("the result of slow work");
    ///     });
    /// });
    /// ```
    pub fn deferred(defer: impl FnOnce(Responder) + Send + 'static) -> Response {
        Response::deferred_with_request(|_, responder| defer(responder))
    }

    /// Returns the same as [`deferred`](Self::deferred). `defer` is also passed the request, so
    /// a handler does not clone the request to read it there.
    ///
    /// ```
    /// use pushwheel::Response;
    ///
    /// let response = Response::deferred_with_request(|request, responder| {
    ///     let body = request.body().to_vec();
    ///     std::thread::spawn(move || {
    ///         responder.respond(format!("{} bytes", body.len()));
    ///     });
    /// });
    /// ```
    pub fn deferred_with_request(
        defer: impl FnOnce(&Request, Responder) + Send + 'static,
    ) -> Response {
        Response::new(200, Kind::Defer(Box::new(defer)))
    }

    /// Returns a response that is written while the body of the request is read, line by
    /// line: one line for each line of the request, of the media type `content_type`. For
    /// the handlers of [`EngineBuilder::lines`](crate::EngineBuilder::lines).
    ///
    /// The body may have any length, and each of its lines at most
    /// [`body_bytes_max`](crate::Limits::body_bytes_max). Instead of a deadline for the
    /// body, each line has [`line_timeout`](crate::Limits::line_timeout). The status is
    /// 200; an error ends the response with a line of its own.
    ///
    /// # Panics
    /// When the type is not a valid header value.
    pub fn lines(
        content_type: impl Into<Cow<'static, str>>,
        reader: impl ReadLines + 'static,
    ) -> Response {
        let mut response = Response::new(200, Kind::Lines(Box::new(reader)));
        for (name, value) in [
            ("Content-Type", content_type.into()),
            ("X-Accel-Buffering", "no".into()),
        ] {
            let set = response.headers.insert(name, value);
            set.expect("a media type can be a header's value");
        }
        response
    }

    /// Returns the same with another status. A stream always has 200: browsers do not
    /// read a stream with another status.
    ///
    /// # Panics
    /// When the status is not one of 200 to 999; in a handler a panic gives `500`.
    /// Lower ones announce a response (RFC 9110 section 15.2), and the engine sends
    /// them itself.
    pub fn with_status(mut self, status: u16) -> Response {
        assert!(
            (200..=999).contains(&status),
            "a response's status is 200 to 999, not {status}"
        );
        self.status = status;
        self
    }

    /// Returns the same with this header. It replaces those of the same name.
    ///
    /// # Errors
    /// When the name or the value is invalid in a header, and when the engine sets
    /// the header itself, such as the `Content-Type` of a stream.
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Response, HeaderError> {
        let name = name.into();
        if self.is_stream() {
            check_stream_header(&name)?;
        }
        self.headers.insert(name, value)?;
        Ok(self)
    }

    /// Marks the response as a temporary error: the client receives a delay
    /// after which it retries, `delay` plus 2 to 10 s, drawn for each client.
    ///
    /// A browser's `EventSource` gives up for good at any status but 200. So a GET that
    /// accepts `text/event-stream` receives `200`, a `retry:` line and the end of the
    /// stream; any other request receives this error with `Retry-After`. The error's
    /// code is counted for both.
    ///
    /// ```
    /// use std::time::Duration;
    /// use pushwheel::Response;
    ///
    /// let not_yet = Response::error(503, "not_yet", "the game has not begun. Come back later");
    /// let answer = not_yet.come_back_after(Duration::from_secs(5));
    /// ```
    pub fn come_back_after(mut self, delay: Duration) -> Response {
        self.passes_after = Some(delay);
        self
    }

    /// Returns the status.
    #[must_use]
    pub fn status_code(&self) -> u16 {
        self.status
    }

    /// Returns the code of a response that [`error`](Response::error) has made.
    #[must_use]
    pub fn error_code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Returns the size of the body in bytes; `None` for a stream and for a deferred
    /// response.
    #[must_use]
    pub fn body_bytes(&self) -> Option<usize> {
        match &self.kind {
            Kind::Body(body) => Some(body.len()),
            _ => None,
        }
    }

    /// Returns the body of a response that has one.
    pub(crate) fn body(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Body(body) => Some(body),
            _ => None,
        }
    }

    /// Returns the headers, without those that the engine sets itself.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Returns the headers, to be changed. A `Content-Type` that is added here to a
    /// stream is ignored, so that a hook may add one to all responses.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// Returns whether another thread sends the response later. The hooks
    /// [`after`](crate::EngineBuilder::after) are called for that response, not for
    /// this one.
    #[must_use]
    pub fn is_deferred(&self) -> bool {
        matches!(self.kind, Kind::Defer(_))
    }

    /// Returns whether this opens a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        match &self.kind {
            Kind::Subscribe(subscription) => subscription.answer_once.is_none(),
            Kind::Stream(_) => true,
            Kind::Body(_) | Kind::Defer(_) | Kind::Lines(_) => false,
        }
    }
}

impl From<Subscription> for Response {
    fn from(subscription: Subscription) -> Response {
        Response::new(200, Kind::Subscribe(Box::new(subscription)))
    }
}

fn into_bytes(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// A type that a handler may return.
pub trait IntoResponse {
    /// Returns the value as a response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for Subscription {
    fn into_response(self) -> Response {
        self.into()
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

impl IntoResponse for Cow<'static, str> {
    fn into_response(self) -> Response {
        Response::text(self)
    }
}

/// Bytes without a `Content-Type`.
impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Response::bytes(self)
    }
}

/// `204 No Content`.
impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::status(204)
    }
}

/// `None` is `404 Not Found` with the code `not_found`.
impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Response {
        match self {
            Some(value) => value.into_response(),
            None => Response::error(404, "not_found", "nothing was found. Check the path"),
        }
    }
}

/// A response with another status.
///
/// # Panics
/// As [`Response::with_status`].
impl<T: IntoResponse> IntoResponse for (u16, T) {
    fn into_response(self) -> Response {
        let (status, value) = self;
        value.into_response().with_status(status)
    }
}

impl IntoResponse for serde_json::Value {
    fn into_response(self) -> Response {
        Response::json(&self)
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

impl IntoResponse for PublishError {
    fn into_response(self) -> Response {
        let status = match self {
            PublishError::Event(_) | PublishError::TooManyEntries { .. } => 400,
            PublishError::TooLarge { .. } => 413,
            PublishError::Closed => 404,
            PublishError::Finished => 409,
            PublishError::RateLimited { .. } => 429,
            PublishError::IdReused { .. } | PublishError::KeyReused => 422,
            PublishError::KeyInFlight { .. } => 409,
            PublishError::NotNewest { .. } => 412,
            PublishError::Unavailable { .. } | PublishError::Busy { .. } => 503,
            PublishError::Unconfirmed => 504,
        };
        let mut response = Response::error(status, self.code(), &self.to_string());
        if let PublishError::NotNewest { newest: Some(id) } = &self {
            response.set_etag(id);
        }
        if let Some(retry_after) = self.retry_after() {
            let seconds = retry_after.as_secs_f64().ceil().max(1.0);
            let set = response.headers.insert("Retry-After", seconds.to_string());
            set.expect("a number can be a header");
        }
        response
    }
}

impl IntoResponse for ChannelError {
    fn into_response(self) -> Response {
        let status = match self {
            ChannelError::Name => 400,
            ChannelError::TooMany { .. } | ChannelError::TooManyUnpublished { .. } => 503,
            ChannelError::TooManyOfSource { .. } => 429,
        };
        let response = Response::error(status, self.code(), &self.to_string());
        match self {
            ChannelError::Name => response,
            _ => response.come_back_after(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_no_other_content_type() {
        let channel = crate::ChannelManager::new().get_or_create("news").unwrap();
        let html = ("content-type", "text/html");
        let refused = Some(HeaderError::StreamContentType);
        let streams = [Response::subscribe(&channel), Response::stream(|_| {})];
        for stream in streams {
            assert_eq!(stream.with_header(html.0, html.1).err(), refused);
        }
        let subscription = Subscription::new(&channel).header(html.0, html.1);
        assert_eq!(subscription.err(), refused);
        let options = crate::ChannelOptions::new().header(html.0, html.1);
        assert_eq!(options.err(), refused);
        assert!(Response::text("page").with_header(html.0, html.1).is_ok());
    }

    #[test]
    fn common_types_are_responses() {
        let found = |response: Response| (response.status_code(), response.body_bytes());
        assert_eq!(found(().into_response()), (204, Some(0)));
        assert_eq!(found(Some("text").into_response()), (200, Some(4)));
        let none = None::<&str>.into_response();
        assert_eq!(
            (none.status_code(), none.error_code()),
            (404, Some("not_found"))
        );
        assert_eq!(found((201, "made").into_response()), (201, Some(4)));
        assert_eq!(found(vec![0, 255].into_response()), (200, Some(2)));
        assert_eq!(found(Cow::Borrowed("text").into_response()), (200, Some(4)));
    }
}
