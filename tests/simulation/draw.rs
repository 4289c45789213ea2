//! What a seed draws: channels, faults, clients, budgets.

use std::time::Duration;

use fastrand::Rng;
use pushwheel::internals::Budgets;
use pushwheel::{EngineBuilder, History, KeyedState, LagPolicy};

use super::client::{Behavior, Role};
use super::network::{Batches, Faults, RareFaults};
use super::oracle::{FINISHED_MS, Finishes, Keys, Plan};

pub fn draw_plan(rng: &mut Rng) -> Plan {
    let events = [0, 0, 3, 20, 200][rng.usize(0..5)];
    let mut history = History::NONE;
    if events > 0 {
        history = History::events(events);
        if rng.bool() {
            history = history.bytes_max(rng.usize(1_000..40_000));
        }
        if rng.bool() {
            history = history.age_max(Duration::from_millis(rng.u64(200..8_000)));
        }
    }
    Plan {
        history,
        heartbeat_ms: [0, 300, 700, 2_000][rng.usize(0..4)],
        backlog_bytes_max: [2_000, 20_000, 1 << 20][rng.usize(0..3)],
        clients_max: if rng.u32(0..6) == 0 {
            rng.usize(1..10)
        } else {
            usize::MAX
        },
        policy: [LagPolicy::Disconnect, LagPolicy::Skip, LagPolicy::Conflate][rng.usize(0..3)],
        keyed: KeyedState::default(),
        pace_ms: 0,
        finished_ms: FINISHED_MS,
    }
}

/// Bounds and paces of keyed state, and where removals come from. Drawn apart, too.
pub fn draw_keyed<'a>(seed: u64, plans: impl Iterator<Item = &'a mut Plan>) -> Option<Rng> {
    let mut rng = Rng::with_seed(seed ^ 0x0ca1_1ed0);
    for plan in plans {
        let keys_max = [0, 1, 2, 4, 10_000][rng.usize(0..5)];
        plan.keyed = KeyedState::keys(keys_max);
        if rng.u32(0..3) == 0 {
            plan.keyed = plan.keyed.bytes_max(rng.usize(500..10_000));
        }
        if rng.u32(0..4) == 0 {
            let age = Duration::from_millis(rng.u64(200..8_000));
            plan.keyed = plan.keyed.age_max(age);
        }
        plan.pace_ms = [0, 0, 30, 200, 900][rng.usize(0..5)];
    }
    rng.bool().then_some(rng)
}

/// How channels finish, where they do so often. Drawn apart, too.
pub fn draw_finishes(seed: u64) -> Option<Finishes> {
    let mut rng = Rng::with_seed(seed ^ 0xf1_4154);
    rng.bool().then(|| Finishes {
        often: rng.u32(5..60),
        last_bytes_max: [100, 5_000, 60_000][rng.usize(0..3)],
        send_bytes_max: [200, 1_000, 50_000][rng.usize(0..3)],
        finished_ms: [1, 200, 1_000, FINISHED_MS][rng.usize(0..4)],
        rng,
    })
}

/// Whether the system's poller fails in the end. Drawn apart, too.
pub fn draw_failure(seed: u64) -> bool {
    Rng::with_seed(seed ^ 0xfa_11ed).u32(0..8) == 0
}

/// Whether another engine serves the channels after the first one. Drawn apart, too.
pub fn draw_restart(seed: u64) -> bool {
    Rng::with_seed(seed ^ 0x5e_c0d).u32(0..3) == 0
}

/// What is kept of the events for all channels, where something is. Its age has no bound,
/// so that it does not matter in which moment a channel is made. Drawn apart, too.
pub fn draw_kept_for_all(seed: u64) -> Option<History> {
    let mut rng = Rng::with_seed(seed ^ 0x0a11_c4a1);
    let kept = History::events(rng.usize(1..6)).bytes_max(usize::MAX);
    rng.bool().then_some(kept.age_max(Duration::MAX))
}

/// How often writes are interrupted. Drawn apart, too.
pub fn draw_interrupted_writes(seed: u64) -> u32 {
    let mut rng = Rng::with_seed(seed ^ 0xe1_4712);
    if rng.bool() { rng.u32(1..=200) } else { 0 }
}

