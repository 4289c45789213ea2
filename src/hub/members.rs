//! The clients of one channel: found by slot, by id, or one after another.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use super::audience::{Audience, Condition, meets, texts_of};
use super::client::{ClientId, Member};
use super::looks::{LOOKS_MAX, SLOTS_MAX, looked_at};

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Members {
    slots: Slab<Member>,
    /// One for each field of the metadata that is indexed.
    indexes: Vec<Index>,
    /// Slots by the hash of their member's id: five bytes a client, where a
    /// map with the ids as keys would keep each of them twice.
    by_id: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// The memory of members that have left.
pub(crate) type Freed = (Slab<Member>, HashTable<u32>);

/// The members that have each value in one field of the metadata.
struct Index {
    field: Box<str>,
    slots: HashMap<String, BTreeSet<u32>>,
}

impl Members {
    /// Returns an empty list. `fields` are those of the metadata that are indexed.
    pub(crate) fn new(fields: &[Box<str>]) -> Members {
        let indexes = fields.iter().map(|field| Index {
            field: field.clone(),
            slots: HashMap::new(),
        });
        Members {
            indexes: indexes.collect(),
            ..Members::default()
        }
    }

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
        for index in &mut self.indexes {
            index.add(slot, &self.slots[slot as usize]);
        }
        slot
    }

    /// Visits the members that are of the audience, always in the same order, and
    /// looks at [`LOOKS_MAX`] members at most. Begins at `from`, which is 0 or what
    /// an earlier visit returned. Returns where to continue.
    pub(crate) fn visit(
        &self,
        audience: &Audience,
        from: u32,
        mut visit: impl FnMut(&Member),
    ) -> Option<u32> {
        let to = from.saturating_add(SLOTS_MAX);
        let conditions = match audience {
            Audience::Clients { ids, .. } => {
                let ids = ids.get(from as usize..).unwrap_or_default();
                let some = &ids[..ids.len().min(LOOKS_MAX)];
                looked_at(some.len());
                let found = some.iter().filter_map(|id| self.get(self.find(id)?));
                found.for_each(visit);
                return (some.len() < ids.len()).then_some(to);
            }
            Audience::Except(_) => {
                let members = self.range(from, to);
                let admitted = members.filter(|member| audience.admits(&member.id, None));
                admitted.for_each(visit);
                return (to < self.slots_end()).then_some(to);
            }
            Audience::Where(conditions) => conditions,
        };
        let mut visit_if_met = |member: &Member| {
            let metadata = member.metadata().map(|metadata| &**metadata);
            if meets(conditions, metadata) {
                visit(member);
            }
        };
        match self.most_selective(conditions) {
            Some(slots) => {
                let mut slots = slots.into_iter().flat_map(|slots| slots.range(from..));
                let some = slots.by_ref().take(LOOKS_MAX).copied();
                some.for_each(|slot| self.range(slot, slot + 1).for_each(&mut visit_if_met));
                slots.next().copied()
            }
            None => {
                self.range(from, to).for_each(visit_if_met);
                (to < self.slots_end()).then_some(to)
            }
        }
    }

    /// Returns the number of members that a search for those of the audience looks at:
    /// those that meet the most selective condition that is indexed, or all if none is.
    pub(crate) fn looks(&self, audience: &Audience) -> usize {
        match audience {
            Audience::Clients { ids, .. } => ids.len(),
            Audience::Except(_) => self.slots_end() as usize,
            Audience::Where(conditions) => match self.most_selective(conditions) {
                Some(slots) => slots.map_or(0, BTreeSet::len),
                None => self.slots_end() as usize,
            },
        }
    }

    /// Returns the number of members that are of the audience, if that needs no search.
    pub(crate) fn count(&self, audience: &Audience) -> Option<usize> {
        match audience {
            Audience::Clients { .. } => None,
            Audience::Except(ids) if ids.len() <= LOOKS_MAX => {
                let found = ids.iter().filter(|id| self.find(id).is_some()).count();
                Some(self.len() - found)
            }
            Audience::Except(_) => None,
            Audience::Where(conditions) => match (&**conditions, self.most_selective(conditions)) {
                ([_], Some(slots)) => Some(slots.map_or(0, BTreeSet::len)),
                _ => None,
            },
        }
    }

    /// Returns the members that meet the one of `conditions` which the fewest
    /// meet, if one of them is indexed. No index helps to find the members that
    /// lack a value.
    fn most_selective(&self, conditions: &[Condition]) -> Option<Option<&BTreeSet<u32>>> {
        let positive = conditions.iter().filter(|c| !c.is_negated());
        let indexed = positive.filter_map(|condition| {
            let mut indexes = self.indexes.iter();
            let index = indexes.find(|i| *i.field == *condition.field())?;
            Some(index.slots.get(condition.value()))
        });
        indexed.min_by_key(|slots| slots.map_or(0, BTreeSet::len))
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
        let member = self.slots.try_remove(slot as usize)?;
        for index in &mut self.indexes {
            index.remove(slot, &member);
        }
        Some(member)
    }

    /// Returns the memory that many members needed, when none is left. The caller drops it
    /// when the lock is open.
    pub(crate) fn free(&mut self) -> Freed {
        debug_assert!(self.is_empty(), "members are there");
        (
            std::mem::take(&mut self.slots),
            std::mem::take(&mut self.by_id),
        )
    }

    /// The members whose slots are in `from..to`.
    pub(crate) fn range(&self, from: u32, to: u32) -> impl Iterator<Item = &Member> {
        (from..to.min(self.slots_end())).filter_map(|slot| {
            looked_at(1);
            self.get(slot)
        })
    }

    /// One more than the highest slot that may be in use.
    pub(crate) fn slots_end(&self) -> u32 {
        u32::try_from(self.slots.capacity()).unwrap_or(u32::MAX)
    }
}

