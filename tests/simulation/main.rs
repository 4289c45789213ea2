//! The engine on a simulated network: one seed is one run.
//!
//! A seed draws a network with its faults, channels with their options, clients and
//! publishers. The event loop that serves sockets runs on that network, with a clock that
//! only `poll` moves. An oracle compares what each client reads with what was published.
//! A seed that fails, fails again:
//!
//! ```text
//! PUSHWHEEL_SEED=123 cargo test --features internals --test simulation replay -- --nocapture
//! ```
//!
//! `tests/simulate SECONDS` runs fresh seeds until the time is up.
//!
//! `tests/breaks/run` shows that it finds faults: it breaks the engine with each of
//! `tests/breaks/*.patch`, and requires that a seed fails.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic and print; `long` reads the clock to know when to stop"
)]

mod budgets;
mod client;
mod cluster;
mod draw;
mod endings;
mod eras;
mod journal;
mod load;
mod network;
mod oracle;
mod routes;
#[path = "../common/sse.rs"]
mod sse;
mod sums;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fastrand::Rng;
use pushwheel::internals::{Budgets, Clock, SimulatedEngine};
use pushwheel::{ChannelManager, ChannelManagerBuilder, ChannelOptions, Engine, History};

use client::Client;
use draw::{
    draw_batches, draw_behavior, draw_budgets, draw_failure, draw_faults, draw_finishes,
    draw_interrupted_writes, draw_kept_for_all, draw_keyed, draw_keys, draw_limits, draw_looks,
    draw_loops, draw_pages, draw_plain_fetch, draw_plan, draw_positions, draw_rare_faults,
    draw_repeats, draw_repetitions, draw_restart, draw_role, draw_withholding,
};
use endings::Endings;
use eras::{Era, REGRESSIONS};
use journal::{End, Journal, draw_journal};
use load::Load;
use network::{Act, Network, RareFaults, Seam};
use oracle::{Oracle, Plan, Proposed};
use routes::routes;
use sums::Sums;

/// Seeds that every run of the tests tries, from 0 on.
const FIRST_SEEDS: u64 = 120;

/// The same for clusters.
const FIRST_CLUSTERS: u64 = 60;

/// The same for clusters of which every other one has own ids.
const FIRST_OWN_IDS: u64 = 40;

/// In how many fresh seeds there is a cluster beside the engine alone.
const SEEDS_A_CLUSTER: u64 = 4;

#[test]
fn first_seeds() {
    let mut sums = Sums::default();
    let regressions = REGRESSIONS.iter().map(|(seed, ..)| *seed);
    for seed in regressions.chain(0..FIRST_SEEDS) {
        sums.add(run(seed, false));
    }
    println!("{sums}");
}

#[test]
fn first_clusters() {
    let mut sums = Sums::default();
    let with_own_ids = cluster::OWN_IDS_FROM..cluster::OWN_IDS_FROM + FIRST_OWN_IDS;
    for seed in (0..FIRST_CLUSTERS).chain(with_own_ids) {
        sums.add(run(cluster::FIRST_SEED + seed, false));
    }
    println!("{sums}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in (0..10).chain(cluster::FIRST_SEED..cluster::FIRST_SEED + 5) {
        let (first, again) = (run(seed, false), run(seed, false));
        assert_eq!(
            first.digest, again.digest,
            "seed {seed} differs from itself"
        );
    }
}

#[test]
fn replay() {
    if let Some(seed) = number_from("PUSHWHEEL_SEED") {
        let mut sums = Sums::default();
        sums.add(run(seed, true));
        println!("{sums}");
    }
}

#[test]
fn long() {
    let seconds = number_from("PUSHWHEEL_SIMULATE_SECONDS");
    let seeds = number_from("PUSHWHEEL_SIMULATE_SEEDS");
    if (seconds, seeds) == (None, None) {
        return;
    }
    let first = number_from("PUSHWHEEL_FIRST_SEED").unwrap_or_else(|| Rng::new().u64(..) >> 16);
    let last = seeds.map_or(u64::MAX, |seeds| first + seeds.max(1) - 1);
    let time = seconds.map_or(Duration::MAX, Duration::from_secs);
    let begun = Instant::now();
    let mut sums = Sums::default();
    let mut seed = first;
    loop {
        sums.add(run(seed, false));
        if seed.is_multiple_of(SEEDS_A_CLUSTER) && seed < cluster::FIRST_SEED {
            sums.add(run(cluster::FIRST_SEED + seed, false));
        }
        if seed == last || begun.elapsed() >= time {
            break;
        }
        seed += 1;
    }
    println!("seeds {first} to {seed}\n{sums}");
    println!("{}", sums.by_the_minute(begun.elapsed()));
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

/// Prints the command that replays a seed, if a panic drops it.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "\nseed {0} failed. Replay it with:\n  PUSHWHEEL_SEED={0} cargo test \
                 --features internals --test simulation replay -- --nocapture\n",
                self.0
            );
        }
    }
}

