//! Errors as responses, so that `?` works in handlers.

use std::time::Duration;

use super::request::BodyError;
use super::response::{IntoResponse, Response};
use super::sink::SinkError;
use crate::event::EventError;
use crate::http::HeaderError;
use crate::hub::channel::PublishError;
use crate::hub::client::ClientIdError;
use crate::hub::manager::ChannelError;

impl IntoResponse for ClientIdError {
    fn into_response(self) -> Response {
        Response::error(400, "client_id_invalid", &self.to_string())
    }
}

/// A response with an impossible header is the handler's mistake.
impl IntoResponse for HeaderError {
    fn into_response(self) -> Response {
        log::error!("a handler made an impossible header: {self}");
        Response::error(
            500,
            "internal_error",
            "the answer could not be written: the server's log says why",
        )
    }
}

impl IntoResponse for EventError {
    fn into_response(self) -> Response {
        PublishError::Event(self).into_response()
    }
}

/// `400` for JSON that was read and is invalid, as a request's is. A value that
/// cannot be written as JSON has no place in a text: it is the handler's mistake,
/// and `500`.
impl IntoResponse for serde_json::Error {
    fn into_response(self) -> Response {
        if self.line() > 0 {
            let message = self.to_string();
            return BodyError::Json { message }.into_response();
        }
        log::error!("a handler made a value that cannot be written as JSON ({self})");
        Response::error(
            500,
            "internal_error",
            "the handler failed; the log says why",
        )
    }
}

impl IntoResponse for SinkError {
    fn into_response(self) -> Response {
        let message = self.to_string();
        match self {
            SinkError::Ended(_) => Response::error(410, "stream_ended", &message),
            SinkError::Full => {
                Response::error(503, "stream_full", &message).come_back_after(Duration::ZERO)
            }
            SinkError::Invalid(error) => error.into_response(),
        }
    }
}

/// In a handler that answers `Result<_, Response>`, `?` answers the error as
/// [`IntoResponse`] has it, whatever kinds of errors there are.
macro_rules! question_mark {
    ($($error:ty),*) => {$(
        impl From<$error> for Response {
            fn from(error: $error) -> Response {
                error.into_response()
            }
        }
    )*};
}

question_mark!(
    BodyError,
    ChannelError,
    ClientIdError,
    EventError,
    HeaderError,
    PublishError,
    SinkError,
    serde_json::Error
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_different_kinds_leave_a_handler_by_the_question_mark() {
        fn handler(step: usize) -> Result<&'static str, Response> {
            let invalid = BodyError::Utf8 { valid_up_to: 0 };
            [Ok(()), Err(invalid), Ok(())][step.min(2)].clone()?;
            [Ok(()), Ok(()), Err(PublishError::Closed)][step.min(2)].clone()?;
            Ok("fine")
        }
        let status = |step| handler(step).into_response().status_code();
        assert_eq!([status(0), status(1), status(2)], [200, 400, 404]);
    }

    #[test]
    fn errors_of_events_sinks_and_json_leave_a_handler_by_the_question_mark() {
        use crate::event::Event;
        use crate::hub::client::DisconnectReason;
        use std::collections::HashMap;

        fn handler(step: usize) -> Result<(), Response> {
            let unwritable = HashMap::from([((1, 2), 3)]);
            match step {
                0 => _ = Event::json("n", &unwritable)?,
                1 => _ = serde_json::from_str::<u8>("{")?,
                2 => Err(EventError::IdEmpty)?,
                3 => Err(SinkError::Ended(DisconnectReason::Gone))?,
                4 => Err(SinkError::Full)?,
                5 => Err(SinkError::Invalid(PublishError::Finished))?,
                _ => {}
            }
            Ok(())
        }
        let statuses = [0, 1, 2, 3, 4, 5, 6].map(|step| handler(step).into_response().status);
        assert_eq!(statuses, [500, 400, 400, 410, 503, 409, 204]);
    }
}
