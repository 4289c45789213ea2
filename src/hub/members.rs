//! The clients of one channel: found by slot, by id, or one after another.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use super::client::{ClientId, Member};

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Members {
    slots: Slab<Member>,
    /// Slots by the hash of their member's id: five bytes a client, where a
    /// map with the ids as keys would keep each of them twice.
    by_id: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Members {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Puts a member in a slot. Its id must not be there yet.
    pub(crate) fn insert(&mut self, member: Member) -> u32 {
        debug_assert!(self.find(&member.id).is_none(), "ids are unique");
        let hash = self.hasher.hash_one(&member.id);
        let slot = u32::try_from(self.slots.insert(member)).expect("fewer clients than 2^32");
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_id.insert_unique(hash, slot, |&slot| {
            hasher.hash_one(&slots[slot as usize].id)
        });
        slot
    }

    pub(crate) fn find(&self, id: &ClientId) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        let is_it = |&slot: &u32| self.slots[slot as usize].id == *id;
        self.by_id.find(hash, is_it).copied()
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Member> {
        self.slots.get(slot as usize)
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Member> {
        self.slots.get_mut(slot as usize)
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Member> {
        let hash = self.hasher.hash_one(&self.get(slot)?.id);
        if let Ok(found) = self.by_id.find_entry(hash, |&other| other == slot) {
            found.remove();
        }
        let member = self.slots.try_remove(slot as usize);
        if self.slots.is_empty() {
            *self = Members::default();
        }
        member
    }

    /// Everybody, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Member)> {
        self.slots
            .iter()
            .map(|(slot, member)| (u32::try_from(slot).expect("fewer than 2^32"), member))
    }

    /// Those whose slots are in `from..to`.
    pub(crate) fn range(&self, from: u32, to: u32) -> impl Iterator<Item = (u32, &Member)> {
        (from..to.min(self.slots_end())).filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    /// One more than the highest slot that may be in use.
    pub(crate) fn slots_end(&self) -> u32 {
        u32::try_from(self.slots.capacity()).unwrap_or(u32::MAX)
    }

    /// Takes everybody out.
    pub(crate) fn take(&mut self) -> Vec<Member> {
        let all = std::mem::take(self);
        all.slots.into_iter().map(|(_, member)| member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::client::Place;

    fn member(id: &str) -> Member {
        let place = Place {
            token: 1,
            reactor: 0,
        };
        let address = "127.0.0.1:9".parse().unwrap();
        Member::new(ClientId::new(id).unwrap(), place, address, 0, None)
    }

    #[test]
    fn members_are_found_by_id_until_they_leave() {
        let mut members = Members::default();
        let slots: Vec<u32> = (0..100)
            .map(|n| members.insert(member(&n.to_string())))
            .collect();
        for (n, slot) in slots.iter().enumerate() {
            assert_eq!(members.find(&ClientId::lookup(&n.to_string())), Some(*slot));
        }
        for slot in &slots[..50] {
            assert!(members.remove(*slot).is_some());
            assert!(members.remove(*slot).is_none());
        }
        assert_eq!(members.len(), 50);
        assert_eq!(members.find(&ClientId::lookup("7")), None);
        assert_eq!(members.find(&ClientId::lookup("70")), Some(slots[70]));
        assert_eq!(members.range(0, u32::MAX).count(), 50);
    }
}
