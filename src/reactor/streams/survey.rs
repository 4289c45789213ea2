//! The look at all clients of a channel, for the report of its progress, and for clients
//! that have fallen off the log.
//!
//! It goes backwards through the channel's feeds, and through the clients of each that are
//! behind, some of them in one turn. What moves in these lists meanwhile comes from their
//! ends, where the look has been. A client that begins, or is set back, lowers the result.

use super::feed::Feed;
use crate::hub::{ChannelKey, Report};
use crate::reactor::io::connection::StreamKey;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) channel: ChannelKey,
    /// The feeds that are left: the first ones.
    feeds_left: usize,
    feed: Option<InFeed>,
    /// All clients so far were sent everything up to here.
    sent_through: u64,
    delivered: u64,
    gaps: u64,
}

/// The feed whose clients are looked at.
#[derive(Debug)]
struct InFeed {
    id: u32,
    /// The clients that are left: the first ones that are behind.
    left: usize,
    /// No client so far has seen less, if there is one.
    floor: Option<u64>,
}

impl Survey {
    pub(super) fn new(channel: ChannelKey) -> Survey {
        Survey {
            channel,
            feeds_left: usize::MAX,
            feed: None,
            sent_through: u64::MAX,
            delivered: 0,
            gaps: 0,
        }
    }

    /// The feed that is being looked at.
    pub(super) fn feed(&self) -> Option<u32> {
        self.feed.as_ref().map(|feed| feed.id)
    }

    /// Whether there may be a feed after this one.
    pub(super) fn has_feeds_left(&self) -> bool {
        self.feeds_left > 0
    }

    /// Begins with the next one of the channel's feeds. Returns its id.
    pub(super) fn next_feed(&mut self, feeds: &[u32]) -> Option<u32> {
        self.feeds_left = self.feeds_left.min(feeds.len()).checked_sub(1)?;
        let id = feeds[self.feeds_left];
        self.feed = Some(InFeed {
            id,
            left: usize::MAX,
            floor: None,
        });
        Some(id)
    }

    /// Takes what a feed has not reported.
    pub(super) fn take_unreported(&mut self, feed: &mut Feed) {
        let mut channels = feed.channels.iter();
        let index = channels.position(|channel| *channel == self.channel);
        let index = index.expect("the channel's feeds have the channel");
        let unreported = &mut feed.unreported;
        self.delivered += std::mem::take(&mut unreported.delivered[index]);
        self.gaps += std::mem::take(&mut unreported.gaps);
        self.sent_through = self.sent_through.min(feed.sent_through());
    }

    /// Returns the next client of the feed. When there is none left, the feed learns what
    /// its clients have seen.
    pub(super) fn next_client(&mut self, feed: &mut Feed) -> Option<StreamKey> {
        let in_feed = self.feed.as_mut()?;
        // Clients may have left meanwhile.
        match in_feed.left.min(feed.behind.keys.len()).checked_sub(1) {
            Some(left) => {
                in_feed.left = left;
                Some(feed.behind.keys[left])
            }
            None => {
                feed.behind.set_floor(in_feed.floor);
                self.feed = None;
                None
            }
        }
    }

    /// The feed is gone.
    pub(super) fn leave_feed(&mut self) {
        self.feed = None;
    }

    /// A client of a feed has seen this, and was sent this.
    pub(super) fn lower(&mut self, id: u32, seen: u64, sent: u64) {
        self.sent_through = self.sent_through.min(sent);
        if let Some(feed) = self.feed.as_mut().filter(|feed| feed.id == id) {
            feed.floor = Some(feed.floor.map_or(seen, |floor| floor.min(seen)));
        }
    }

    /// Returns the report. `is_there`: whether the channel still has clients here.
    pub(super) fn report(&self, is_there: bool) -> Report {
        Report {
            delivered: self.delivered,
            gaps: self.gaps,
            sent_through: is_there.then_some(self.sent_through),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::{Form, Source};

    const CHANNEL: ChannelKey = ChannelKey {
        slot: 3,
        generation: 1,
    };

    fn feed(seen: &[u64]) -> Feed {
        let source = Source {
            channels: &[CHANNEL],
            form: Form::Plain,
        };
        let mut feed = Feed::new(source, Arc::default(), 100);
        for (key, seen) in (0..).zip(seen) {
            feed.push_behind(StreamKey::of(key));
            feed.behind.lower_floor(*seen);
        }
        feed
    }

    #[test]
    fn clients_that_come_or_move_meanwhile_are_not_passed_over() {
        let mut feed = feed(&[5, 6, 7, 8]);
        let mut survey = Survey::new(CHANNEL);
        assert_eq!(survey.next_feed(&[9]), Some(9));
        feed.unreported.delivered[0] = 2;
        survey.take_unreported(&mut feed);
        assert_eq!(survey.next_client(&mut feed), Some(StreamKey::of(3)));
        survey.lower(9, 8, 8);
        // The last client fills the hole of the first, and is looked at again.
        feed.remove_behind(0);
        feed.push_behind(StreamKey::of(4));
        survey.lower(9, 2, 1);
        let mut rest = Vec::new();
        while let Some(key) = survey.next_client(&mut feed) {
            rest.push(key);
        }
        assert_eq!(rest, [2, 1, 3].map(StreamKey::of));
        assert_eq!((survey.feed(), survey.next_feed(&[9])), (None, None));
        let report = survey.report(true);
        assert_eq!((report.delivered, report.sent_through), (2, Some(1)));
        // A client that has seen 2 has missed nothing before more than that is gone.
        feed.behind.evicted_through = 2;
        assert!(!feed.behind.may_have_missed());
        feed.behind.evicted_through = 3;
        assert!(feed.behind.may_have_missed());
    }

    #[test]
    fn feeds_that_leave_meanwhile_are_no_part_of_the_report() {
        let mut survey = Survey::new(CHANNEL);
        assert_eq!(survey.next_feed(&[7, 8, 9]), Some(9));
        survey.leave_feed();
        assert_eq!(survey.next_feed(&[7, 8]), Some(8));
        assert_eq!(survey.next_feed(&[]), None);
        assert_eq!(survey.report(false).sent_through, None);
    }
}
