//! The PROXY header before a connection's first request. Until it is complete the
//! client's address is unknown.

use super::Http;
use super::next::Next;
use crate::http::Refusal;
use crate::proxies::Source;
use crate::reactor::io::Io;
use crate::reactor::io::net::Net;

impl Http {
    /// Reads the header that a connection begins with from `input`. Returns how many
    /// bytes of it that used: all, while the header goes on.
    pub(super) fn read_preface<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: u32,
        input: &[u8],
    ) -> Result<usize, Next> {
        let state = io.connections.http_mut(key).ok_or(Next::Closed)?;
        let Some(preface) = &mut state.preface else {
            return Ok(0);
        };
        match preface.push(input) {
            Ok(None) => Ok(input.len()),
            Ok(Some((count, source))) => {
                state.preface = None;
                if let Source::Client(address) = source {
                    state.source = address;
                    self.note_client(io, key, address);
                }
                Ok(count)
            }
            Err(error) => {
                self.refuse(io, key, &Refusal::proxy_header(error));
                Err(Next::Hold)
            }
        }
    }
}
