//! Connections that a proxy announces: the PROXY header before their first
//! request. Until it is complete nobody knows whose they are.

use crate::http::Refusal;
use crate::proxies::Source;
use crate::reactor::Reactor;
use crate::reactor::http::serving::Flow;
use crate::reactor::io::net::Net;

impl<N: Net> Reactor<N> {
    /// Takes what `input` has of the header that a connection begins with, and
    /// says how many bytes that were: all of them if it goes on.
    pub(crate) fn read_preface(
        &mut self,
        key: u32,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<usize, Flow> {
        let http = self.connections.http_mut(key).ok_or(Flow::Left)?;
        let Some(preface) = &mut http.preface else {
            return Ok(0);
        };
        match preface.push(input) {
            Ok(None) => Ok(input.len()),
            Ok(Some((count, source))) => {
                http.preface = None;
                if let Source::Client(address) = source {
                    http.source = address;
                    self.note_client(key, address);
                }
                Ok(count)
            }
            Err(error) => {
                self.refuse(key, &Refusal::proxy_header(error), output);
                Err(Flow::Hold)
            }
        }
    }
}
