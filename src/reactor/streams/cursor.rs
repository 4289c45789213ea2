//! The cursor of a client that is behind.

use crate::frame::Frame;
use crate::hub::batch::Piece;
use crate::hub::client::DisconnectReason;
use crate::hub::log::Evicted;
use crate::reactor::io::connection::StreamKey;

/// Where a client that is behind has got to.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// The key of its connection.
    pub(super) key: StreamKey,
    /// Everything up to here was sent to the client, or is owed: see
    /// [`sent`](Self::sent).
    pub(super) seen: u64,
    /// Up to here the client goes alone: of what there was before it came, it may be
    /// sent less than current clients.
    pub(super) replay_through: u64,
    /// Up to here it is sent only events with a key.
    pub(super) keyed_through: u64,
    /// On a stream of one channel, the loss that a gap event has reported. Other
    /// streams have it in their readers.
    pub(super) forgiven: Evicted,
    /// What it is sent right after its replay, if there is anything.
    pub(super) replay_end: Option<ReplayEnd>,
    /// The frame that it has only the beginning of.
    pub(super) owed: Option<Owed>,
    /// How its stream ends, once its time is up.
    pub(super) end: Option<End>,
    /// Whether it waits for the next gathering, which may take as long as the
    /// feed's pace. Meanwhile it is sent heartbeats as current clients are.
    pub(super) is_early: bool,
    /// Whether its socket takes nothing at the moment.
    pub(super) is_blocked: bool,
    /// Whether the hub knows, or is about to learn, that it is behind.
    pub(super) is_noted: bool,
    /// Whether it waits in its feed's queue.
    pub(super) is_queued: bool,
}

/// What a client is sent between its replay and new events.
#[derive(Debug)]
pub(crate) struct ReplayEnd {
    /// The replay goes up to here.
    pub(crate) after: u64,
    /// Whether the client gets the engine's id for its position, because the id
    /// of its last event does not lead back to it.
    pub(crate) has_id: bool,
    /// What its own `on_connect` has sent to it.
    pub(crate) welcome: Vec<u8>,
}

/// How a client's stream ends whose time is up.
#[derive(Debug)]
pub(super) struct End {
    /// What was published up to here is sent before.
    pub(super) through: u64,
    pub(super) reason: DisconnectReason,
    /// Whether the last bytes are owed, and nothing comes after them.
    pub(super) is_last_owed: bool,
}

/// A frame that is partly written. It is the log's own, not a copy.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) frame: Frame,
    /// The number of its bytes that are out.
    pub(super) written: usize,
    /// For an event, the index of its channel in the feed.
    pub(super) channel_index: Option<usize>,
}

impl Cursor {
    pub(super) fn new(key: StreamKey, seen: u64, owed: Option<Owed>, is_blocked: bool) -> Cursor {
        Cursor {
            key,
            seen,
            replay_through: 0,
            keyed_through: 0,
            forgiven: Evicted::default(),
            replay_end: None,
            owed,
            end: None,
            is_early: false,
            is_blocked,
            is_noted: false,
            is_queued: false,
        }
    }

    /// Everything up to here is out. An event that is torn is not: its
    /// sequence number is `seen`.
    pub(super) fn sent(&self) -> u64 {
        let is_torn = self
            .owed
            .as_ref()
            .is_some_and(|owed| owed.channel_index.is_some());
        self.seen - u64::from(is_torn)
    }

    /// Whether nothing of the stream is under way: it may end here.
    pub(super) fn is_between_frames(&self) -> bool {
        let is_last_owed = self.end.as_ref().is_some_and(|end| end.is_last_owed);
        self.owed.is_none() && !is_last_owed
    }
}

impl Owed {
    /// An event of a batch. `written` bytes of it are out.
    pub(super) fn torn(piece: &Piece, written: usize) -> Owed {
        Owed {
            frame: piece.frame.clone(),
            written,
            channel_index: Some(piece.channel_index),
        }
    }

    /// A frame of the loop's own. `written` bytes of it are out.
    pub(super) fn own(frame: Frame, written: usize) -> Owed {
        Owed {
            frame,
            written,
            channel_index: None,
        }
    }
}

/// Writes a block that holds only an id. A browser dispatches nothing for it, but
/// keeps the id for its next request (HTML Standard 9.2.6).
pub(crate) fn write_id(id: &str, output: &mut Vec<u8>) {
    for part in ["id: ", id, "\n\n"] {
        output.extend_from_slice(part.as_bytes());
    }
}
