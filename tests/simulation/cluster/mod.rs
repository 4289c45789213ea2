//! Clusters: nodes that share a log, on the simulated network and a simulated broker.
//!
//! They have seeds of their own, from [`FIRST_SEED`] on, so that the seeds of a single engine
//! stay what they are.
//!
//! ```text
//!  publishers ─► nodes (engine, and the parts of a node) ◄─► broker: servers, one of them in use
//!                  ▲                                            │
//!                  │ streams                                    │ what it has in the end
//!               clients ──────── what they have read ──────► judge
//! ```
//!
//! | file | has |
//! | --- | --- |
//! | `draw` | what a seed draws |
//! | `broker` | servers, and the ways to them |
//! | `nodes` | processes, and the steps of their parts |
//! | `client` | browsers that come back to any node |
//! | `judge` | what must hold |

mod broker;
mod client;
mod draw;
mod judge;
mod nodes;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use pushwheel::internals::SimulatedEngine;

use crate::network::{Act, Actors, Network, Part, Seam};
use crate::oracle::SLACK_MS;
use crate::sums::Sums;
use broker::{Broker, SharedBroker};
use client::{Begins, Behavior, Client};
use draw::{Happening, Plan};
use judge::{Judge, Shared};
use nodes::Node;

/// The first seed of a cluster. Its own seeds are counted from it.
pub const FIRST_SEED: u64 = 1_000_000_000_000_000_000;

/// From this one on, counted so, every other seed has events with own ids.
pub const OWN_IDS_FROM: u64 = 1_000_000;

/// How long it takes at most until everything is in order again: the longest pause before a
/// node goes on without the past, the pauses between attempts, and a history through a socket
/// that takes 64 bytes at a time.
const HEALS_MS: u64 = 600_000;

/// Steps in a millisecond after which a part is said to spin.
const STEPS_A_MS: usize = 5_000;

/// The name of a channel.
fn channel(number: usize) -> String {
    format!("c{number}")
}

/// The own id of an event, which is known by its data.
fn own_id(data: &str) -> String {
    format!("{OWN}{data}")
}

/// How own ids begin.
const OWN: &str = "own.";

/// The number of an id.
fn number_of(id: &str) -> Option<u64> {
    id.rsplit_once('-')?.1.parse().ok()
}

/// Runs one seed to its end.
pub fn run(seed: u64, is_reported: bool) -> Sums {
    let mut world = World::new(seed, is_reported);
    let end_ms = world.plan.duration_ms;
    while world.now() < end_ms {
        world.turn();
    }
    world.check_joined();
    world.calm_down();
    world.compare();
    world.end()
}

type Engines = Vec<Option<SimulatedEngine<Seam>>>;

/// Everything that acts while an engine polls.
struct Load {
    network: Rc<RefCell<Network>>,
    broker: SharedBroker,
    judge: Shared,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    rng: Rng,
    plan: Plan,
    /// What waits for the end of a turn: a process cannot end within it.
    due: Vec<Happening>,
    is_calm: bool,
    checked_at: u64,
    /// When a part has last taken a step, and how many have since the clock moved.
    stepped_at: u64,
    steps: usize,
    is_reported: bool,
}

struct World {
    seed: u64,
    is_reported: bool,
    plan: Plan,
    clock: Arc<AtomicU64>,
    network: Rc<RefCell<Network>>,
    load: Rc<RefCell<Load>>,
    broker: SharedBroker,
    judge: Shared,
    engines: Engines,
    processes: u64,
    /// The newest number of the log when all faults ended.
    calm_from: u64,
}

impl Actors for Load {
    fn act(&mut self, actor: Act) -> bool {
        broker::lock(&self.broker).carry_out_late();
        match actor {
            Act::Client(number) => {
                let mut network = self.network.borrow_mut();
                let mut judge = judge::lock(&self.judge);
                self.clients[number].act(&mut network, &mut judge, &mut self.rng);
            }
            Act::Step(node, part) => self.step(node, part),
            Act::Publisher => self.publish(),
            Act::Happening(number) => {
                // The end of a stand-still has no happening of its own.
                let drawn = self.plan.happenings.get(number);
                let drawn = drawn.filter(|_| !self.is_calm).cloned();
                let Some((at_ms, happening)) = drawn else {
                    return false;
                };
                if self.is_reported {
                    println!("{at_ms} ms: {happening:?}");
                }
                match happening {
                    Happening::Cut(node, for_ms) => {
                        broker::lock(&self.broker).cut(node, for_ms);
                    }
                    Happening::FailOver(lacks, for_ms) => {
                        broker::lock(&self.broker).fail_over(lacks, for_ms);
                    }
                    other => self.due.push(other),
                }
            }
            Act::Journal | Act::Timeouts | Act::Jump(_) => unreachable!("no seed draws it"),
        }
        false
    }

