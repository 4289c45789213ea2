//! Everything that acts while the engine polls: clients, publishers and managers.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use pushwheel::EngineHandle;

use super::client::Client;
use super::journal::Journal;
use super::network::{Act, Actors, Network};
use super::oracle::{Finishes, Keys, Oracle, To};
use super::{Shared, lock};

/// Everything that acts while the engine polls.
pub struct Load {
    pub network: Rc<RefCell<Network>>,
    pub oracle: Shared,
    pub clients: Vec<Client>,
    pub handle: Option<EngineHandle>,
    pub rng: Rng,
    /// How long publishers pause, at the most.
    pub pause_ms_max: u64,
    pub checked_at: u64,
    pub shuts_down_at: Option<u64>,
    /// A shutdown is to end at once.
    pub ends_at_once_at: Option<u64>,
    pub is_calm: bool,
    pub journal: Option<Journal>,
}

impl Actors for Load {
    fn lose(&mut self, client: usize, socket: usize) {
        let now = self.network.borrow().now();
        self.clients[client].lose(socket, &mut lock(&self.oracle), now);
    }

    fn act(&mut self, actor: Act) -> bool {
        let mut oracle = lock(&self.oracle);
        match actor {
            Act::Client(index) => {
                let mut network = self.network.borrow_mut();
                self.clients[index].act(&mut network, &mut oracle, &mut self.rng);
                false
            }
            Act::Publisher => {
                drop(oracle);
                self.publish()
            }
            Act::Journal => {
                drop(oracle);
                let journal = self.journal.as_mut().expect("there is one");
                let pause_ms = journal.pause_ms();
                self.network.borrow_mut().plan(pause_ms, Act::Journal);
                journal.act(&self.oracle)
            }
            Act::Timeouts => {
                drop(oracle);
                let journal = self.journal.as_mut().expect("there is one");
                let pause_ms = journal.timeout_ms() / 4;
                self.network.borrow_mut().plan(pause_ms, Act::Timeouts);
                journal.expire(&self.oracle);
                false
            }
            Act::Step(..) | Act::Happening(_) => unreachable!("there is no cluster"),
            Act::Jump(by_ms) => {
                let mut network = self.network.borrow_mut();
                network.jump(by_ms);
                oracle.jumped_at = network.jumped_at();
                false
            }
        }
    }

    fn before_sleep(&mut self) {
        let network = self.network.borrow();
        let now = network.now();
        let mut oracle = lock(&self.oracle);
        oracle.check_the_sent_away();
        if now < self.checked_at + 20 {
            return;
        }
        self.checked_at = now;
        for client in &self.clients {
            if let (Some(socket), Some(stream)) = (client.socket(), client.stream()) {
                oracle.streams[stream].is_blocked = network.is_blocked(socket);
            }
        }
        oracle.check_counts();
        for client in &self.clients {
            if let Err(wrong) = client.check(&network, &oracle) {
                let socket = client.socket().map(|socket| network.describe(socket));
                let what = format!("at {now} ms: {wrong}; {socket:?}");
                oracle.failures.push(what);
            }
        }
        oracle.check_logs();
    }
}

