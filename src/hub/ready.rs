//! An event that is ready to be appended to a log.

use std::sync::Arc;

use super::audience::Audience;
use super::entry::{Attributes, Entry};
use super::id::EventId;
use super::ids::Ids;
use super::published::PublishError;
use super::remembered::{OwnId, digest};
use crate::event::Event;
use crate::frame::Frame;

/// An event that is encoded and checked, and needs only its place.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) frame: Frame,
    /// Whether the hub gives it an id.
    pub(crate) is_sequenced: bool,
    /// Whether it removes its key.
    pub(crate) removes: bool,
    /// What makes it more than a plain event, but for its audience. The digest of
    /// its own id is that of the event without its target.
    pub(crate) attributes: Option<Box<Attributes>>,
}

impl Ready {
    /// Encodes an event. Its id is filled in when it has a sequence number.
    pub(crate) fn encode(
        event: &Event<'_>,
        compress_from: Option<usize>,
        ids: &Ids,
    ) -> Result<Ready, PublishError> {
        let frame = Frame::encode(event, ids.prefix())?;
        let is_plain = event.id().is_none() && event.key().is_none() && compress_from.is_none();
        Ok(Ready {
            attributes: (!is_plain).then(|| Box::new(attributes_of(event, &frame, compress_from))),
            frame,
            is_sequenced: true,
            removes: event.is_removal(),
        })
    }

    /// Sets the clients that the event is for.
    pub(super) fn set_audience(&mut self, audience: Arc<Audience>) {
        self.attributes.get_or_insert_default().audience = Some(audience);
    }

    /// Returns whether it has the frame for streams that are compressed.
    pub(super) fn is_packed(&self) -> bool {
        let attributes = self.attributes.as_ref();
        attributes.is_some_and(|attributes| attributes.packed.is_some())
    }

    /// Makes the frame for streams that are compressed, if it has none.
    pub(super) fn pack(&mut self, compress_from: usize) {
        if !self.is_packed() {
            let packed = self.frame.pack(compress_from);
            self.attributes.get_or_insert_default().packed = Some(packed);
        }
    }

    /// Gives the event its number, and its id if it has none of its own.
    /// `is_doubtful`: an own id may be that of an event from before a restart.
    #[inline(always)]
    pub(super) fn numbered(
        self,
        ids: &Ids,
        sequence: u64,
        at_ms: u64,
        is_doubtful: bool,
    ) -> Numbered {
        let Ready {
            mut frame,
            is_sequenced,
            removes,
            mut attributes,
        } = self;
        let number = ids.number(sequence);
        if is_sequenced {
            frame.stamp(ids.prefix(), number);
        }
        let mut id = EventId::new(ids.epoch(), number);
        if let Some(attributes) = &mut attributes {
            if is_sequenced && let Some(packed) = &mut attributes.packed {
                packed.stamp(ids.prefix(), number);
            }
            if let Some(own_id) = &mut attributes.own_id {
                own_id.is_doubtful = is_doubtful;
                id = own_id.event_id();
            }
        }
        let entry = Entry {
            sequence,
            at_ms,
            frame,
            attributes,
        };
        Numbered { entry, id, removes }
    }

    /// Returns the size of the largest of some events, in bytes.
    pub(super) fn largest(events: &[Ready]) -> Option<usize> {
        events.iter().map(|ready| ready.frame.len()).max()
    }

    pub(crate) fn raw(bytes: &[u8]) -> Ready {
        Ready {
            frame: Frame::raw(bytes),
            is_sequenced: false,
            removes: false,
            attributes: None,
        }
    }

    /// Returns the key under which a newer event replaces it.
    pub(super) fn key(&self) -> Option<&str> {
        self.attributes.as_ref()?.key.as_deref()
    }

    /// Returns the id that the publisher gave.
    pub(crate) fn own_id(&self) -> Option<&OwnId> {
        self.attributes.as_ref()?.own_id.as_ref()
    }
}

/// An entry that has its number, and needs only its channel.
pub(super) struct Numbered {
    pub(super) entry: Entry,
    /// The id under which clients see it.
    pub(super) id: EventId,
    /// Whether it removes its key.
    pub(super) removes: bool,
}

/// Returns what makes an event more than a plain one.
fn attributes_of(event: &Event<'_>, frame: &Frame, compress_from: Option<usize>) -> Attributes {
    let key: Option<Arc<str>> = event.key().filter(|key| !key.is_empty()).map(Arc::from);
    let own_id = event.id().map(|id| OwnId {
        text: id.into(),
        digest: digest([
            frame.as_bytes(),
            key.as_deref().unwrap_or_default().as_bytes(),
            if event.is_removal() { b"removal" } else { b"" },
        ]),
        is_doubtful: false,
    });
    Attributes {
        audience: None,
        packed: compress_from.map(|bytes| frame.pack(bytes)),
        own_id,
        key,
    }
}