    // All engines rarely sleep at once: the world checks after each turn.
    fn before_sleep(&mut self) {}
}

impl Load {
    /// Checks now and then that nothing waits for too long.
    fn check(&mut self) {
        let network = self.network.borrow();
        let now = network.now();
        if now < self.checked_at + 50 {
            return;
        }
        if self.is_reported && now / 1_000 > self.checked_at / 1_000 {
            println!("{now} ms: {} turns, {:?}", network.turns, self.plan.nodes);
        }
        self.checked_at = now;
        let mut judge = judge::lock(&self.judge);
        judge.check_waiting(now, |node| network.frozen_until(node % self.plan.nodes));
        for client in &self.clients {
            client.check(&network, &mut judge);
        }
        for node in &self.nodes {
            let Some(why) = node.stopped() else {
                continue;
            };
            // An operator starts it again.
            match broker::lock(&self.broker).has_forgotten {
                true => self.due.push(Happening::Kill(node.number)),
                false => judge.fail(format!("node {} stops: {why}", node.number)),
            }
        }
    }

    /// A part of a node takes a step, and the next one when its calls are over.
    fn step(&mut self, number: usize, part: Part) {
        let network = self.network.clone();
        let now = network.borrow().now();
        let frozen_until = network.borrow().frozen_until(number);
        let node = &mut self.nodes[number];
        if !node.is_running() {
            return;
        }
        let pause_ms = match frozen_until.checked_sub(now).filter(|ms| *ms > 0) {
            Some(ms) => ms,
            None => {
                let idle_ms = match self.is_calm {
                    true => 5,
                    false => self.rng.u64(1..=self.plan.idle_ms_max),
                };
                let pause_ms = node.step(part, now, idle_ms);
                self.steps = match self.stepped_at == now {
                    true => self.steps + 1,
                    false => 0,
                };
                self.stepped_at = now;
                assert!(self.steps < STEPS_A_MS, "node {number} spins: its {part:?}");
                if self.is_reported {
                    node.report(now);
                }
                pause_ms + broker::lock(&self.broker).take_time()
            }
        };
        network.borrow_mut().plan(pause_ms, Act::Step(number, part));
    }

    /// What publishers do.
    fn publish(&mut self) {
        if self.is_calm {
            return;
        }
        let rng = &mut self.rng;
        let pause_ms = match rng.u32(0..6) {
            0 => 0,
            1 => rng.u64(0..=self.plan.pause_ms_max * 4),
            _ => rng.u64(0..=self.plan.pause_ms_max),
        };
        let now = self.network.borrow().now();
        self.network.borrow_mut().plan(pause_ms, Act::Publisher);
        let number = rng.usize(0..self.plan.nodes);
        let is_frozen = self.network.borrow().frozen_until(number) > now;
        if self.plan.own_ids > 0 && rng.u32(0..1_000) < self.plan.again {
            if !is_frozen {
                self.nodes[number].publish_again(now, rng, &self.judge);
            }
            return;
        }
        let channel = match rng.u32(0..1_000) {
            draw if draw < self.plan.for_all => None,
            _ => Some(rng.usize(0..self.plan.channels)),
        };
        let has_own_ids = self.plan.own_ids > 0 && rng.u32(0..1_000) < self.plan.own_ids;
        let events = if rng.u32(0..5) == 0 {
            rng.usize(2..5)
        } else {
            1
        };
        if !is_frozen {
            let events = (events, has_own_ids);
            self.nodes[number].publish(channel, events, now, &self.judge);
        }
    }
}