impl Index {
    fn add(&mut self, slot: u32, member: &Member) {
        for text in self.values(member) {
            self.slots.entry(text).or_default().insert(slot);
        }
    }

    fn remove(&mut self, slot: u32, member: &Member) {
        for text in self.values(member) {
            let Entry::Occupied(mut slots) = self.slots.entry(text) else {
                continue;
            };
            slots.get_mut().remove(&slot);
            if slots.get().is_empty() {
                slots.remove();
            }
        }
    }

    /// The texts by which a condition on the field would find the member.
    fn values(&self, member: &Member) -> Vec<String> {
        let value = member.metadata().and_then(|m| m.get(&*self.field));
        let mut texts = Vec::new();
        if let Some(value) = value {
            texts_of(value, &mut texts);
        }
        texts.sort_unstable();
        texts.dedup();
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::audience::Choice;
    use crate::hub::client::{ConnectionId, Extra};
    use serde_json::json;

    fn member(id: &str) -> Member {
        let connection = ConnectionId {
            token: 1,
            reactor: 0,
        };
        let address = "127.0.0.1:9".parse().unwrap();
        Member::new(ClientId::new(id).unwrap(), connection, address, 0, None)
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
    #[test]
    fn an_index_finds_the_same_members_as_a_full_search() {
        let mut indexed = Members::new(&["user".into(), "role".into()]);
        let mut plain = Members::default();
        for n in 0..60 {
            let metadata = json!({"user": n % 7, "role": ["a", format!("r{}", n % 3)]});
            for members in [&mut indexed, &mut plain] {
                let mut member = member(&n.to_string());
                member.extra = Some(Box::new(Extra {
                    metadata: metadata.clone().into(),
                    on_disconnect: None,
                }));
                members.insert(member);
            }
        }
        for gone in (0..60).step_by(4) {
            indexed.remove(gone);
            plain.remove(gone);
        }
        let found = |members: &Members, audience: &Audience| {
            let mut found = Vec::new();
            let next = members.visit(audience, 0, |member| found.push(member.id.to_string()));
            assert_eq!(next, None, "a small search has one step");
            found
        };
        for (user, role) in [("3", "r1"), ("6", "a"), ("9", "a"), ("0", "r9")] {
            let conditions = [Condition::new("user", user), Condition::new("role", role)];
            let audience = Audience::Where(conditions.into());
            let in_index = found(&indexed, &audience);
            assert_eq!(in_index, found(&plain, &audience), "{audience:?}");
            assert!(plain.looks(&audience) >= 45);
            assert!((in_index.len()..=7).contains(&indexed.looks(&audience)));
        }
        let audience = Audience::Where([Condition::new("user", "3")].into());
        assert!(!found(&indexed, &audience).is_empty());
        assert_eq!(
            indexed.count(&audience),
            Some(found(&indexed, &audience).len())
        );
        for slot in 0..60 {
            indexed.remove(slot);
        }
        assert!(found(&indexed, &audience).is_empty());
    }

    #[test]
    fn a_search_looks_at_a_bounded_number_of_members_and_says_where_to_continue() {
        let mut members = Members::new(&["even".into()]);
        let ids: Vec<ClientId> = (0..3_000)
            .map(|n| ClientId::lookup(&n.to_string()))
            .collect();
        for (n, id) in ids.iter().enumerate() {
            let mut member = member(&id.to_string());
            member.extra = Some(Box::new(Extra {
                metadata: json!({"even": n % 2 == 0, "n": n}).into(),
                on_disconnect: None,
            }));
            members.insert(member);
        }
        let conditions = |field: &str, value: &str| [Condition::new(field, value)].into();
        for (audience, expected, count) in [
            (
                Audience::Where(conditions("even", "true")),
                1_500,
                Some(1_500),
            ),
            (Audience::Where(conditions("n", "2999")), 1, None),
            (Audience::except(vec![ids[7].clone()]), 2_999, Some(2_999)),
            (Audience::clients(ids.clone(), Choice::Named), 3_000, None),
        ] {
            let (mut found, mut steps, mut next) = (0, 0, Some(0));
            while let Some(from) = next {
                let before = found;
                next = members.visit(&audience, from, |_| found += 1);
                assert!(found - before <= LOOKS_MAX);
                steps += 1;
            }
            assert_eq!(found, expected, "{audience:?}");
            assert!(steps >= members.looks(&audience) / LOOKS_MAX);
            assert_eq!(members.count(&audience), count);
        }
    }
}
