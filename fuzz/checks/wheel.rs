//! The timer wheel behaves like a sorted list.
//!
//! The input is the first tick, in eight bytes, and then steps, each one byte and its
//! arguments.

use pushwheel::internals::wheel::{Link, Links, Wheel};

use super::input::Input;

const KEYS: u32 = 16;

pub fn check(input: &[u8]) {
    let mut input = Input(input);
    // Ticks stay below 2^63.
    let start = input.number() >> 2;
    let mut wheel = Wheel::new(start);
    let mut links = Slab(std::array::from_fn(|_| Link::default()));
    let mut twin = Twin {
        now: start,
        set: Vec::new(),
    };
    // At 2^35 ticks for each step, this is far from the end.
    for _ in 0..10_000 {
        if input.is_empty() {
            break;
        }
        let key = u32::from(input.byte());
        let (kind, key) = (key >> 4, key % KEYS);
        match kind {
            0..=7 => {
                let due = moved(twin.now, &mut input);
                wheel.set(&mut links, key, due);
                twin.set(key, due);
            }
            8..=9 => {
                wheel.cancel(&mut links, key);
                twin.cancel(key);
            }
            10..=12 => {
                let now = moved(twin.now, &mut input);
                twin.pop_all(&mut wheel, &mut links, now);
            }
            // Each popped timer is set again, a few times.
            13 => {
                let now = moved(twin.now, &mut input);
                for _ in 0..key {
                    let popped = wheel.pop(&mut links, now);
                    twin.popped(popped, now);
                    let Some(popped) = popped else { break };
                    let due = moved(twin.now, &mut input);
                    wheel.set(&mut links, popped, due);
                    twin.set(popped, due);
                }
            }
            // To the time at which the wheel has work.
            _ => {
                if let Some(now) = wheel.next_due() {
                    twin.pop_all(&mut wheel, &mut links, now);
                }
            }
        }
        twin.check(&wheel, &mut links);
    }
}

/// A tick near a power of two away from `now`, or a little before it.
fn moved(now: u64, input: &mut Input<'_>) -> u64 {
    let (bit, off) = (input.byte(), input.byte());
    match bit % 64 {
        bit @ 0..=34 => now + (1 << bit) + u64::from(off) - 1,
        35..=50 => now + u64::from(off),
        _ => now.saturating_sub(u64::from(off)),
    }
}

struct Slab([Link; KEYS as usize]);

impl Links for Slab {
    fn link(&mut self, key: u32) -> &mut Link {
        &mut self.0[key as usize]
    }
}

/// All timers with their times, sorted.
struct Twin {
    now: u64,
    set: Vec<(u64, u32)>,
}

impl Twin {
    fn cancel(&mut self, key: u32) {
        self.set.retain(|&(_, other)| other != key);
    }

    fn set(&mut self, key: u32, due: u64) {
        self.cancel(key);
        let due = due.clamp(self.now, self.now + u64::from(u32::MAX));
        self.set.push((due, key));
        self.set.sort_unstable();
    }

    fn earliest(&self) -> Option<u64> {
        self.set.first().map(|&(due, _)| due)
    }

    fn pop_all(&mut self, wheel: &mut Wheel, links: &mut Slab, now: u64) {
        loop {
            let popped = wheel.pop(links, now);
            self.popped(popped, now);
            if popped.is_none() {
                return;
            }
        }
    }

    /// Checks what the wheel popped, and pops it too.
    fn popped(&mut self, key: Option<u32>, now: u64) {
        let now = now.max(self.now);
        let due = self.earliest().filter(|&due| due <= now);
        // Within one tick the order is not defined.
        let is_due = |key| due.is_some_and(|due| self.set.contains(&(due, key)));
        assert_eq!(key.is_some(), due.is_some(), "{key:?} at {now}");
        assert!(key.is_none_or(is_due), "{key:?} at {now}");
        if let Some(key) = key {
            self.cancel(key);
        }
        self.now = due.unwrap_or(now);
    }

    fn check(&self, wheel: &Wheel, links: &mut Slab) {
        assert_eq!(wheel.len(), self.set.len());
        assert_eq!(wheel.is_empty(), self.set.is_empty());
        assert_eq!(wheel.next_due().is_some(), !self.set.is_empty());
        assert!(wheel.next_due() <= self.earliest());
        for key in 0..KEYS {
            let is_set = self.set.iter().any(|&(_, other)| other == key);
            assert_eq!(links.link(key).is_set(), is_set, "{key}");
        }
    }
}