impl World {
    fn new(seed: u64, is_reported: bool) -> World {
        let number = seed - FIRST_SEED;
        let mut rng = Rng::with_seed(number);
        let mut plan = Plan::draw(&mut rng);
        if number >= OWN_IDS_FROM && !number.is_multiple_of(2) {
            plan = plan.with_own_ids(&mut rng);
        }
        if is_reported {
            println!("{plan:?}");
        }
        let clock = Arc::new(AtomicU64::new(0));
        let faults = plan.broker.clone();
        let broker = Broker::new(rng.fork(), clock.clone(), plan.nodes, faults);
        let faults = plan.network.clone();
        let network = Network::new(rng.fork(), clock.clone(), plan.nodes, faults);
        let network = Rc::new(RefCell::new(network));
        let judge = Judge::new(plan.timeout_ms, broker.clone());
        let mut clients = Vec::new();
        for number in 0..plan.clients {
            clients.push(draw::client(&mut rng, number, &plan));
            judge::lock(&judge).add_reader(clients[number].channels().to_vec(), false);
            let mut network = network.borrow_mut();
            network.plan(rng.u64(0..2_000), Act::Client(number));
        }
        for (number, (at_ms, _)) in plan.happenings.iter().enumerate() {
            network.borrow_mut().plan(*at_ms, Act::Happening(number));
        }
        network.borrow_mut().plan(0, Act::Publisher);
        let load = Rc::new(RefCell::new(Load {
            network: network.clone(),
            broker: broker.clone(),
            judge: judge.clone(),
            nodes: Vec::new(),
            clients,
            rng: rng.fork(),
            plan: plan.clone(),
            due: Vec::new(),
            is_calm: false,
            checked_at: 0,
            stepped_at: 0,
            steps: 0,
            is_reported,
        }));
        let engines = (0..plan.nodes).map(|_| None).collect();
        let mut world = World {
            seed,
            is_reported,
            plan,
            clock,
            network,
            load,
            broker,
            judge,
            engines,
            processes: 0,
            calm_from: 0,
        };
        for number in 0..world.plan.nodes {
            world.network.borrow_mut().end_process(number);
            world.load.borrow_mut().nodes.push(Node::new(number));
            world.begin(number);
        }
        world
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// A process begins that is to be a node.
    fn begin(&mut self, number: usize) {
        self.processes += 1;
        let process = self.processes;
        if self.is_reported {
            println!(
                "{} ms: process {process} begins as node {number}",
                self.now()
            );
        }
        let mut load = self.load.borrow_mut();
        let seed = load.rng.u64(..);
        // Where a process remembers the log, it is given the time to say so.
        let remembers = load.nodes.iter().any(Node::has_joined);
        let node = &mut load.nodes[number];
        let plan = (&self.plan, !remembers);
        node.begin(process as usize, (&self.clock, seed), plan, &self.broker);
        self.judge_lock().on_begin(number, process as usize);
        drop(load);
        let mut network = self.network.borrow_mut();
        for part in [Part::Writer, Part::Reader, Part::Keeper, Part::Pulse] {
            network.plan(0, Act::Step(number, part));
        }
    }

    /// A process ends, at once.
    fn kill(&mut self, number: usize) {
        self.judge_lock().count("processes that are killed");
        self.network.borrow_mut().end_process(number);
        self.engines[number] = None;
        let ended = self.load.borrow_mut().nodes[number].end();
        drop(ended);
        self.judge_lock().on_death(number);
    }

    fn judge_lock(&self) -> std::sync::MutexGuard<'_, Judge> {
        judge::lock(&self.judge)
    }

    fn turn(&mut self) {
        let now = self.now();
        let mut has_turned = false;
        for (side, engine) in self.engines.iter_mut().enumerate() {
            let is_frozen = self.network.borrow().frozen_until(side) > now;
            if let Some(engine) = engine.as_mut().filter(|_| !is_frozen) {
                engine.turn().unwrap();
                has_turned = true;
            }
        }
        if !has_turned {
            self.seam(0).idle();
        }
        self.begin_engines();
        self.load.borrow_mut().check();
        let due = std::mem::take(&mut self.load.borrow_mut().due);
        for happening in due {
            self.happen(happening);
        }
        let judge = self.judge_lock();
        if let Some(first) = judge.failures.first() {
            if self.is_reported {
                judge
                    .failures
                    .iter()
                    .for_each(|failure| println!("{failure}"));
            }
            let first = first.clone();
            drop(judge);
            panic!("{first}");
        }
    }

    fn seam(&self, side: usize) -> Seam {
        Seam {
            network: self.network.clone(),
            actors: self.load.clone(),
            side,
            turn_others: None,
        }
    }

    /// Nodes that have joined begin to listen.
    fn begin_engines(&mut self) {
        for number in 0..self.plan.nodes {
            if self.engines[number].is_some() {
                continue;
            }
            let load = self.load.borrow();
            let Some(manager) = load.nodes[number].manager().cloned() else {
                continue;
            };
            drop(load);
            self.network.borrow_mut().begin_process(number);
            let waker = self.network.borrow().waker(number);
            let engine = nodes::engine(&manager, &self.plan);
            let engines = engine.simulate(vec![(self.seam(number), waker)]);
            let mut engines = engines.expect("no other engine serves the channels");
            self.engines[number] = engines.pop();
        }
    }

    fn happen(&mut self, happening: Happening) {
        let joined = |world: &World| {
            let load = world.load.borrow();
            load.nodes.iter().filter(|node| node.has_joined()).count()
        };
        match happening {
            Happening::Kill(number) => {
                if !self.load.borrow().nodes[number].is_running() {
                    return;
                }
                self.kill(number);
                self.begin(number);
            }
            Happening::Freeze(number, for_ms) => {
                self.judge_lock().count("processes that stand still");
                let until = self.network.borrow().frozen_until(number);
                let for_ms = for_ms.max(until.saturating_sub(self.now()));
                self.network.borrow_mut().freeze(number, for_ms);
                self.network
                    .borrow_mut()
                    .plan(for_ms, Act::Happening(usize::MAX));
            }
            // One process has to be there that remembers.
            Happening::Flush if joined(self) > 0 => broker::lock(&self.broker).flush(),
            Happening::Flush => {}
            Happening::Cut(..) | Happening::FailOver(..) => unreachable!("it needs no process"),
        }
    }