type Shared = Arc<Mutex<Oracle>>;

/// The simulation has one thread, so the lock is free.
fn lock(oracle: &Shared) -> MutexGuard<'_, Oracle> {
    oracle
        .try_lock()
        .expect("one thread, and no lock is held over a call that needs it")
}

/// All event loops of the engine except the first one, which turns the others.
type Others = Rc<RefCell<Vec<SimulatedEngine<Seam>>>>;

/// The engine, its network and its clients.
struct Simulation {
    /// `None` only between two of them.
    engine: Option<SimulatedEngine<Seam>>,
    others: Others,
    recipe: Recipe,
    network: Rc<RefCell<Network>>,
    load: Rc<RefCell<Load>>,
    oracle: Shared,
    clock: Arc<AtomicU64>,
    /// Those of the engine that runs.
    budgets: Budgets,
    is_reported: bool,
}

/// Everything that each engine of a run is made with.
struct Recipe {
    manager: ChannelManager,
    plans: Plans,
    /// What is kept of the events for all channels.
    kept: History,
    seed: u64,
    loops: usize,
    budgets: Budgets,
    stall_ms: u64,
    head_ms: u64,
    idle_ms: u64,
}

/// The options of channels by their names.
type Plans = Arc<Mutex<BTreeMap<String, Plan>>>;

/// Returns a manager's builder with these options.
fn builder_of(plans: &Plans, kept: History) -> ChannelManagerBuilder {
    let plans = plans.clone();
    ChannelManager::builder().options_by_name(move |name| {
        let plans = plans.lock().unwrap();
        let options = plans.get(name).map(Plan::options);
        options.unwrap_or_else(|| ChannelOptions::new().history(kept))
    })
}

/// Returns a clock whose wall clock shows the same.
fn clock_of(clock: &Arc<AtomicU64>) -> Clock {
    Clock::manual_with_wall(clock.clone(), clock.clone())
}

/// Runs one seed to its end.
fn run(seed: u64, is_reported: bool) -> Sums {
    let _replay = Replay(seed);
    if seed >= cluster::FIRST_SEED {
        return cluster::run(seed, is_reported);
    }
    let mut rng = Rng::with_seed(seed);
    let mut simulation = build(&mut rng, seed, is_reported);
    let duration_ms = rng.u64(2_000..15_000);
    let ends_abruptly = rng.u32(0..3) == 0;
    if Era::of(seed) >= Era::Restarts && draw_restart(seed) {
        simulation.turn_for(duration_ms / 2);
        simulation.restart();
    }
    while simulation.ends_process(duration_ms / 2) {}
    let end_ms = simulation.lived_ms() + duration_ms;
    if Era::of(seed) >= Era::Finishes && draw_failure(seed) {
        simulation.turn_for(duration_ms);
        return simulation.fail();
    }
    if ends_abruptly {
        simulation.load.borrow_mut().shuts_down_at = Some(end_ms);
    }
    simulation.turn_for(duration_ms);
    if ends_abruptly {
        simulation.turn_until_shut(end_ms);
    } else {
        simulation.calm_down();
        simulation.end(&mut rng);
    }
    simulation.check_end()
}