impl Load {
    /// What publishers and managers do. Says whether that is work for the
    /// engine.
    fn publish(&mut self) -> bool {
        let mut oracle = lock(&self.oracle);
        let rng = &mut self.rng;
        let now = oracle.now();
        if let Some(at) = self.shuts_down_at
            && self.network.borrow().lived_ms() >= at
            && oracle.shutdown.is_none()
        {
            let mut deadline_ms = rng.u64(0..4_000);
            if oracle.endings.closes_last {
                oracle.close_all();
                deadline_ms = 0;
            }
            oracle.shutdown = Some((oracle.sequence, now + deadline_ms));
            let handle = self.handle.as_ref().expect("the engine runs");
            let (shutdown, cut_ms) = oracle.endings.draw_shutdown(deadline_ms);
            handle.shutdown(shutdown);
            if let Some(cut_ms) = cut_ms {
                self.ends_at_once_at = Some(now + cut_ms);
                self.network.borrow_mut().plan(cut_ms, Act::Publisher);
            }
            if !self.is_calm {
                self.network.borrow_mut().plan(0, Act::Publisher);
            }
            return true;
        }
        if self.ends_at_once_at.is_some_and(|at| now >= at) {
            self.ends_at_once_at = None;
            if let Some((_, deadline)) = &mut oracle.shutdown {
                *deadline = now.min(*deadline);
            }
            let handle = self.handle.as_ref().expect("the engine runs");
            handle.shutdown(Duration::ZERO);
            return true;
        }
        if self.is_calm {
            return false;
        }
        let pause_ms = match rng.u32(0..5) {
            0 => 0,
            1 => rng.u64(0..=self.pause_ms_max * 3),
            _ => rng.u64(0..=self.pause_ms_max),
        };
        self.network.borrow_mut().plan(pause_ms, Act::Publisher);
        let names: Vec<String> = oracle.plans.keys().cloned().collect();
        let name = &names[rng.usize(0..names.len())];
        let topic = oracle.open(name);
        let members: Vec<String> = oracle.topics[topic].members.keys().cloned().collect();
        let member = match members.len() {
            0 => "absent".to_owned(),
            count => members[rng.usize(0..count)].clone(),
        };
        if oracle.finishes.as_mut().is_some_and(Finishes::happens) {
            return oracle.finish(topic);
        }
        if oracle.keys.as_mut().is_some_and(Keys::happens) {
            return oracle.publish_with_key();
        }
        match rng.u32(0..1000) {
            0..350 => oracle.publish(topic, To::All, 1),
            350..450 => {
                let mut is_work = false;
                for _ in 0..rng.u32(2..30) {
                    is_work |= oracle.publish(topic, To::All, 1);
                }
                is_work
            }
            450..500 => oracle.publish(topic, To::All, rng.usize(2..12)),
            500..600 => oracle.publish(topic, To::One(member), 1),
            600..620 => oracle.publish(topic, To::One(member), rng.usize(2..5)),
            620..650 => oracle.publish(topic, To::One(format!("client-{}", rng.u8(0..20))), 1),
            650..710 => oracle.publish(topic, To::Role(rng.u8(0..4)), 1),
            710..720 => oracle.publish(topic, To::Role(rng.u8(0..4)), 3),
            720..770 => oracle.publish(topic, To::Filter(rng.u8(0..4)), 1),
            770..790 => oracle.publish_everywhere(),
            790..793 => oracle.finish(topic),
            793..796 => oracle.close(topic),
            796..816 => oracle.kick(topic, &member),
            816..850 => Self::answer(&mut oracle, rng),
            850..990 => Self::use_sinks(&mut oracle, rng),
            _ => {
                let stats = oracle.topics[topic].channel.stats();
                assert!(stats.is_some() || oracle.topics[topic].channel.is_closed());
                false
            }
        }
    }

    /// Answers a request that waits.
    fn answer(oracle: &mut Oracle, rng: &mut Rng) -> bool {
        if oracle.responders.is_empty() {
            return false;
        }
        let index = rng.usize(0..oracle.responders.len());
        let (responder, subscription) = oracle.responders.swap_remove(index);
        match rng.u32(0..10) {
            0 => drop(responder),
            _ => responder.respond(subscription),
        }
        // The response wakes the loop even if the client has gone.
        true
    }

    fn use_sinks(oracle: &mut Oracle, rng: &mut Rng) -> bool {
        let open: Vec<usize> = (0..oracle.streams.len())
            .filter(|number| {
                let sink = &oracle.streams[*number].sink;
                sink.as_ref().is_some_and(|sink| sink.handle.is_some())
            })
            .collect();
        if open.is_empty() {
            return false;
        }
        let number = open[rng.usize(0..open.len())];
        let mut is_work = false;
        for _ in 0..rng.u32(1..6) {
            is_work |= oracle.feed(number);
        }
        if rng.u32(0..15) == 0 {
            let sink = oracle.streams[number].sink.as_mut().expect("it was found");
            let handle = sink.handle.take().expect("it is open");
            is_work |= !handle.is_closed();
            handle.close();
        }
        is_work
    }
}
