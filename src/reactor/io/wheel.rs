//! When which timer is due: a hierarchical timer wheel that owns no timers.
//!
//! The links of a timer live inside the thing that it times, so setting, moving
//! and cancelling one allocate nothing and take a constant number of steps, and
//! a timer costs 12 bytes. The wheel has no clock: ticks are passed in, and the
//! caller decides how long one is.
//!
//! Four levels of 64 slots each; a slot of level L is 64^L ticks wide and holds
//! a list of timers, and a bitmap a level says which slots hold any. A timer
//! hangs on the lowest level whose 64 slots, counted from now, reach its due:
//!
//! ```text
//!  level 0   64 slots of 1 tick          now ..= now + 63
//!  level 1   64 slots of 64 ticks        up to about 2^12 ticks ahead
//!  level 2   64 slots of 4,096 ticks     up to about 2^18
//!  level 3   64 slots of 262,144 ticks   up to about 2^24, and all later ones in its last slot
//! ```
//!
//! When time comes to a slot above level 0, its timers are hung again, lower
//! down or, if they are still further away than 2^24, in the last slot again.
//!
//! The invariant: no timer that is set is due before the wheel's own now. So 32
//! bits of its due are enough, a slot's place relative to now says which turn of
//! the wheel it means, and the bitmaps alone say when something happens next.

/// The links of one timer, kept inside whatever it times. 12 bytes.
///
/// It belongs to the wheel: only the wheel changes it, and a timer is cancelled before
/// the thing with its link is dropped.
#[derive(Debug)]
pub struct Link {
    /// The key of the timer before this one, or [`KEYS_END`] plus the slot that
    /// this one is the first of, or [`NONE`] if it is not set.
    prev: u32,
    /// The key of the timer after this one, or [`NONE`].
    next: u32,
    /// The low 32 bits of the due tick.
    due: u32,
}

impl Link {
    /// Whether the timer is set: it has neither been cancelled nor popped.
    pub fn is_set(&self) -> bool {
        self.prev != NONE
    }
}

impl Default for Link {
    /// A timer that is not set.
    fn default() -> Link {
        Link {
            prev: NONE,
            next: NONE,
            due: 0,
        }
    }
}

/// Where the links are: a slab of things that have a timer each.
pub trait Links {
    /// The link of the thing with this key. The wheel asks for the key that it
    /// was called with, and for keys whose link is set.
    fn link(&mut self, key: u32) -> &mut Link;
}

/// The wheel: which timers are set, in slots by when they are due.
///
/// Every call of one wheel must be given the same [`Links`]. Keys are below
/// 2^32 − 257, ticks below 2^63.
#[derive(Debug)]
pub struct Wheel {
    /// The tick popped to: everything due before it is gone.
    now: u64,
    len: usize,
    /// One bit a slot: whether it holds a timer.
    occupied: [u64; LEVELS as usize],
    /// The first timer of each slot, level by level, or [`NONE`].
    heads: [u32; (LEVELS * SLOTS) as usize],
}

impl Wheel {
    /// An empty wheel that begins at the tick `now`.
    pub fn new(now: u64) -> Wheel {
        Wheel {
            now,
            len: 0,
            occupied: [0; LEVELS as usize],
            heads: [NONE; (LEVELS * SLOTS) as usize],
        }
    }

    /// Sets the timer of `key`, or moves it if it is set. O(1).
    ///
    /// A `due` that is not after now fires at the next [`pop`](Wheel::pop), also
    /// if that belongs to the same round of pops: a caller that handles a popped timer
    /// by setting it to now again does not end. A `due` more than 2^32 − 1
    /// ticks (49 days of milliseconds) after the tick last popped to is cut to that.
    pub fn set(&mut self, links: &mut impl Links, key: u32, due: u64) {
        debug_assert!(key < KEYS_END, "a key that stands for a slot");
        self.cancel(links, key);
        let due = due.clamp(self.now, self.now + u64::from(u32::MAX));
        self.hang(links, key, due);
        self.len += 1;
    }