pub fn draw_faults(rng: &mut Rng) -> Faults {
    // Each kind is absent in half of the runs.
    let mut chance = |max: u32| if rng.bool() { rng.u32(0..=max) } else { 0 };
    Faults {
        partial_reads: chance(300),
        partial_writes: chance(300),
        spurious_blocks: chance(100),
        repeated: chance(200),
        stale_tokens: chance(200),
        late_ms_max: u64::from(chance(30)),
        aborted_accepts: chance(100),
        failed_registrations: chance(30),
        interrupted_reads: chance(100),
        interrupted_writes: 0,
        descriptors_max: match chance(20) {
            0 => usize::MAX,
            count => 2 + count as usize,
        },
        send_bytes_max: [200, 1_000, 10_000, 50_000][rng.usize(0..4)],
        latency_ms_max: [0, 2, 20][rng.usize(0..3)],
    }
}

/// Drawn from a generator of its own, so that what seeds draw beside it does not
/// change with it.
pub fn draw_rare_faults(seed: u64) -> RareFaults {
    let mut rng = Rng::with_seed(seed.rotate_left(17) ^ 0xca1a);
    let jumps = if rng.bool() { rng.u32(0..4) } else { 0 };
    let jump = |_| {
        let by_ms_max = [300, 5_000, 120_000, 30 * 86_400_000][rng.usize(0..4)];
        (rng.u64(0..15_000), rng.u64(1..by_ms_max))
    };
    RareFaults {
        clock_jumps: (0..jumps).map(jump).collect(),
        vanishes: if rng.bool() { rng.u32(0..=100) } else { 0 },
        lost_after_ms: rng.u64(0..6_000),
        slow_turns: [1, 1, 5, 15][rng.usize(0..4)],
        overlaps: [0, 100, 500, 900][rng.usize(0..4)],
        forges: rng.bool(),
        floods: rng.u32(0..4) == 1,
    }
}

/// Whether publishers give ids again: where these come from. Drawn apart, too.
pub fn draw_repeats(seed: u64) -> Option<Rng> {
    let mut rng = Rng::with_seed(seed ^ 0x0e_ca11);
    rng.bool().then_some(rng)
}

/// What publishers of the newest era do: where repetitions and exclusions are
/// drawn from, and for how long after the start own ids are in doubt. Drawn
/// apart, too.
pub fn draw_repetitions(seed: u64) -> (Rng, u64) {
    let mut rng = Rng::with_seed(seed ^ 0x00d0_0b7e);
    let in_doubt_ms = [0, 0, 1_000, 5_000][rng.usize(0..4)];
    (rng, in_doubt_ms)
}

/// How many loops the engine has. Drawn apart, too.
pub fn draw_loops(seed: u64) -> usize {
    [1, 1, 2][Rng::with_seed(seed ^ 0x0100_b5ed).usize(0..3)]
}

/// Whether room in a socket is reported late. Drawn apart, too.
pub fn draw_withholding(seed: u64) -> bool {
    Rng::with_seed(seed ^ 0x00b1_0ced).bool()
}

/// Whether a client asks for no id to begin with. Drawn apart, too.
pub fn draw_plain_fetch(seed: u64, index: usize) -> bool {
    Rng::with_seed(seed ^ 0x1d1e ^ ((index as u64) << 32)).u8(0..4) == 0
}

/// Whether a client asks for its position in heartbeats. Drawn apart, too.
pub fn draw_positions(seed: u64, index: usize) -> bool {
    Rng::with_seed(seed ^ 0x9051_7104 ^ ((index as u64) << 32)).u8(0..3) == 0
}

/// What befalls writes to many at once, where something does. Drawn apart, too.
pub fn draw_batches(seed: u64) -> Option<Batches> {
    let mut rng = Rng::with_seed(seed ^ 0xba_7c4e5);
    let mut chance = |max: u32| if rng.bool() { rng.u32(0..=max) } else { 0 };
    let (torn, blocked, failed) = (chance(500), chance(300), chance(30));
    rng.bool().then_some(Batches {
        torn,
        blocked,
        failed,
        rng,
    })
}

/// Publishers that repeat requests with their keys, where there are some. Drawn apart, too.
pub fn draw_keys(seed: u64) -> Option<Keys> {
    let mut rng = Rng::with_seed(seed ^ 0x00de_ade5);
    rng.bool().then(|| Keys::new(rng))
}

