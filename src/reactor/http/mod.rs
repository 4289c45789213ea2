//! HTTP: from bytes to responses.

pub(crate) mod answering;
pub(crate) mod opening;
mod preface;
pub(crate) mod serving;
