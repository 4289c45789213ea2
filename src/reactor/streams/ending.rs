//! How a stream ends: what goes out last, and what the hub and the user's code
//! learn of it.

use std::time::Duration;

use super::Streams;
use super::cursor::Owed;
use crate::frame::Frame;
use crate::hub::client::{ConnectionId, DisconnectReason};
use crate::hub::{ChannelKey, DisconnectCall, Form, MemberKey, Report};
use crate::reactor::guard::call_on_disconnect;
use crate::reactor::io::Io;
use crate::reactor::io::connection::{NONE, Stream, StreamKey};
use crate::reactor::io::net::Net;
use crate::reactor::retry::{retry_line, retry_ms};

/// The data of the event for a client whose credentials have run out.
const REAUTH_DATA: &str = r#"{"reason":"expired"}"#;

/// The spare batches that are kept.
const SPARE_BATCHES_MAX: usize = 16;

impl Streams {
    /// Ends a stream, whatever it does: leaves the hub, closes the connection, and
    /// calls `on_disconnect`.
    pub(crate) fn end<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey, reason: DisconnectReason) {
        if !matches!(reason, DisconnectReason::Gone | DisconnectReason::Stalled) {
            self.finish_packed(io, key);
        }
        self.send_positions(io);
        let stream = *io.connections.stream(key);
        let disconnect_call = self.leave_channels(&stream, io.connection_id(key.key()), reason);
        self.leave_feed(io, stream);
        io.meters.count_end(reason);
        io.close(key.key());
        if let Some(disconnect_call) = disconnect_call {
            call_on_disconnect(disconnect_call, reason);
        }
    }

    /// Ends the stream of a client that was sent everything. Where it is one of
    /// several channels that is over, the browser receives a delay after which
    /// it comes back, each another one.
    pub(super) fn end_complete<N: Net>(
        &mut self,
        io: &mut Io<N>,
        key: StreamKey,
        reason: DisconnectReason,
    ) {
        let feed = io.connections.stream(key).feed;
        match reason {
            DisconnectReason::Finished if self.feeds.get(feed).form != Form::Page => {
                self.end(io, key, reason);
            }
            _ => self.end_with_last(io, key, reason),
        }
    }

    /// Ends a stream at the deadline of a shutdown.
    pub(crate) fn end_late<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) {
        self.end_with_last(io, key, DisconnectReason::Shutdown);
    }

    /// Ends a stream at once. A browser receives a delay after which it comes back,
    /// each another one, and a client that waits for a page receives an empty one, if there
    /// is room for that.
    fn end_with_last<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey, reason: DisconnectReason) {
        let stream = *io.connections.stream(key);
        if stream.cursor == NONE {
            let feed = self.feeds.get(stream.feed);
            let line = match feed.form {
                Form::Page => self.last_page(io, key, feed.seen_by_current(stream.index as usize)),
                _ => retry_line(retry_ms(&self.hub)),
            };
            let wrapped = self.feeds.get(stream.feed).wrap(&line);
            // A client that has left its channels has no page. Whether the bytes get there is
            // all the same: the connection ends.
            if !wrapped.is_empty() && io.write_last(key.key(), &wrapped) {
                self.add_own(io, key, &line);
            }
        }
        self.end(io, key, reason);
    }

    /// Owes a client the last bytes of its stream.
    pub(super) fn owe_last<N: Net>(&mut self, io: &Io<N>, key: StreamKey) {
        let retry_ms = retry_ms(&self.hub);
        let stream = *io.connections.stream(key);
        let cursor = &mut self.cursors[stream.cursor as usize];
        let Some(end) = &mut cursor.end else {
            return;
        };
        end.is_last_owed = true;
        let last = match end.reason {
            _ if self.feeds.get(stream.feed).form == Form::Page => {
                let seen = cursor.seen;
                self.last_page(io, key, seen)
            }
            DisconnectReason::Expired => {
                let retry = Duration::from_millis(retry_ms);
                let reauth = Frame::internal("pushwheel.reauth", None, Some(retry), REAUTH_DATA);
                reauth.as_bytes().to_vec()
            }
            _ => retry_line(retry_ms),
        };
        if last.is_empty() {
            return;
        }
        self.add_own(io, key, &last);
        let feed = self.feeds.get(stream.feed);
        let mut bytes = feed.wrap(&last).into_owned();
        if feed.is_packed() {
            bytes.extend(self.sums.get(key.key()).end());
        }
        let owed = Owed::own(Frame::raw(&bytes), 0);
        self.cursors[stream.cursor as usize].owed = Some(owed);
    }

    /// Writes the end of a compressed stream whose client owes nothing, if there is
    /// room for that.
    fn finish_packed<N: Net>(&mut self, io: &mut Io<N>, key: StreamKey) {
        let stream = *io.connections.stream(key);
        if !self.feeds.get(stream.feed).is_packed() {
            return;
        }
        let cursor = self.cursors.get(stream.cursor as usize);
        if cursor.is_none_or(|cursor| cursor.is_between_frames()) {
            // Whether it gets there is all the same: the connection ends.
            io.write_last(key.key(), &self.sums.get(key.key()).end());
        }
    }

    fn leave_feed<N: Net>(&mut self, io: &mut Io<N>, stream: Stream) {
        let feed = self.feeds.get_mut(stream.feed);
        feed.leaving -= usize::from(stream.is_leaving);
        let index = stream.index as usize;
        let is_merged = feed.channels.len() > 1;
        let moves = match stream.cursor {
            NONE => feed.remove_current(index),
            _ => feed.remove_behind(index),
        };
        Self::apply(io, moves);
        if stream.cursor != NONE {
            self.cursors.remove(stream.cursor as usize);
            self.feeds.count_behind(stream.feed, false);
        }
        if is_merged {
            self.readers.remove(stream.reader as usize);
        }
        if self.feeds.get(stream.feed).is_empty() {
            self.close_feed(io, stream.feed);
        } else {
            self.note_progress(stream.feed);
        }
    }

    /// The last client of a feed has left.
    fn close_feed<N: Net>(&mut self, io: &mut Io<N>, id: u32) {
        self.put_away(io, id);
        let feed = self.feeds.remove(id);
        let mut gaps = feed.unreported.gaps;
        let unreported = feed.channels.iter().zip(&feed.unreported.delivered);
        let reports = unreported.map(|(channel, delivered)| {
            let report = Report {
                delivered: *delivered,
                gaps: std::mem::take(&mut gaps),
                sent_through: None,
            };
            (*channel, report)
        });
        self.hub.report(io.index, reports, io.turn.now_ms);
        // Its last client may have been what a log was kept for.
        self.feeds
            .list_channels(&feed.channels, &mut self.to_report);
    }

    /// Puts the batch of a feed's delivery away, and counts its bytes. Returns when
    /// its oldest event was published, if it was written to any client.
    pub(super) fn put_away<N: Net>(&mut self, io: &mut Io<N>, id: u32) -> Option<u64> {
        let feed = self.feeds.get_mut(id);
        let since_us = feed.delivery.as_ref()?.since_us;
        let (batch, bytes) = feed.take_delivery()?;
        io.count_written(bytes);
        self.keep_batch(batch);
        since_us.filter(|_| bytes > 0)
    }

    pub(super) fn keep_batch(&mut self, mut batch: Box<crate::hub::batch::Batch>) {
        if self.spare_batches.len() < SPARE_BATCHES_MAX {
            batch.clear();
            self.spare_batches.push(batch);
        }
    }

    /// Takes a client out of its channels. Returns the call of its hook, if it has one.
    fn leave_channels(
        &self,
        stream: &Stream,
        connection: ConnectionId,
        reason: DisconnectReason,
    ) -> Option<DisconnectCall> {
        let member = |(channel, slot): (&ChannelKey, u32)| MemberKey {
            channel: *channel,
            slot,
        };
        match &*self.feeds.get(stream.feed).channels {
            [only] => {
                let member_keys = [member((only, stream.reader))];
                self.hub.leave(&member_keys, connection, reason)
            }
            several => {
                let readers = self.readers[stream.reader as usize].iter();
                let slots = readers.map(|reader| reader.slot);
                let member_keys: Vec<_> = several.iter().zip(slots).map(member).collect();
                self.hub.leave(&member_keys, connection, reason)
            }
        }
    }
}
