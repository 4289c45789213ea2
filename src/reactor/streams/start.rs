//! How a stream begins.

use super::Streams;
use super::cursor::Owed;
use super::opening::Opening;
use crate::frame::Frame;
use crate::hub::client::DisconnectReason;
use crate::hub::clock::as_ms;
use crate::hub::log::Evicted;
use crate::hub::{ChannelReader, Form, Source};
use crate::reactor::io::Io;
use crate::reactor::io::connection::{NONE, Stream};
use crate::reactor::io::net::Net;

impl Streams {
    /// Turns a connection that speaks HTTP into a stream: what it has not sent yet
    /// goes out first, then the replay, then what follows it.
    pub(crate) fn start<N: Net>(&mut self, io: &mut Io<N>, key: u32, opening: Opening) {
        let Opening {
            channels, joined, ..
        } = opening;
        let source = Source {
            channels: &channels,
            form: opening.form,
        };
        if let Some(sum) = opening.packed {
            self.sums.begin(key, sum);
        }
        let feeds = &mut self.feeds;
        let feed_id = feeds.find_or_insert(source, &joined.options, joined.now);
        let feed = feeds.get_mut(feed_id);
        feed.is_private = joined.is_private;
        feed.limits_unsent = joined.conflates && opening.form != Form::Page;
        let is_current = joined.seen >= joined.head && joined.head <= feed.through;
        let (reader, forgiven) = self.keep_readers(joined.readers);
        let mut stream = Stream {
            feed: feed_id,
            index: 0,
            reader,
            cursor: NONE,
            ends_at: 0,
            ends_as: None,
            strikes: 0,
            is_leaving: false,
            names_position: opening.names_position,
        };
        // A sink says itself when it ends.
        if !joined.is_private
            && let Some((ticks, reason)) = self.deadline(io, opening.expires_in)
        {
            stream.end_in(ticks, io.turn.tick32(), reason);
        }
        if let Some(wait) = opening.wait {
            let ticks = io.turn.ticks_in(as_ms(wait));
            stream.end_in(ticks, io.turn.tick32(), DisconnectReason::Answered);
        }
        io.meters.streams_opened.add(1);
        let (key, http) = io.connections.begin_stream(key, stream);
        // Since when the client takes nothing of it still counts.
        let unsent = http.unsent.as_bytes();
        let owed = (!unsent.is_empty()).then(|| Owed::own(Frame::raw(unsent), 0));
        if is_current && owed.is_none() {
            self.add_current(io, key);
        } else {
            let is_blocked = owed.is_some();
            self.fall_behind(io, key, joined.seen, owed, is_blocked);
            if let Some(cursor) = self.cursor_mut(io, key) {
                cursor.replay_through = joined.now;
                cursor.keyed_through = joined.keyed_through;
                cursor.forgiven = forgiven;
                cursor.replay_end = opening.replay_end;
            }
            if http.is_queued {
                // The socket may have been reported as writable, and this connection
                // has not written since: it waited among the requests.
                self.queue_cursor(io, key);
            }
        }
        self.set_timer(io, key);
        self.draw_moment(io, key);
        if joined.is_finished {
            // Nothing more will mark the channel dirty: its end has to be
            // found by gathering nothing.
            self.queue_feed(feed_id);
        }
        if opening.is_gone {
            self.end(io, key, DisconnectReason::Gone);
        }
    }

    /// Keeps a client's readers. Returns what its connection holds of them, and on a
    /// stream of one channel the loss that is forgiven.
    fn keep_readers(&mut self, readers: Vec<ChannelReader>) -> (u32, Evicted) {
        if let [only] = &*readers {
            return (only.slot, only.forgiven);
        }
        let reader = self.readers.insert(readers.into_boxed_slice());
        let reader = u32::try_from(reader).expect("fewer streams than 2^32");
        (reader, Evicted::default())
    }
}
