//! Clients that wait for one page instead of a stream.
//!
//! A client that waits is a client of a feed like any other: it is current until something
//! is gathered. Then it is behind, its cursor reads its page, and its connection ends with
//! the last byte of that page. So waiting costs what an idle stream costs.

use super::Streams;
use crate::hub::log::Evicted;
use crate::hub::{ChannelReader, Page, Read, Span};
use crate::reactor::io::Io;
use crate::reactor::io::connection::StreamKey;
use crate::reactor::io::net::Net;

impl Streams {
    /// The page of a client that has waited in vain, or whose channels end. Empty if the client
    /// has left them.
    pub(super) fn last_page<N: Net>(&self, io: &Io<N>, key: StreamKey, seen: u64) -> Vec<u8> {
        let span = Span {
            seen,
            through: seen,
            keyed_through: 0,
        };
        let page = self.page(io, key, span);
        page.map_or_else(|_| Vec::new(), |page| bytes_of(&page))
    }

    /// Reads the page of a client in its part of the logs.
    pub(super) fn page<N: Net>(
        &self,
        io: &Io<N>,
        key: StreamKey,
        span: Span,
    ) -> Result<Page, Read> {
        let stream = io.connections.stream(key);
        let feed = self.feeds.get(stream.feed);
        let cursor = self.cursors.get(stream.cursor as usize);
        let single = [ChannelReader {
            slot: stream.reader,
            forgiven: cursor.map_or(Evicted::default(), |cursor| cursor.forgiven),
        }];
        let readers = match &*feed.channels {
            [_] => &single[..],
            _ => &self.readers[stream.reader as usize],
        };
        let connection = io.connection_id(key.key());
        self.hub
            .page_of_member(&feed.channels, readers, connection, span)
    }
}

/// A page as its client receives it.
pub(super) fn bytes_of(page: &Page) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(page).expect("a page is valid JSON");
    bytes.push(b'\n');
    bytes
}