fn build(rng: &mut Rng, seed: u64, is_reported: bool) -> Simulation {
    let clock = Arc::new(AtomicU64::new(0));
    let era = Era::of(seed);
    let (repetitions, in_doubt_ms) = match era >= Era::Repetitions {
        true => {
            let (rng, in_doubt_ms) = draw_repetitions(seed);
            (Some(rng), in_doubt_ms)
        }
        false => (None, 0),
    };
    let kept_for_all = draw_kept_for_all(seed).filter(|_| era >= Era::Everywhere);
    let kept = kept_for_all.unwrap_or(History::NONE);
    let plans = Plans::default();
    let plan = draw_journal(seed).filter(|_| era >= Era::Journals);
    let (manager, journal) = match plan {
        None => {
            let manager = ChannelManager::builder()
                .defaults(ChannelOptions::new().history(kept))
                .republish_window(Duration::from_millis(in_doubt_ms))
                .build_simulated(Clock::manual(clock.clone()), seed);
            (manager, None)
        }
        Some(plan) => {
            let builder = builder_of(&plans, kept);
            let (manager, journal) = Journal::begin(plan, builder, &clock_of(&clock));
            (manager, Some(journal))
        }
    };
    let in_doubt_ms = if journal.is_some() { 0 } else { in_doubt_ms };
    let endings = Endings::draw(seed, era == Era::First);
    let mut oracle = Oracle::new(clock.clone(), manager.clone(), rng.fork(), endings);
    oracle.repetitions = repetitions;
    oracle.in_doubt_until_ms = in_doubt_ms;
    oracle.has_own_ids_for_all = kept_for_all.is_some();
    oracle.kept_for_all = kept;
    if let Some(journal) = &journal {
        oracle.proposed = Some(Proposed::new(journal.timeout_ms()));
        oracle.may_lack_room = journal.may_lack_room();
    }
    for number in 0..rng.usize(1..=4) {
        oracle.plans.insert(format!("c{number}"), draw_plan(rng));
    }
    if era >= Era::Keyed {
        oracle.removals = draw_keyed(seed, oracle.plans.values_mut());
    }
    let finishes = draw_finishes(seed).filter(|_| era >= Era::Finishes);
    if let Some(finishes) = &finishes {
        for plan in oracle.plans.values_mut() {
            plan.finished_ms = finishes.finished_ms;
        }
    }
    plans.lock().unwrap().clone_from(&oracle.plans);
    let stall_ms = rng.u64(1_000..4_000);
    oracle.stall_ms = stall_ms;
    let names: Vec<String> = oracle.plans.keys().cloned().collect();
    let oracle: Shared = Arc::new(Mutex::new(oracle));

    let mut faults = draw_faults(rng);
    if era >= Era::Finishes {
        faults.interrupted_writes = draw_interrupted_writes(seed);
    }
    if let Some(finishes) = &finishes {
        faults.send_bytes_max = faults.send_bytes_max.min(finishes.send_bytes_max);
    }
    lock(&oracle).finishes = finishes;
    lock(&oracle).keys = draw_keys(seed).filter(|_| era >= Era::Keys);
    let loops = match era >= Era::Loops {
        true => draw_loops(seed),
        false => 1,
    };
    let network = Network::new(rng.fork(), clock.clone(), loops, faults);
    let network = Rc::new(RefCell::new(network));
    let rare_faults = match era {
        Era::First => RareFaults::default(),
        _ => draw_rare_faults(seed),
    };
    network.borrow_mut().befall(&rare_faults);
    network.borrow_mut().withholds_room = era >= Era::Loops && draw_withholding(seed);
    network.borrow_mut().interrupts = era >= Era::Pauses;
    network.borrow_mut().batches = draw_batches(seed).filter(|_| era >= Era::Batches);
    lock(&oracle).forges = rare_faults.forges;
    if era >= Era::Repeats {
        lock(&oracle).repeats = draw_repeats(seed);
    }
    let mut clients = Vec::new();
    let clients_max = [3, 8, 30, 60][rng.usize(0..4)];
    for index in 0..rng.usize(1..=clients_max) {
        let role = draw_role(rng, &names);
        let mut behavior = draw_behavior(rng, stall_ms);
        behavior.vanishes = rare_faults.vanishes;
        behavior.floods = rare_faults.floods;
        let client = Client::new(index, role, behavior, rng);
        let asks_for_positions = era >= Era::Positions && draw_positions(seed, index);
        clients.push(match era >= Era::Pauses && draw_plain_fetch(seed, index) {
            _ if era >= Era::Keys && draw_pages(seed, index) => client.with_pages(),
            _ if asks_for_positions => client.with_positions(),
            true => client.without_opening_id(),
            false => client,
        });
        network
            .borrow_mut()
            .plan(rng.u64(0..2_500), Act::Client(index));
    }
    network.borrow_mut().plan(0, Act::Publisher);
    if journal.is_some() {
        network.borrow_mut().plan(0, Act::Journal);
        network.borrow_mut().plan(0, Act::Timeouts);
    }
    let load = Rc::new(RefCell::new(Load {
        network: network.clone(),
        oracle: oracle.clone(),
        clients,
        handle: None,
        rng: rng.fork(),
        pause_ms_max: [10, 60, 300][rng.usize(0..3)],
        checked_at: 0,
        shuts_down_at: None,
        ends_at_once_at: None,
        is_calm: false,
        journal,
    }));
    let others = Others::default();
    let mut budgets = draw_budgets(rng);
    if era >= Era::Slices {
        budgets.looks_a_slice = draw_looks(seed, budgets.looks_a_slice);
    }
    let recipe = Recipe {
        manager,
        plans,
        kept,
        seed,
        loops,
        budgets,
        stall_ms,
        head_ms: rng.u64(1_000..3_000),
        idle_ms: rng.u64(2_000..8_000),
    };
    let mut simulation = Simulation {
        engine: None,
        others,
        recipe,
        network,
        load,
        oracle,
        clock,
        budgets: Budgets::default(),
        is_reported,
    };
    simulation.start();
    simulation
}