    /// Ends all faults, and waits until everything is in order.
    fn calm_down(&mut self) {
        {
            let mut load = self.load.borrow_mut();
            load.is_calm = true;
            let mut broker = broker::lock(&self.broker);
            broker.calm_down();
            self.calm_from = broker.newest();
            drop(broker);
            let mut network = self.network.borrow_mut();
            network.calm_down();
            for (number, client) in load.clients.iter_mut().enumerate() {
                client.calm_down();
                network.plan(0, Act::Client(number));
            }
        }
        self.wait_for_order();
    }

    /// Checks that all nodes have joined, where nothing went wrong.
    fn check_joined(&self) {
        let load = self.load.borrow();
        let is_late = |node: &&Node| !node.has_joined();
        if let Some(late) = load
            .nodes
            .iter()
            .find(is_late)
            .filter(|_| self.plan.is_calm)
        {
            panic!("node {} has not joined", late.number);
        }
    }

    fn turn_for(&mut self, time_ms: u64) {
        let end_ms = self.now() + time_ms;
        while self.now() < end_ms {
            self.turn();
        }
    }

    /// Waits until all nodes and clients have everything.
    fn wait_for_order(&mut self) {
        let due = self.now() + HEALS_MS;
        loop {
            self.turn_for(500);
            let pending = self.pending();
            let Some(pending) = pending else {
                return;
            };
            assert!(self.now() < due, "{pending}");
        }
    }

    /// Returns what is not in order yet.
    fn pending(&self) -> Option<String> {
        let load = self.load.borrow();
        let broker = broker::lock(&self.broker);
        for node in &load.nodes {
            if let Some(pending) = node.pending(&broker, self.calm_from) {
                return Some(format!("node {}: {pending}", node.number));
            }
        }
        let waits = |client: &&Client| !client.is_streaming();
        if let Some(client) = load.clients.iter().find(waits) {
            return Some(format!("client {} has no stream", client.number()));
        }
        let alive: Vec<usize> = load.nodes.iter().filter_map(Node::process).collect();
        let judged = judge::lock(&self.judge).judge(&broker, &alive);
        judged.unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// Compares the logs of all nodes with that of the broker.
    fn compare(&mut self) {
        let now = self.now();
        let mut load = self.load.borrow_mut();
        for node in 0..self.plan.nodes {
            for channel in 0..self.plan.channels {
                let number = judge::lock(&self.judge).add_reader(vec![channel], true);
                let behavior = Behavior {
                    leaves: 0,
                    stalls: 0,
                    read_max: usize::MAX,
                    asks_for_positions: true,
                };
                let client = Client::new(number, vec![channel], Begins::Earliest, behavior);
                load.clients.push(client.of_node(node));
                self.network.borrow_mut().plan(now % 3, Act::Client(number));
            }
        }
        drop(load);
        self.wait_for_order();
    }

    /// All clients leave, and nothing is left of them.
    fn end(mut self) -> Sums {
        for client in &mut self.load.borrow_mut().clients {
            client.go(&mut self.network.borrow_mut());
        }
        self.turn_for(2 * SLACK_MS);
        for (number, engine) in self.engines.iter_mut().enumerate() {
            let engine = engine.as_mut().expect("all nodes are there");
            assert_eq!(engine.holdings(), [0; 8], "node {number} holds something");
            let clients = engine.handle().channels().total_clients();
            assert_eq!(clients, 0, "node {number} has clients");
            let status = engine.handle().channels().cluster_status();
            let status = status.expect("it is a node");
            assert_eq!(status.waiting_joins, 0, "requests wait at node {number}");
        }
        self.sums()
    }

    fn sums(&self) -> Sums {
        let (load, network) = (self.load.borrow(), self.network.borrow());
        let broker = broker::lock(&self.broker);
        let mut faults = network.injected.clone();
        for (what, count) in &broker.injected {
            *faults.entry(what).or_default() += count;
        }
        let mut figures = self.judge_lock().figures.clone();
        figures.insert("blocks", broker.all.len() as u64);
        let digest = load.clients.iter().fold(network.turns, |all, client| {
            all.rotate_left(7) ^ client.digest
        });
        Sums {
            seeds: 1,
            simulated_ms: network.now(),
            turns: network.turns,
            digest: digest ^ self.seed,
            faults,
            figures,
        }
    }
}
