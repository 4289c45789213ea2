//! How the hub's work spreads to feeds, a slice in one turn.
//!
//! Channels are taken from the front of the hub's lists, and their feeds from the last one
//! to the first. A feed that comes meanwhile stands at the end, and needs none of it: it
//! begins with the newest entry and the options of now.

use super::feeds::Feeds;
use crate::hub::ChannelKey;

/// What is on its way from the hub to feeds and clients.
#[derive(Default)]
pub(super) struct Spread {
    /// The feeds that are left of the first channel that has new entries.
    pub(super) dirty_left: Option<usize>,
    /// The feeds that are left of the first channel that has other options.
    pub(super) changed_left: Option<usize>,
    /// Whether there may be new entries that feeds do not know yet.
    pub(super) has_news: bool,
    /// Whether there are clients that the hub has sent away, and that are not noted yet.
    pub(super) has_leaving: bool,
}

/// Returns the next feed of a channel, if one is left, and whether it is the last one.
pub(super) fn next_feed(
    feeds: &Feeds,
    channel: ChannelKey,
    left: &mut Option<usize>,
) -> (Option<u32>, bool) {
    let feeds = feeds.locals.get(&channel);
    let feeds = feeds.map_or(&[][..], |local| &local.feeds);
    // Feeds may have left meanwhile.
    let count = left.unwrap_or(feeds.len()).min(feeds.len());
    let next = count.checked_sub(1);
    *left = next.filter(|next| *next > 0);
    (next.map(|next| feeds[next]), left.is_none())
}