/// Turns all loops that have not ended. Returns whether there was one.
fn turn_all(loops: &Others) -> bool {
    let mut is_one_left = false;
    for (engine, side) in loops.borrow_mut().iter_mut().zip(1..) {
        if !engine.is_over() {
            engine.turn().unwrap();
            is_one_left = true;
        }
        if engine.is_over() {
            engine.net().network.borrow_mut().retire(side);
        }
    }
    is_one_left
}

impl Simulation {
    /// Makes an engine for the channels.
    fn start(&mut self) {
        let recipe = &self.recipe;
        let seam = |side: usize| {
            let others = self.others.clone();
            let waker = self.network.borrow().waker(side);
            let turn = || Box::new(move || turn_all(&others)) as Box<dyn Fn() -> bool>;
            let seam = Seam {
                network: self.network.clone(),
                actors: self.load.clone(),
                side,
                turn_others: (side == 0 && recipe.loops > 1).then(turn),
            };
            (seam, waker)
        };
        let engine = Engine::builder()
            .channels(&recipe.manager)
            .stall_timeout(Duration::from_millis(recipe.stall_ms))
            .head_timeout(Duration::from_millis(recipe.head_ms))
            .idle_timeout(Duration::from_millis(recipe.idle_ms));
        self.budgets = recipe.budgets.clone();
        let (engine, is_limited) = draw_limits(engine, &mut self.budgets, recipe.seed);
        lock(&self.oracle).is_limited = is_limited;
        let engine = lock(&self.oracle).endings.apply(engine);
        let engine = routes(engine, &self.oracle);
        let engines = engine.simulate((0..recipe.loops).map(seam).collect());
        let mut engines = engines.expect("no other engine serves the channels");
        let engine = engines.remove(0);
        *self.others.borrow_mut() = engines;
        self.load.borrow_mut().handle = Some(engine.handle());
        self.engine = Some(engine);
    }

    /// Lets the process end, if it is to, and another one go on with its journal.
    fn ends_process(&mut self, after_ms: u64) -> bool {
        let journal = |simulation: &mut Simulation| simulation.load.borrow_mut().journal.take();
        let put = |simulation: &mut Simulation, journal: Journal| {
            simulation.load.borrow_mut().journal = Some(journal);
        };
        let Some(mut own) = journal(self) else {
            return false;
        };
        let end = own.next_end();
        put(self, own);
        let Some(end) = end else {
            return false;
        };
        self.turn_for(after_ms);
        if end != End::Clean {
            self.load
                .borrow_mut()
                .journal
                .as_mut()
                .expect("there is one")
                .fail_soon();
            let until_ms = self.lived_ms() + 700;
            while self.lived_ms() < until_ms && !self.has_ended() {
                self.turn();
            }
        }
        let mut own = journal(self).expect("there is one");
        if end == End::Clean {
            own.close(&self.oracle);
        }
        let held = lock(&self.oracle).end_process();
        own.end(end);
        self.network.borrow_mut().break_all();
        self.load.borrow_mut().handle = None;
        self.engine = None;
        self.others.borrow_mut().clear();
        drop(held);
        self.network.borrow_mut().restart();
        let builder = builder_of(&self.recipe.plans, self.recipe.kept);
        let clock = clock_of(&self.clock);
        let manager = own.reopen(end, builder, &clock, &mut lock(&self.oracle));
        self.recipe.manager = manager;
        put(self, own);
        self.start();
        true
    }

