//! From the listen queue to connections that speak HTTP.

use std::net::SocketAddr;

use super::Http;
use crate::proxies::Preface;
use crate::reactor::io::net::Net;
use crate::reactor::io::{Accepted, Io};

impl Http {
    /// Accepts connections, as many as the turn's budget allows.
    pub(crate) fn accept<N: Net>(&mut self, io: &mut Io<N>) {
        if !io.begin_accepting() {
            return;
        }
        for _ in 0..io.turn.budgets.accepts_a_turn {
            match io.accept() {
                Accepted::Connection(socket, peer) => self.on_accept(io, socket, peer),
                Accepted::Lost => {}
                Accepted::Nothing => return,
            }
        }
    }

    fn on_accept<N: Net>(&self, io: &mut Io<N>, socket: N::Socket, peer: SocketAddr) {
        let own_address = self.proxies.own_address(peer);
        let key = io.insert(socket, peer, own_address);
        if let Some(key) = key.filter(|_| self.proxies.expects_preface(peer))
            && let Some(state) = io.connections.http_mut(key)
        {
            state.preface = Some(Box::new(Preface::new()));
        }
    }

    /// A proxy has sent its client's address. It counts from here, unless it is that
    /// of a further proxy.
    pub(super) fn note_client<N: Net>(&self, io: &mut Io<N>, key: u32, client: SocketAddr) {
        if let Some(own_address) = self.proxies.direct(client) {
            io.count_address(key, client, own_address);
        }
    }
}
