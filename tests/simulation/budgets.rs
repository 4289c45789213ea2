//! What a turn may do: no more of anything than its budget and one slice, and something
//! of each class of work that waited.

use pushwheel::internals::{Budgets, Spent};

/// The most bytes of an event in a simulation.
const EVENT_BYTES_MAX: usize = 128 << 10;
/// What a round for a client that is behind counts at least.
const ROUND_BYTES: usize = 8 << 10;
/// What a last write to a stalled client counts among the timers.
const RETRY_COST: usize = 16;
/// What one search of the hub looks at at most.
const LOOKS_MAX: usize = 1024;
/// The looks that count as a write.
const LOOKS_A_WRITE: usize = 16;
/// What a page counts at most beside its request: one for 16 events of one search.
const PAGE_REQUESTS_MAX: usize = LOOKS_MAX / 16;

pub fn check(spent: Spent, budgets: &Budgets) {
    let timer_max = RETRY_COST.max(budgets.reads_a_turn);
    let timers_max = budgets.timers_a_turn + timer_max.max(PAGE_REQUESTS_MAX + 1);
    // A timer may take a step, a request or a round where no budget is left.
    let rounds_max = 1 + spent.timers.min(timers_max.div_ceil(RETRY_COST));
    let round_bytes_max = ROUND_BYTES.max(budgets.buffer_bytes) + EVENT_BYTES_MAX;
    let steps_max = budgets.steps_a_turn + budgets.reads_a_turn + timers_max;
    // A check of clients that are behind, and two searches for targets, are looks.
    let slack = (budgets.looks_a_slice + 2 * LOOKS_MAX) / LOOKS_A_WRITE;
    let writes_max = budgets.writes_a_turn + budgets.writes_a_slice + budgets.ends_a_slice + slack;
    // Clients that the hub has sent away, news with timers, and reports have a slice each.
    // A feed may leave a rest of looks that is less than a write.
    let looks_max = 3 * budgets.looks_a_slice + LOOKS_A_WRITE * (spent.writes + 2 * spent.taken[1]);
    let bytes_max = budgets.cursor_bytes_a_turn + 2 * rounds_max * round_bytes_max;
    for (what, count, max) in [
        ("steps", spent.steps, steps_max),
        (
            "requests",
            spent.requests,
            budgets.requests_a_turn + PAGE_REQUESTS_MAX + timers_max,
        ),
        (
            "commands",
            spent.commands,
            2 * (budgets.chores_a_turn + PAGE_REQUESTS_MAX + 1),
        ),
        ("writes", spent.writes, writes_max),
        ("looks", spent.looks, looks_max),
        ("timers", spent.timers, timers_max),
        (
            "bytes for clients that are behind",
            spent.cursor_bytes,
            bytes_max,
        ),
    ] {
        assert!(count <= max, "{count} {what} in a turn, of {max}");
    }
    let classes = ["requests", "feeds", "clients that are behind"];
    for ((class, waited), taken) in classes.into_iter().zip(spent.waited).zip(spent.taken) {
        assert!(taken > 0 || !waited, "{class} wait for more than a turn");
    }
}