    fn has_ended(&self) -> bool {
        let load = self.load.borrow();
        load.journal.as_ref().is_some_and(Journal::has_ended)
    }

    /// Shuts the engine down, and serves the same channels by another one.
    fn restart(&mut self) {
        let now = self.lived_ms();
        self.load.borrow_mut().shuts_down_at = Some(now);
        self.network.borrow_mut().plan(0, Act::Publisher);
        self.turn_until_shut(now);
        let before = self.engine().handle().metrics();
        self.engine = None;
        self.others.borrow_mut().clear();
        let mut load = self.load.borrow_mut();
        (load.shuts_down_at, load.ends_at_once_at) = (None, None);
        drop(load);
        lock(&self.oracle).restart();
        self.network.borrow_mut().restart();
        self.start();
        let metrics = self.engine().handle().metrics();
        for (now, then) in [
            (metrics.streams_opened, before.streams_opened),
            (metrics.connections_accepted, before.connections_accepted),
            (metrics.events_published, before.events_published),
            (metrics.deliveries, before.deliveries),
            (metrics.bytes_written, before.bytes_written),
        ] {
            assert!(now >= then, "a counter falls");
        }
        assert_eq!((metrics.clients, metrics.connections), (0, 0));
    }

    fn engine(&mut self) -> &mut SimulatedEngine<Seam> {
        self.engine.as_mut().expect("an engine runs")
    }

    fn turn(&mut self) {
        if self.engine().is_over() {
            turn_all(&self.others);
        } else {
            self.engine().turn().unwrap();
        }
        if self.engine().is_over() {
            self.network.borrow_mut().retire(0);
        }
        self.check_holdings();
        self.check_budgets();
        let oracle = lock(&self.oracle);
        if let Some(first) = oracle.failures.first() {
            if self.is_reported {
                for failure in &oracle.failures {
                    println!("{failure}");
                }
            }
            // The engine calls the oracle while it is dropped.
            let first = first.clone();
            drop(oracle);
            panic!("{first}");
        }
    }

    /// Checks that no loop has done more in its last turn than it may.
    fn check_budgets(&mut self) {
        budgets::check(self.engine().spent(), &self.budgets);
        for other in self.others.borrow().iter() {
            budgets::check(other.spent(), &self.budgets);
        }
    }

    /// Checks that everything the engine holds is bounded by the open connections.
    fn check_holdings(&mut self) {
        let open = self.network.borrow().open();
        let [
            connections,
            feeds,
            cursors,
            readers,
            timers,
            counted,
            networks,
            overflow,
        ] = self.holdings();
        assert_eq!(connections, open, "connections, and open sockets");
        for (what, count) in [
            ("counted connections", counted),
            ("addresses", networks),
            ("overflow", overflow),
            ("feeds", feeds),
            ("cursors", cursors),
            ("readers", readers),
            ("timers", timers),
        ] {
            assert!(
                count <= open,
                "{count} {what} for {open} connections are too many"
            );
        }
    }

    /// Returns what all loops hold together, then the figures that they share.
    fn holdings(&mut self) -> [usize; 8] {
        let mut sums = self.engine().holdings();
        for other in self.others.borrow().iter() {
            let own = other.holdings();
            for (sum, own) in sums[..5].iter_mut().zip(own) {
                *sum += own;
            }
        }
        sums
    }

