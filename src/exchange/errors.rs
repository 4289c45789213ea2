//! Errors as responses, so that `?` works in handlers.

use super::request::BodyError;
use super::response::{IntoResponse, Response};
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
    HeaderError,
    PublishError
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
}
