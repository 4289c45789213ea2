//! Requests that another server has read.

use super::next::Next;
use super::{Http, Opening};
use crate::exchange::Exchange;
use crate::reactor::io::Io;
use crate::reactor::io::net::Net;

impl Http {
    /// Answers a request that another server has read, on a connection of its own.
    /// Returns the stream that it becomes, if it does.
    pub(crate) fn on_exchange<N: Net>(
        &mut self,
        io: &mut Io<N>,
        socket: N::Socket,
        exchange: Exchange,
    ) -> Option<(u32, Box<Opening>)> {
        let Exchange {
            message,
            peer,
            answer,
        } = exchange;
        let key = io.insert(socket, peer, self.proxies.own_address(peer))?;
        io.turn.spent.requests += 1;
        let next = match answer {
            Some(response) => {
                let request = self.request(io, key, message);
                self.answer(io, key, request, response)
            }
            None => self.handle(io, key, message),
        };
        match self.finish_answers(io, key, next) {
            Next::Open(opening) => Some((key, opening)),
            Next::Request | Next::Hold | Next::HandOver | Next::Closed => None,
        }
    }
}
