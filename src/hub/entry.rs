//! An entry of a log: a published event with its sequence number.

use std::sync::Arc;

use super::audience::Audience;
use super::remembered::{IdRecord, OwnId};
use crate::frame::Frame;

/// What an entry costs beyond its frame's bytes, in the log's accounting.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// One published event.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    pub(crate) at_ms: u64,
    pub(crate) frame: Frame,
    /// What makes the entry more than a plain broadcast. Few have any, so boxed.
    pub(crate) attributes: Option<Box<Attributes>>,
}

/// What only some entries have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    /// The clients that the entry is for; `None`: all. The entries of a batch share it,
    /// and are side by side.
    pub(crate) audience: Option<Arc<Audience>>,
    /// The frame for streams that are compressed.
    pub(crate) packed: Option<Frame>,
    /// The id that the publisher gave.
    pub(crate) own_id: Option<OwnId>,
    /// The key under which a newer event replaces this one.
    pub(crate) key: Option<Arc<str>>,
}

impl Attributes {
    /// Returns whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        let Attributes {
            audience,
            packed,
            own_id,
            key,
        } = self;
        audience.is_none() && packed.is_none() && own_id.is_none() && key.is_none()
    }
}

impl Entry {
    pub(crate) fn audience(&self) -> Option<&Arc<Audience>> {
        self.attributes.as_ref()?.audience.as_ref()
    }

    pub(crate) fn has_key(&self) -> bool {
        self.key().is_some()
    }

    pub(crate) fn key(&self) -> Option<&Arc<str>> {
        self.attributes.as_ref()?.key.as_ref()
    }

    pub(crate) fn own_id(&self) -> Option<&str> {
        Some(&self.attributes.as_ref()?.own_id.as_ref()?.text)
    }

    /// Returns whether its own id may be that of an event from before a restart.
    pub(super) fn has_doubtful_id(&self) -> bool {
        let own_id = self.attributes.as_ref().and_then(|a| a.own_id.as_ref());
        own_id.is_some_and(|own_id| own_id.is_doubtful)
    }

    /// Returns what there is to remember of the publisher's own id.
    pub(super) fn record(&self) -> Option<(Arc<str>, IdRecord)> {
        let attributes = self.attributes.as_ref()?;
        let own_id = attributes.own_id.as_ref()?;
        let record = IdRecord {
            sequence: self.sequence,
            at_ms: self.at_ms,
            digest: own_id.digest,
            is_doubtful: own_id.is_doubtful,
            audience: attributes.audience.clone(),
        };
        Some((own_id.text.clone(), record))
    }

    /// Returns the frame for streams that are compressed.
    pub(crate) fn packed_frame(&self) -> &Frame {
        let attributes = self.attributes.as_ref();
        let packed = attributes.and_then(|attributes| attributes.packed.as_ref());
        packed.unwrap_or(&self.frame)
    }

    /// Returns the bytes of the entry without its audience, which other entries may
    /// share.
    pub(super) fn bytes(&self) -> usize {
        let attributes = self.attributes.as_ref().map_or(0, |attributes| {
            size_of::<Attributes>()
                + attributes.packed.as_ref().map_or(0, Frame::len)
                + attributes.own_id.as_ref().map_or(0, |id| 2 * id.text.len())
                + attributes.key.as_ref().map_or(0, |key| 2 * key.len())
        });
        self.frame.len() + attributes + ENTRY_OVERHEAD_BYTES
    }
}

/// The bytes that an audience adds beside its neighbours: 0 if one of them has
/// the same.
pub(super) fn audience_bytes_beside(
    audience: &Arc<Audience>,
    beside: [Option<&Entry>; 2],
) -> usize {
    let has_same = |other: &Entry| other.audience().is_some_and(|a| Arc::ptr_eq(a, audience));
    match beside.into_iter().flatten().any(has_same) {
        true => 0,
        false => audience.bytes(),
    }
}
