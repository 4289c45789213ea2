//! The feeds of a reactor, by id and by channel.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use slab::Slab;

use super::feed::Feed;
use crate::hub::options::ChannelOptions;
use crate::hub::{ChannelKey, Source};

/// What the reactor notes of a channel.
#[derive(Default)]
pub(super) struct Local {
    /// The feeds that have it.
    pub(super) feeds: Vec<u32>,
    /// The number of clients of these that are behind.
    pub(super) behind: usize,
    /// How much has happened since the last report.
    pub(super) unreported: usize,
    /// Whether it is on the list of those to report.
    pub(super) is_listed: bool,
}

/// See the [module](self). The keys of the maps are the hub's own numbers, which no
/// client chooses, so a hash that is quick is good enough.
pub(super) struct Feeds {
    pub(super) slots: Slab<Feed>,
    /// The feeds by the hash of what they read.
    by_source: HashTable<u32>,
    hasher: DefaultHashBuilder,
    pub(super) locals: HashMap<ChannelKey, Local>,
}

impl Feeds {
    pub(super) fn new() -> Feeds {
        Feeds {
            slots: Slab::new(),
            by_source: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            locals: HashMap::new(),
        }
    }

    pub(super) fn get(&self, id: u32) -> &Feed {
        &self.slots[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: u32) -> &mut Feed {
        &mut self.slots[id as usize]
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.slots.contains(id as usize)
    }

    /// The feed of these channels, made if there is none; everything up to
    /// `through` counts as gathered then.
    pub(super) fn find_or_insert(
        &mut self,
        source: Source<'_>,
        options: &Arc<ChannelOptions>,
        through: u64,
    ) -> u32 {
        let (slots, hasher) = (&mut self.slots, &self.hasher);
        let hash = hasher.hash_one(source);
        let is_it = |id: &u32| slots[*id as usize].source() == source;
        if let Some(id) = self.by_source.find(hash, is_it) {
            return *id;
        }
        let feed = Feed::new(source, options.clone(), through);
        let id = u32::try_from(slots.insert(feed)).expect("fewer feeds than 2^32");
        let rehash = |id: &u32| hasher.hash_one(slots[*id as usize].source());
        self.by_source.insert_unique(hash, id, rehash);
        let channels = source.channels;
        for key in channels {
            self.locals.entry(*key).or_default().feeds.push(id);
        }
        id
    }

    pub(super) fn remove(&mut self, id: u32) -> Feed {
        let feed = self.slots.remove(id as usize);
        let hash = self.hasher.hash_one(feed.source());
        if let Ok(found) = self.by_source.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        for key in &feed.channels {
            if let Some(local) = self.locals.get_mut(key) {
                local.feeds.retain(|other| *other != id);
                if local.feeds.is_empty() {
                    self.locals.remove(key);
                }
            }
        }
        feed
    }

    /// Notes that one client more, or less, of a feed is behind.
    pub(super) fn count_behind(&mut self, id: u32, is_more: bool) {
        let feed = &self.slots[id as usize];
        for key in &feed.channels {
            if let Some(local) = self.locals.get_mut(key) {
                local.behind = if is_more {
                    local.behind + 1
                } else {
                    local.behind - 1
                };
            }
        }
    }

    /// Puts the channels of a feed on the list of those to report.
    pub(super) fn list(&mut self, id: u32, to_report: &mut VecDeque<ChannelKey>) {
        for key in &self.slots[id as usize].channels {
            list(&mut self.locals, key, to_report);
        }
    }

    /// Has the channels of a feed reported without waiting for more to report.
    pub(super) fn hasten(&mut self, id: u32, to_report: &mut VecDeque<ChannelKey>) {
        self.list(id, to_report);
        for key in &self.slots[id as usize].channels {
            if let Some(local) = self.locals.get_mut(key) {
                local.unreported += local.feeds.len() + local.behind;
            }
        }
    }

    /// Puts channels on the list of those to report, as far as feeds have them.
    pub(super) fn list_channels(
        &mut self,
        keys: &[ChannelKey],
        to_report: &mut VecDeque<ChannelKey>,
    ) {
        for key in keys {
            list(&mut self.locals, key, to_report);
        }
    }
}

fn list(
    locals: &mut HashMap<ChannelKey, Local>,
    key: &ChannelKey,
    to_report: &mut VecDeque<ChannelKey>,
) {
    if let Some(local) = locals.get_mut(key) {
        local.unreported += 1;
        if !std::mem::replace(&mut local.is_listed, true) {
            to_report.push_back(*key);
        }
    }
}
