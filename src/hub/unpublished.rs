//! Channels that subscriptions have made and that no publisher has published to.
//!
//! They have a share of all channels, and each source of requests a part of that
//! share, so that subscribers cannot take the room of publishers.

use std::collections::HashMap;

use super::lists::Lists;
use super::names::ChannelError;

/// The part of all channels that publishers' channels always have.
const RESERVED_PART: usize = 8;

/// The part of all channels that one source may have of unpublished ones.
const SOURCE_PART: usize = 16;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Unpublished {
    max: usize,
    per_source_max: usize,
    /// By slot, in the order in which they were made.
    list: Lists<1>,
    /// How many each source has.
    sources: HashMap<u64, usize>,
}

impl Unpublished {
    /// Returns an empty list. The limits are, unless they are given, parts of
    /// `channels_max`.
    pub(super) fn new(
        channels_max: usize,
        max: Option<usize>,
        per_source_max: Option<usize>,
    ) -> Unpublished {
        let rest = channels_max - channels_max / RESERVED_PART;
        let part = channels_max.div_ceil(SOURCE_PART);
        Unpublished {
            max: max.unwrap_or(rest),
            per_source_max: per_source_max.unwrap_or(part),
            list: Lists::new(),
            sources: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len(0)
    }

    #[inline]
    pub(super) fn contains(&self, slot: u32) -> bool {
        self.list.of(slot).is_some()
    }

    /// # Errors
    /// When there are as many as there may be.
    pub(super) fn check(&self) -> Result<(), ChannelError> {
        match self.len() < self.max {
            true => Ok(()),
            false => Err(ChannelError::TooManyUnpublished { max: self.max }),
        }
    }

    /// # Errors
    /// When a source has as many as it may have.
    pub(super) fn check_source(&self, source: Option<u64>) -> Result<(), ChannelError> {
        let max = self.per_source_max;
        let count = source.and_then(|source| self.sources.get(&source));
        match count {
            Some(count) if *count >= max => Err(ChannelError::TooManyOfSource { max }),
            _ => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, slot: u32) {
        self.list.push(0, slot);
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.list.remove(slot);
    }

    /// Returns the slots, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = u32> {
        self.list.newest_first(0)
    }

    /// Counts a channel for a source. `counted_for` is the channel's note of it.
    pub(super) fn charge(&mut self, counted_for: &mut Option<u64>, source: Option<u64>) {
        if let Some(source) = source {
            *counted_for = Some(source);
            *self.sources.entry(source).or_default() += 1;
        }
    }

    /// Counts a channel for its source no longer.
    pub(super) fn release(&mut self, counted_for: &mut Option<u64>) {
        if let Some(source) = counted_for.take()
            && let Some(count) = self.sources.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.sources.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_part_of_the_share() {
        let mut unpublished = Unpublished::new(32, None, None);
        assert_eq!((unpublished.max, unpublished.per_source_max), (28, 2));
        let mut counted = [None; 2];
        for (slot, counted_for) in (0..).zip(&mut counted) {
            assert_eq!(unpublished.check_source(Some(7)), Ok(()));
            unpublished.insert(slot);
            unpublished.charge(counted_for, Some(7));
        }
        let too_many = Err(ChannelError::TooManyOfSource { max: 2 });
        assert_eq!(unpublished.check_source(Some(7)), too_many);
        assert_eq!(unpublished.check_source(None), Ok(()));
        assert_eq!(unpublished.newest_first().next(), Some(1));
        // A publisher has published to both.
        for (slot, counted_for) in (0..).zip(&mut counted) {
            unpublished.remove(slot);
            unpublished.release(counted_for);
            unpublished.release(counted_for);
        }
        assert!(unpublished.is_empty());
    }

    #[test]
    fn the_share_has_a_limit() {
        let mut unpublished = Unpublished::new(8, Some(1), None);
        assert_eq!(unpublished.check(), Ok(()));
        unpublished.insert(3);
        let too_many = Err(ChannelError::TooManyUnpublished { max: 1 });
        assert_eq!(unpublished.check(), too_many);
        assert!(unpublished.contains(3) && !unpublished.contains(2));
    }
}
