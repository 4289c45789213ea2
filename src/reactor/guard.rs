//! The user's code, from which a panic goes no further.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::hub::DisconnectCall;
use crate::hub::client::DisconnectReason;

/// Runs code of the engine's user. A panic is logged, and affects nothing else.
pub(super) fn guard<T>(what: impl fmt::Display, code: impl FnOnce() -> T) -> Option<T> {
    let logged = catch(code).map_err(|message| log::error!("{what} panicked: {message}"));
    logged.ok()
}

/// Runs code of the engine's user. Returns the message of a panic as an error.
pub(super) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        text.unwrap_or("no message").to_owned()
    })
}

/// Calls a client's `on_disconnect`. Nothing may be locked.
pub(super) fn call_on_disconnect(disconnect_call: DisconnectCall, reason: DisconnectReason) {
    guard("on_disconnect", || {
        (disconnect_call.hook)(&disconnect_call.info, reason)
    });
}