    fn is_over(&mut self) -> bool {
        let is_over = self.engine().is_over();
        is_over && self.others.borrow().iter().all(SimulatedEngine::is_over)
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Returns the simulated time without the jumps of the clock.
    fn lived_ms(&self) -> u64 {
        self.network.borrow().lived_ms()
    }

    fn turn_for(&mut self, time_ms: u64) {
        let end_ms = self.lived_ms() + time_ms;
        while self.lived_ms() < end_ms {
            self.turn();
        }
    }

    /// Ends all faults, and waits until each client has received everything.
    fn calm_down(&mut self) {
        let now = self.now();
        {
            let mut load = self.load.borrow_mut();
            load.is_calm = true;
            if let Some(journal) = &mut load.journal {
                journal.calm_down();
            }
            let mut network = self.network.borrow_mut();
            network.calm_down();
            for (index, client) in load.clients.iter_mut().enumerate() {
                client.calm_down(now);
                network.plan(0, Act::Client(index));
            }
            lock(&self.oracle).responders.clear();
        }
        self.turn_for(2_000);
        let patience_ms = 60_000;
        loop {
            let load = self.load.borrow();
            let mut oracle = lock(&self.oracle);
            // Late responders are dropped.
            oracle.responders.clear();
            if load.clients.iter().all(|client| client.is_content(&oracle)) {
                break;
            }
            assert!(self.now() < now + patience_ms, "some clients wait for ever");
            drop((load, oracle));
            self.turn();
        }
        let mut oracle = lock(&self.oracle);
        for client in &self.load.borrow().clients {
            if let Some(stream) = client.stream().filter(|_| client.is_content(&oracle)) {
                oracle.check_table(stream);
            }
        }
    }

    /// Ends all connections: the clients leave, the channels close or the engine shuts down.
    fn end(&mut self, rng: &mut Rng) {
        match rng.u32(0..3) {
            0 => {}
            1 => {
                let mut oracle = lock(&self.oracle);
                oracle.close_all();
                drop(oracle);
                self.turn_for(1_000);
            }
            _ => {
                let now = self.lived_ms();
                self.load.borrow_mut().shuts_down_at = Some(now);
                self.network.borrow_mut().plan(0, Act::Publisher);
                return self.turn_until_shut(now);
            }
        }
        for client in &mut self.load.borrow_mut().clients {
            client.go(&mut self.network.borrow_mut(), &mut lock(&self.oracle));
        }
        // The connections that are left have no stream, and are closed when they are
        // idle for too long. Late requests get no response, or one that ends at once.
        for _ in 0..25 {
            {
                let mut oracle = lock(&self.oracle);
                let sinks = oracle.streams.iter_mut().filter_map(|s| s.sink.as_mut());
                let handles: Vec<_> = sinks.filter_map(|sink| sink.handle.take()).collect();
                let responders = std::mem::take(&mut oracle.responders);
                drop(oracle);
                drop((handles, responders));
            }
            self.turn_for(1_000);
        }
    }

    fn turn_until_shut(&mut self, since: u64) {
        while !self.is_over() {
            let lived_ms = self.lived_ms();
            assert!(lived_ms < since + 10_000, "the shutdown does not end");
            self.turn();
        }
    }

    /// Lets the poller fail, which ends the engine. Another one can follow it.
    fn fail(mut self) -> Sums {
        self.network.borrow_mut().has_failed = true;
        lock(&self.oracle).has_failed = true;
        assert!(self.engine().turn().is_err());
        let mut others = self.others.take();
        assert!(others.iter_mut().all(|other| other.turn().is_err()));
        self.engine = None;
        drop(others);
        let mut oracle = lock(&self.oracle);
        oracle.check_failure();
        oracle.count("engines that fail");
        drop(oracle);
        self.network.borrow_mut().restart();
        self.start();
        sums(&self.network, &self.load, &self.oracle)
    }

    fn check_end(mut self) -> Sums {
        let holdings = self.holdings();
        let engine = self.engine();
        let (held, named) = (
            engine.channels_held(),
            engine.handle().channels().names().len(),
        );
        assert_eq!(held, named, "unreachable channels are left");
        assert_eq!(
            holdings, [0; 8],
            "connections, feeds, cursors, readers, timers; counts, overflow are left"
        );
        let mut oracle = lock(&self.oracle);
        oracle.check_end();
        drop(oracle);
        sums(&self.network, &self.load, &self.oracle)
    }
}

/// Returns the figures of a run, if the oracle found nothing wrong.
fn sums(network: &RefCell<Network>, load: &RefCell<Load>, oracle: &Shared) -> Sums {
    let oracle = lock(oracle);
    if let Some(first) = oracle.failures.first().cloned() {
        drop(oracle);
        panic!("{first}");
    }
    let (network, load) = (network.borrow(), load.borrow());
    Sums {
        seeds: 1,
        simulated_ms: network.lived_ms(),
        turns: network.turns,
        digest: load.clients.iter().fold(network.turns, |all, client| {
            all.rotate_left(7) ^ client.digest
        }),
        faults: network.injected.clone(),
        figures: oracle.figures.clone(),
    }
}
