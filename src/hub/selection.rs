//! The clients of a channel that meet conditions: counted, listed, disconnected.
//!
//! The lock is held for a bounded number of members at a time.

use super::audience::{Condition, meets};
use super::channel::Channel;
use super::client::{ClientId, ClientInfo, Member};
use super::looks::SLOTS_MAX;

impl Channel {
    /// Returns the number of clients whose metadata meet all of `conditions`. The
    /// cost grows with the number of clients of the channel.
    ///
    /// ```
    /// use pushwheel::{ChannelManager, Condition};
    ///
    /// let news = ChannelManager::new().get_or_create("news")?;
    /// let is_last_tab = news.count_where(&[Condition::new("user", "7")]) == 0;
    /// # Ok::<(), pushwheel::ChannelError>(())
    /// ```
    #[must_use]
    pub fn count_where(&self, conditions: &[Condition]) -> usize {
        let mut count = 0;
        self.for_each_where(conditions, |_| count += 1);
        count
    }

    /// Returns the clients whose metadata meet all of `conditions`. The cost grows
    /// with the number of clients of the channel.
    #[must_use]
    pub fn clients_where(&self, conditions: &[Condition]) -> Vec<ClientInfo> {
        let ids = self.ids_where(conditions);
        ids.iter().filter_map(|id| self.client(id)).collect()
    }

    /// Disconnects the clients whose metadata meet all of `conditions`, and returns
    /// their number. The cost grows with the number of clients of the channel.
    ///
    /// A client that subscribes while this runs may be missed: revoke its
    /// credentials first.
    pub fn disconnect_where(&self, conditions: &[Condition]) -> usize {
        let ids = self.ids_where(conditions);
        ids.iter().filter(|id| self.disconnect(*id)).count()
    }

    fn ids_where(&self, conditions: &[Condition]) -> Vec<ClientId> {
        let mut ids = Vec::new();
        self.for_each_where(conditions, |member| ids.push(member.id.clone()));
        ids
    }

    /// Calls `visit` for each member that meets the conditions, under the lock.
    fn for_each_where(&self, conditions: &[Condition], mut visit: impl FnMut(&Member)) {
        let mut from = 0;
        while let Some(end) = self.hub().view(self.key(), |channel| {
            let members = &channel.members;
            for member in members.range(from, from.saturating_add(SLOTS_MAX)) {
                if meets(conditions, member.metadata().map(|metadata| &**metadata)) {
                    visit(member);
                }
            }
            members.slots_end()
        }) {
            self.hub().give_way();
            from = from.saturating_add(SLOTS_MAX);
            if from >= end {
                break;
            }
        }
    }
}
