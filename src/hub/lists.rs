//! Lists of channels in the order in which something happened to them, so that the
//! oldest of a list is found without a search.
//!
//! A channel is in one list at most. The lists are doubly linked by slot; each
//! operation costs the same however many channels there are.

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    list: Option<u8>,
    before: u32,
    after: u32,
}

const UNLINKED: Link = Link {
    list: None,
    before: NONE,
    after: NONE,
};

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
    len: usize,
}

/// `N` lists, which are named by their numbers.
#[derive(Debug)]
pub(super) struct Lists<const N: usize> {
    /// One for each slot.
    links: Vec<Link>,
    ends: [Ends; N],
}

impl<const N: usize> Lists<N> {
    pub(super) fn new() -> Self {
        let empty = Ends {
            first: NONE,
            last: NONE,
            len: 0,
        };
        Lists {
            links: Vec::new(),
            ends: [empty; N],
        }
    }

    /// Puts a channel at the end of a list, and takes it out of the list that it
    /// is in.
    #[inline]
    pub(super) fn push(&mut self, list: u8, slot: u32) {
        if self.ends[usize::from(list)].last != slot {
            self.move_to_end(list, slot);
        }
    }

    fn move_to_end(&mut self, list: u8, slot: u32) {
        self.remove(slot);
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, UNLINKED);
        }
        let ends = &mut self.ends[usize::from(list)];
        let before = std::mem::replace(&mut ends.last, slot);
        ends.len += 1;
        match before {
            NONE => ends.first = slot,
            before => self.links[before as usize].after = slot,
        }
        self.links[at] = Link {
            list: Some(list),
            before,
            after: NONE,
        };
    }

    /// Takes a channel out of its list, if it is in one.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else {
            return;
        };
        let Link {
            list: Some(list),
            before,
            after,
        } = std::mem::replace(link, UNLINKED)
        else {
            return;
        };
        let ends = &mut self.ends[usize::from(list)];
        ends.len -= 1;
        match before {
            NONE => ends.first = after,
            before => self.links[before as usize].after = after,
        }
        match after {
            NONE => ends.last = before,
            after => self.links[after as usize].before = before,
        }
    }

    /// The list that a channel is in.
    pub(super) fn of(&self, slot: u32) -> Option<u8> {
        self.links.get(slot as usize)?.list
    }

    pub(super) fn len(&self, list: u8) -> usize {
        self.ends[usize::from(list)].len
    }

    /// The channels of a list, the oldest first.
    pub(super) fn oldest_first(&self, list: u8) -> impl Iterator<Item = u32> {
        let first = found(self.ends[usize::from(list)].first);
        std::iter::successors(first, |slot| found(self.links[*slot as usize].after))
    }

    /// The channels of a list, the newest first.
    pub(super) fn newest_first(&self, list: u8) -> impl Iterator<Item = u32> {
        std::iter::successors(self.last(list), |slot| {
            found(self.links[*slot as usize].before)
        })
    }

    fn last(&self, list: u8) -> Option<u32> {
        found(self.ends[usize::from(list)].last)
    }
}

fn found(slot: u32) -> Option<u32> {
    (slot != NONE).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINISHED: u8 = 1;
    const KEPT: u8 = 2;

    fn slots(lists: &Lists<3>, list: u8) -> Vec<u32> {
        let slots: Vec<u32> = lists.oldest_first(list).collect();
        let mut backwards: Vec<u32> = lists.newest_first(list).collect();
        backwards.reverse();
        assert_eq!(slots, backwards);
        assert_eq!(lists.len(list), slots.len());
        slots
    }

    #[test]
    fn a_channel_is_at_the_end_of_the_list_that_it_was_pushed_to_last() {
        let mut lists = Lists::new();
        for slot in [3, 1, 4] {
            lists.push(KEPT, slot);
        }
        assert_eq!(slots(&lists, KEPT), [3, 1, 4]);
        lists.push(KEPT, 1);
        lists.push(KEPT, 1);
        assert_eq!(slots(&lists, KEPT), [3, 4, 1]);
        lists.push(FINISHED, 3);
        assert_eq!(slots(&lists, KEPT), [4, 1]);
        assert_eq!(slots(&lists, FINISHED), [3]);
        assert_eq!((lists.of(3), lists.of(0)), (Some(FINISHED), None));
    }

    #[test]
    fn lists_are_as_a_vector_would_be() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut lists, mut model) = (Lists::<3>::new(), [const { Vec::new() }; 3]);
        let all = [0, FINISHED, KEPT];
        for _ in 0..10_000 {
            let slot = rng.u32(0..20);
            for list in &mut model {
                list.retain(|other| *other != slot);
            }
            match rng.choice(all) {
                Some(list) if rng.u32(0..4) > 0 => {
                    lists.push(list, slot);
                    model[usize::from(list)].push(slot);
                }
                _ => lists.remove(slot),
            }
            for list in all {
                assert_eq!(slots(&lists, list), model[usize::from(list)]);
            }
        }
    }
}
