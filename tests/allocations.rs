//! Per client, nothing: what an event allocates does not depend on how many
//! clients get it.

#[path = "../benches/parts/mod.rs"]
mod parts;

use std::alloc::System;

use parts::Room;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What 100 publications of so many events to so many clients allocate, once
/// the loop's buffers have their size.
fn allocations(clients: usize, together: usize, takes_halves: bool) -> usize {
    let mut room = Room::new(clients);
    if takes_halves {
        room.take_halves();
    }
    for _ in 0..300 {
        room.deliver(together);
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..100 {
        room.deliver(together);
    }
    let change = region.change();
    change.allocations + change.reallocations
}

// One test: what others allocate at the same time would be counted, too.
#[test]
fn what_an_event_allocates_does_not_depend_on_its_clients() {
    for together in [1, 32] {
        let to_none = allocations(0, together, false);
        let to_ten = allocations(10, together, false);
        let to_many = allocations(1000, together, false);
        println!("100 × {together}: {to_none} for no client, {to_ten} for 10, {to_many} for 1000");
        assert_eq!(to_ten, to_many, "{together} together");
        // The frame, and what a batch needs; nothing else.
        assert!(to_many <= 100 * (2 * together + 4), "{to_many}");
    }
    // Nor does a write that is cut short and goes on when there is room.
    let [to_ten, to_many] = [10, 1000].map(|clients| allocations(clients, 1, true));
    println!("cut short: {to_ten} for 10 clients, {to_many} for 1000");
    assert_eq!(to_ten, to_many, "cut short");
    assert!(to_many <= 100 * 6, "{to_many}");
}