    /// Cancels the timer of `key`; nothing if it is not set. O(1).
    pub fn cancel(&mut self, links: &mut impl Links, key: u32) {
        let link = links.link(key);
        if !link.is_set() {
            return;
        }
        let Link { prev, next, .. } = std::mem::take(link);
        if next != NONE {
            links.link(next).prev = prev;
        }
        match prev.checked_sub(KEYS_END) {
            None => links.link(prev).next = next,
            Some(slot) => {
                self.heads[slot as usize] = next;
                if next == NONE {
                    self.vacate(slot);
                }
            }
        }
        self.len -= 1;
    }

    /// The next timer that is due at or before `now`, which is then no longer
    /// set; `None` once there is none. Earlier dues come first; within one tick
    /// the order is not defined.
    ///
    /// The wheel advances: to the popped timer's due, or to `now` if there is
    /// none; never back. Ticks in which nothing happens are skipped, however
    /// many, with one look at each level. A timer is hung again at most three
    /// times, and once more for every 2^24 ticks that it was set ahead.
    pub fn pop(&mut self, links: &mut impl Links, now: u64) -> Option<u32> {
        let now = now.max(self.now);
        while let Some((tick, slot)) = self.next().filter(|&(tick, _)| tick <= now) {
            self.now = tick;
            if slot < SLOTS {
                let key = self.heads[slot as usize];
                self.cancel(links, key);
                return Some(key);
            }
            self.cascade(links, slot);
        }
        self.now = now;
        None
    }

    /// Returns a tick at which [`pop`](Wheel::pop) has something to do, if only to
    /// hang timers lower; `None` if no timer is set. Never later than the
    /// earliest timer.
    pub fn next_due(&self) -> Option<u64> {
        self.next().map(|(tick, _)| tick)
    }

    /// How many timers are set.
    #[cfg(any(test, feature = "internals"))]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first tick at which an occupied slot begins, and that slot.
    fn next(&self) -> Option<(u64, u32)> {
        let first_of = |level: u32| {
            let occupied = self.occupied[level as usize];
            let here = self.now >> (level * SLOT_BITS);
            // Turned so that bit 0 is the slot that now is in, the lowest set bit
            // says how many slots ahead the next occupied one is.
            let turned = occupied.rotate_right(low_bits(here) % SLOTS);
            let number = here + u64::from(turned.trailing_zeros());
            (occupied != 0).then(|| (number << (level * SLOT_BITS), slot_of(level, number)))
        };
        (0..LEVELS)
            .filter_map(first_of)
            .min_by_key(|&(tick, _)| tick)
    }

    /// Hangs a timer that is not set, due at the wheel's now or later.
    fn hang(&mut self, links: &mut impl Links, key: u32, due: u64) {
        let slot = self.slot_for(due);
        self.occupied[(slot / SLOTS) as usize] |= 1 << (slot % SLOTS);
        let next = std::mem::replace(&mut self.heads[slot as usize], key);
        if next != NONE {
            links.link(next).prev = key;
        }
        *links.link(key) = Link {
            prev: KEYS_END + slot,
            next,
            due: low_bits(due),
        };
    }

    /// The slot for a timer: on the lowest level that reaches so far ahead, or
    /// the last slot of the highest.
    fn slot_for(&self, due: u64) -> u32 {
        let last = u64::from(SLOTS - 1);
        let reached = |level: u32| {
            let (here, number) = (self.now >> (level * SLOT_BITS), due >> (level * SLOT_BITS));
            (number - here <= last).then(|| slot_of(level, number))
        };
        let furthest = || slot_of(LEVELS - 1, (self.now >> ((LEVELS - 1) * SLOT_BITS)) + last);
        (0..LEVELS).find_map(reached).unwrap_or_else(furthest)
    }

    /// Hangs the timers of a slot again, at whose first tick the wheel now is.
    fn cascade(&mut self, links: &mut impl Links, slot: u32) {
        self.vacate(slot);
        let mut key = std::mem::replace(&mut self.heads[slot as usize], NONE);
        while key != NONE {
            let &mut Link { next, due, .. } = links.link(key);
            let ahead = due.wrapping_sub(low_bits(self.now));
            self.hang(links, key, self.now + u64::from(ahead));
            key = next;
        }
    }

    fn vacate(&mut self, slot: u32) {
        self.occupied[(slot / SLOTS) as usize] &= !(1 << (slot % SLOTS));
    }
}

