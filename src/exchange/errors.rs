//! Errors as responses, so that `?` works in handlers.

use std::error::Error;
use std::time::Duration;

use super::request::BodyError;
use super::response::{IntoResponse, Response};
use super::sink::SinkError;
use crate::event::EventError;
use crate::http::HeaderError;
use crate::hub::client::ClientIdError;
use crate::hub::names::ChannelError;
use crate::hub::published::PublishError;

impl IntoResponse for ClientIdError {
    fn into_response(self) -> Response {
        Response::error(400, "client_id_invalid", &self.to_string())
    }
}

impl IntoResponse for BodyError {
    fn into_response(self) -> Response {
        let code = match self {
            BodyError::Utf8 { .. } => "invalid_utf8",
            BodyError::Json { .. } => "invalid_json",
        };
        Response::error(400, code, &self.to_string())
    }
}

/// `500`: an invalid header is a mistake of the handler.
impl IntoResponse for HeaderError {
    fn into_response(self) -> Response {
        Response::internal_error(self)
    }
}

impl IntoResponse for EventError {
    fn into_response(self) -> Response {
        PublishError::Event(self).into_response()
    }
}

/// `400` for invalid JSON that was read, as a request's. `500` for a value that
/// cannot be written as JSON, which is a mistake of the handler.
impl IntoResponse for serde_json::Error {
    fn into_response(self) -> Response {
        // An error of writing has no place in a text.
        if self.line() == 0 {
            return Response::internal_error(self);
        }
        let message = self.to_string();
        BodyError::Json { message }.into_response()
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

/// Makes `?` work in a handler that returns `Result<_, Response>`, whatever kinds of
/// errors it meets, and has each of them answer for itself in a boxed error.
macro_rules! question_mark {
    ($($error:ty),*) => {
        $(
            impl From<$error> for Response {
                fn from(error: $error) -> Response {
                    error.into_response()
                }
            }
        )*

        /// This crate's errors and those of `serde_json` have the response of their
        /// type. Any other error is `500`: it is logged with the request's method,
        /// path and client address, and the client does not receive its text.
        ///
        /// With `Result<T, Box<dyn Error + Send + Sync>>` as its return type a handler
        /// can use `?` with every error:
        ///
        /// ```
        /// use std::error::Error;
        /// use pushwheel::Request;
        ///
        /// fn handler(request: &Request) -> Result<String, Box<dyn Error + Send + Sync>> {
        ///     let name = request.text()?; // 400 if it is not UTF-8
        ///     Ok(std::fs::read_to_string(format!("data/{name}"))?) // 500
        /// }
        /// ```
        impl IntoResponse for Box<dyn Error + Send + Sync> {
            fn into_response(self) -> Response {
                let error = self;
                $(
                    let error = match error.downcast::<$error>() {
                        Ok(error) => return error.into_response(),
                        Err(error) => error,
                    };
                )*
                Response::internal_error(error)
            }
        }
    };
}

impl From<Box<dyn Error + Send + Sync>> for Response {
    fn from(error: Box<dyn Error + Send + Sync>) -> Response {
        error.into_response()
    }
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
    use super::super::response::Kind;
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

    #[test]
    fn any_error_leaves_a_handler_and_its_text_stays_on_the_server() {
        fn handler(step: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
            match step {
                0 => Err(PublishError::Finished)?,
                1 => _ = "seven".parse::<u8>()?,
                2 => Err("the disk is full")?,
                _ => {}
            }
            Ok(())
        }
        let statuses = [0, 1, 2, 3].map(|step| handler(step).into_response().status);
        assert_eq!(statuses, [409, 500, 500, 204]);
        let mut response = handler(2).into_response();
        let logged = response.failure.take().unwrap().to_string();
        assert_eq!(logged, "the disk is full");
        let Kind::Body(body) = response.kind else {
            panic!("an error has a body");
        };
        let body = String::from_utf8_lossy(&body);
        assert!(
            body.contains("internal_error") && !body.contains("disk"),
            "{body}"
        );
    }
}
