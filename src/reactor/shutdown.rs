//! A turn's part of a shutdown. [`drain`](super::drain) has its stages.
//!
//! No stage holds the loop up: each connection costs the same few steps, a slice
//! of them a turn.

use super::drain::Stage;
use super::io::Io;
use super::io::net::Net;
use super::streams::Streams;
use crate::hub::Hub;

/// Connections that get their moment, or their end, in one turn.
const PARTINGS_A_TURN: u32 = 256;

/// Goes on with the shutdown, if there is one.
pub(super) fn advance<N: Net>(io: &mut Io<N>, streams: &mut Streams, hub: &Hub) {
    let now_ms = io.turn.now_ms;
    let Some(drain) = &mut io.turn.drain else {
        return;
    };
    let mut stage = drain.stage;
    if drain.deadline_ms <= now_ms && !matches!(stage, Stage::Late { .. }) {
        stage = Stage::Late { next_key: 0 };
        io.stop_listening();
    } else if stage == Stage::Delaying && now_ms >= drain.begins_ms {
        drain.close(hub.newest_sequence());
        io.acceptor.has_pending = true;
        return;
    }
    let stage = match stage {
        Stage::Closing { turns_left } => {
            match turns_left.checked_sub(1).filter(|_| io.acceptor.is_busy()) {
                Some(turns_left) => Stage::Closing { turns_left },
                None => {
                    io.stop_listening();
                    Stage::Parting { next_key: 0 }
                }
            }
        }
        Stage::Parting { next_key } => {
            let (end, is_last) = slice_end(io, next_key);
            for key in next_key..end {
                set_moment(io, streams, key);
            }
            match is_last {
                true => Stage::Waiting,
                false => Stage::Parting { next_key: end },
            }
        }
        Stage::Late { next_key } => {
            let (end, is_last) = slice_end(io, next_key);
            for key in next_key..end {
                close_late(io, streams, key);
            }
            let next_key = if is_last { 0 } else { end };
            Stage::Late { next_key }
        }
        stage @ (Stage::Delaying | Stage::Waiting) => stage,
    };
    if let Some(drain) = &mut io.turn.drain {
        drain.stage = stage;
    }
}

/// The end of the slice that begins at a key, and whether it is the last.
fn slice_end<N: Net>(io: &Io<N>, first: u32) -> (u32, bool) {
    let all = io.connections.keys_end();
    let end = first.saturating_add(PARTINGS_A_TURN).min(all);
    (end, end == all)
}

/// Sets the time at which a connection ends that need not be there.
fn set_moment<N: Net>(io: &mut Io<N>, streams: &mut Streams, key: u32) {
    if !io.connections.contains(key) {
        return;
    }
    if let Some(stream) = io.connections.as_stream(key) {
        return streams.draw_moment(io, stream);
    }
    // An overflow connection has its own time, and a request ends its connection with its
    // response.
    let is_overflow = io.acceptor.overflow(key).is_some();
    let state = io.connections.http_mut(key);
    if !is_overflow && state.is_some_and(|state| state.is_unused()) {
        io.set_timer(key, io.turn.idle_time(&io.limits));
    }
}

/// Closes a connection at the deadline.
fn close_late<N: Net>(io: &mut Io<N>, streams: &mut Streams, key: u32) {
    if !io.connections.contains(key) {
        return;
    }
    match io.connections.as_stream(key) {
        Some(stream) => streams.end_late(io, stream),
        None => io.close(key),
    }
}