/// Where a level's slot with this number, counted from tick 0, stands in `heads`.
fn slot_of(level: u32, number: u64) -> u32 {
    level * SLOTS + low_bits(number) % SLOTS
}

#[expect(clippy::cast_possible_truncation, reason = "that is the point")]
fn low_bits(ticks: u64) -> u32 {
    ticks as u32
}

const LEVELS: u32 = 4;
const SLOT_BITS: u32 = 6;
/// As many as a bitmap has bits.
const SLOTS: u32 = 1 << SLOT_BITS;

/// No timer.
const NONE: u32 = u32::MAX;
/// Keys lie below this; it and what follows stand for slots in [`Link::prev`].
const KEYS_END: u32 = NONE - LEVELS * SLOTS;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Slab(Vec<Link>);

    impl Links for Slab {
        fn link(&mut self, key: u32) -> &mut Link {
            &mut self.0[key as usize]
        }
    }

    fn slab(timers: usize) -> Slab {
        Slab((0..timers).map(|_| Link::default()).collect())
    }

    fn popped(wheel: &mut Wheel, links: &mut Slab, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop(links, now)).collect()
    }

    #[test]
    fn a_link_is_twelve_bytes() {
        assert_eq!(size_of::<Link>(), 12);
    }

    #[test]
    fn timers_fire_in_order_of_their_due_and_only_then() {
        let (mut wheel, mut links) = (Wheel::new(1_000), slab(6));
        let dues = [1_064, 1_001, 1_063, 6_000, 300_000, 20_000_000];
        for (key, due) in (0..).zip(dues) {
            wheel.set(&mut links, key, due);
        }
        assert_eq!(wheel.len(), 6);
        assert_eq!(popped(&mut wheel, &mut links, 1_000), [0_u32; 0]);
        assert_eq!(popped(&mut wheel, &mut links, 1_062), [1]);
        assert_eq!(popped(&mut wheel, &mut links, 5_999), [2, 0]);
        assert_eq!(popped(&mut wheel, &mut links, 6_000), [3]);
        assert_eq!(popped(&mut wheel, &mut links, 19_999_999), [4]);
        assert_eq!(popped(&mut wheel, &mut links, 20_000_000), [5]);
        assert!(wheel.is_empty() && !links.link(5).is_set());
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn a_moved_timer_fires_once_and_a_cancelled_one_never() {
        let (mut wheel, mut links) = (Wheel::new(0), slab(4));
        for key in 0..4 {
            wheel.set(&mut links, key, 10);
        }
        wheel.set(&mut links, 1, 20);
        wheel.set(&mut links, 2, 5);
        wheel.cancel(&mut links, 3);
        wheel.cancel(&mut links, 3);
        assert_eq!(wheel.len(), 3);
        assert_eq!(popped(&mut wheel, &mut links, 100), [2, 0, 1]);
    }

    #[test]
    fn what_is_overdue_fires_at_the_next_pop() {
        let (mut wheel, mut links) = (Wheel::new(500), slab(2));
        wheel.set(&mut links, 0, 3);
        assert_eq!(wheel.next_due(), Some(500));
        assert_eq!(wheel.pop(&mut links, 499), Some(0));
        wheel.set(&mut links, 0, 500);
        assert_eq!(popped(&mut wheel, &mut links, 500), [0]);
    }

    #[test]
    fn a_due_beyond_32_bits_fires_at_the_limit() {
        let (mut wheel, mut links) = (Wheel::new(7), slab(1));
        wheel.set(&mut links, 0, u64::MAX);
        let limit = 7 + u64::from(u32::MAX);
        assert_eq!(wheel.pop(&mut links, limit - 1), None);
        assert_eq!(wheel.pop(&mut links, limit), Some(0));
    }

    #[test]
    fn a_lone_timer_is_reached_in_a_few_wakes() {
        for (ahead, wakes_max) in [(63, 1), (30_000, 3), (16_000_000, 4), (u32::MAX, 264)] {
            let (mut wheel, mut links) = (Wheel::new(12_345), slab(1));
            let due = 12_345 + u64::from(ahead);
            wheel.set(&mut links, 0, due);
            let mut wakes = 0;
            while let Some(tick) = wheel.next_due() {
                assert_eq!(wheel.pop(&mut links, tick).is_some(), tick == due);
                wakes += 1;
            }
            assert!(wakes <= wakes_max, "{wakes} wakes for {ahead} ticks ahead");
        }
    }

    /// The slow obvious twin: what is due when, in full, in a sorted list.
    #[derive(Debug, Default)]
    struct Twin {
        now: u64,
        set: std::collections::BTreeSet<(u64, u32)>,
    }

    impl Twin {
        fn cancel(&mut self, key: u32) {
            self.set.retain(|&(_, other)| other != key);
        }

        fn set(&mut self, key: u32, due: u64) {
            self.cancel(key);
            let due = due.max(self.now).min(self.now + u64::from(u32::MAX));
            self.set.insert((due, key));
        }

        fn earliest(&self) -> Option<u64> {
            self.set.first().map(|&(due, _)| due)
        }

        /// Checks a pop of the wheel, and does the same.
        fn popped(&mut self, key: Option<u32>, now: u64) {
            let expected = self.earliest().filter(|&due| due <= now.max(self.now));
            match (key, expected) {
                (None, None) => self.now = self.now.max(now),
                (Some(key), Some(due)) => {
                    assert!(self.set.remove(&(due, key)), "{key} popped, not due {due}");
                    self.now = due;
                }
                _ => panic!("{key:?} popped where one is due at {expected:?}"),
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Due so many ticks after now, or before.
        Set(u32, i64),
        Cancel(u32),
        /// At most so many pops at so many ticks after now, each followed by
        /// setting what came out again, if there is something to add.
        Pop(usize, u64, Option<i64>),
        /// Pops at the tick that the wheel says.
        Wake,
    }

    const KEYS: u32 = 12;

    fn ticks() -> impl Strategy<Value = i64> {
        prop_oneof![
            -70..70i64,
            0..5_000i64,
            0..300_000i64,
            0..1i64 << 25,
            0..1i64 << 34,
            // On and around where slots and levels begin.
            (0..34u32, -2..3i64).prop_map(|(bit, off)| (1 << bit) + off),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let jump = ticks().prop_map(i64::unsigned_abs);
        prop_oneof![
            4 => (0..KEYS, ticks()).prop_map(|(key, due)| Step::Set(key, due)),
            1 => (0..KEYS).prop_map(Step::Cancel),
            2 => (0..20usize, jump, prop::option::weighted(0.2, ticks()))
                .prop_map(|(pops, ticks, again)| Step::Pop(pops, ticks, again)),
            2 => Just(Step::Wake),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_wheel_does_as_its_twin(
            start in prop_oneof![0..100u64, (1u64 << 32) - 5_000..1u64 << 32, 0..1u64 << 40],
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let (mut wheel, mut links) = (Wheel::new(start), slab(KEYS as usize));
            let mut twin = Twin { now: start, ..Twin::default() };
            for step in steps {
                let (pops, now, again) = match step {
                    Step::Set(key, ticks) => {
                        let due = twin.now.saturating_add_signed(ticks);
                        wheel.set(&mut links, key, due);
                        twin.set(key, due);
                        (0, 0, None)
                    }
                    Step::Cancel(key) => {
                        wheel.cancel(&mut links, key);
                        twin.cancel(key);
                        (0, 0, None)
                    }
                    Step::Pop(pops, ticks, again) => (pops, twin.now + ticks, again),
                    Step::Wake => (usize::MAX, wheel.next_due().unwrap_or(0), None),
                };
                for _ in 0..pops {
                    let key = wheel.pop(&mut links, now);
                    twin.popped(key, now);
                    let Some(key) = key else { break };
                    if let Some(ticks) = again {
                        let due = twin.now.saturating_add_signed(ticks);
                        wheel.set(&mut links, key, due);
                        twin.set(key, due);
                    }
                }
                prop_assert_eq!(wheel.len(), twin.set.len());
                prop_assert_eq!(wheel.is_empty(), twin.set.is_empty());
                prop_assert_eq!(wheel.next_due().is_some(), !wheel.is_empty());
                prop_assert!(wheel.next_due() <= twin.earliest());
                for key in 0..KEYS {
                    let is_set = twin.set.iter().any(|&(_, other)| other == key);
                    prop_assert_eq!(links.link(key).is_set(), is_set);
                }
            }
        }
    }
}