/// Whether a client reads pages. Drawn apart, too.
pub fn draw_pages(seed: u64, index: usize) -> bool {
    Rng::with_seed(seed ^ 0x0009_a6e5 ^ ((index as u64) << 32)).u8(0..4) == 0
}

pub fn draw_role(rng: &mut Rng, names: &[String]) -> Role {
    match rng.u32(0..12) {
        0 => Role::Hostile,
        1 => Role::Sink,
        number => {
            let count = match number {
                2..8 => 1,
                _ => rng.usize(1..=names.len()),
            };
            let mut names = names.to_vec();
            rng.shuffle(&mut names);
            names.truncate(count);
            Role::Subscriber {
                names,
                is_deferred: number == 2,
            }
        }
    }
}

pub fn draw_behavior(rng: &mut Rng, stall_ms: u64) -> Behavior {
    let mut chance = |max: u32| if rng.bool() { rng.u32(0..=max) } else { 0 };
    Behavior {
        stalls: chance(300),
        stall_ms_max: u64::from(chance(2)) * stall_ms + 500,
        cuts: chance(150),
        half_closes: chance(50),
        vanishes: 0,
        floods: false,
        junk: chance(50),
        read_max: [1, 20, 1_000, usize::MAX][rng.usize(0..4)],
        is_blind: rng.u32(0..20) == 0,
    }
}

pub fn draw_budgets(rng: &mut Rng) -> Budgets {
    let mut draw = |usual: usize| match rng.u32(0..3) {
        0 => rng.usize(1..=4),
        1 => rng.usize(1..=usual),
        _ => usual,
    };
    let usual = Budgets::default();
    let accepts_a_turn = draw(usual.accepts_a_turn);
    let chores_a_turn = draw(usual.chores_a_turn);
    let steps_a_turn = draw(usual.steps_a_turn);
    Budgets {
        accepts_a_turn,
        chores_a_turn,
        steps_a_turn,
        // In the same ratio: old seeds drew one number for both.
        cursor_bytes_a_turn: steps_a_turn * usual.cursor_bytes_a_turn / usual.steps_a_turn,
        timers_a_turn: draw(usual.timers_a_turn),
        writes_a_slice: draw(usual.writes_a_slice),
        writes_a_turn: draw(usual.writes_a_turn),
        rounds_a_turn: draw(usual.rounds_a_turn),
        ends_a_slice: draw(usual.ends_a_slice),
        reads_a_turn: draw(usual.reads_a_turn),
        buffer_bytes: [64, 1_000, usual.buffer_bytes][rng.usize(0..3)],
        ..usual
    }
}

/// The clients, feeds or channels that a slice looks at. A seed draws it apart from all
/// else.
pub fn draw_looks(seed: u64, usual: usize) -> usize {
    let mut rng = Rng::with_seed(seed ^ 0x51_1ce5);
    match rng.bool() {
        true => rng.usize(1..=3),
        false => usual,
    }
}

/// Limits that a small load comes to, in some runs; says whether this is one. A
/// seed draws them apart from all else, so that it means what it meant without.
pub fn draw_limits(
    engine: EngineBuilder,
    budgets: &mut Budgets,
    seed: u64,
) -> (EngineBuilder, bool) {
    let mut rng = Rng::with_seed(seed ^ 0x11_117);
    let mut draw = |usual: usize| match rng.u32(0..3) {
        0 => rng.usize(1..=3),
        _ => usual,
    };
    budgets.requests_a_slice = draw(budgets.requests_a_slice);
    budgets.requests_a_turn = draw(budgets.requests_a_turn);
    budgets.overflow_max = draw(budgets.overflow_max);
    let engine = engine.budgets(budgets.clone());
    if rng.u32(0..4) > 0 {
        return (engine, false);
    }
    let mut draw = |load: usize| match rng.bool() {
        true => rng.usize(1..=load),
        false => usize::MAX,
    };
    let engine = engine
        .connections_max(draw(20))
        .connections_per_address_max(draw(20))
        .requests_in_flight_max(draw(4))
        .body_timeout(Duration::from_millis(700));
    (engine, true)
}
