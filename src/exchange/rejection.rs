//! [`Rejection`]: a malformed request, as hooks receive it.

use std::net::SocketAddr;

/// A malformed request and the response to it, as
/// [`EngineBuilder::on_refusal`](crate::EngineBuilder::on_refusal) receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection<'a> {
    /// The address of the client, from the
    /// [PROXY protocol](crate::EngineBuilder::proxy_protocol) where it is used.
    pub address: SocketAddr,
    /// The status of the response.
    pub status: u16,
    /// The code in the response, for programs: stable, in snake case.
    pub code: &'static str,
    /// The message in the response. It never contains bytes that the client sent.
    pub message: &'a str,
}
