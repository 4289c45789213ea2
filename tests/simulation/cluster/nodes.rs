//! The processes that are nodes: each joins, takes the steps of its parts, and ends at any
//! moment.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fastrand::Rng;
use pushwheel::cluster::{BrokerError, ClusterOptions};
use pushwheel::internals::{Clock, NextStep, SteppedJoining, SteppedNode};
use pushwheel::{
    ChannelManager, ChannelOptions, Engine, EngineBuilder, Event, History, Request, Response,
    Subscription, Target,
};

use super::broker::{Broker, SharedBroker, SimulatedLog};
use super::draw::Plan;
use super::judge::{self, Shared};
use super::{channel, own_id};
use crate::network::Part;

/// Events of a channel that are kept: more than a run has.
const EVENTS_MAX: usize = 100_000;

/// What a process is.
enum Process {
    None,
    Joins(Box<SteppedJoining>),
    Joined(ChannelManager, Box<SteppedNode>),
}

/// A place for processes, one after another.
pub struct Node {
    pub number: usize,
    /// The number of the process among all of the run.
    process: usize,
    is: Process,
    /// Why it has not joined.
    why: Option<BrokerError>,
    /// What was last reported of it.
    reported: String,
}

impl Node {
    pub fn new(number: usize) -> Node {
        Node {
            number,
            process: 0,
            is: Process::None,
            why: None,
            reported: String::new(),
        }
    }

    /// A process begins.
    pub fn begin(
        &mut self,
        process: usize,
        (clock, seed): (&Arc<AtomicU64>, u64),
        (plan, may_begin): (&Plan, bool),
        broker: &SharedBroker,
    ) {
        let history = History::events(EVENTS_MAX)
            .bytes_max(usize::MAX)
            .age_max(Duration::MAX);
        let options = ChannelOptions::new()
            .history(history)
            .backlog_bytes_max(usize::MAX)
            .heartbeat(Duration::from_millis(plan.heartbeat_ms));
        let builder = ChannelManager::builder()
            .options_by_name(move |_| options.clone())
            .empty_after(None);
        let ms = Duration::from_millis;
        let options = ClusterOptions::new(format!("n{}", self.number))
            .publish_timeout(ms(plan.timeout_ms))
            .snapshot_every(ms(plan.snapshot_ms))
            .retention(ms(plan.retention_ms));
        let log = SimulatedLog {
            broker: broker.clone(),
            node: self.number,
            process,
        };
        let clock = Clock::manual_with_wall(clock.clone(), clock.clone());
        let joining = builder.begin_joining_stepped((clock, seed), Box::new(log), options);
        let joining = match may_begin {
            true => joining.at_once(),
            false => joining,
        };
        self.process = process;
        self.why = None;
        self.is = Process::Joins(Box::new(joining));
    }

    /// The process ends. What is returned is to be dropped.
    pub fn end(&mut self) -> impl Sized + use<> {
        std::mem::replace(&mut self.is, Process::None)
    }

    pub fn is_running(&self) -> bool {
        !matches!(self.is, Process::None)
    }

    pub fn has_joined(&self) -> bool {
        matches!(self.is, Process::Joined(..))
    }

    pub fn manager(&self) -> Option<&ChannelManager> {
        match &self.is {
            Process::Joined(manager, _) => Some(manager),
            _ => None,
        }
    }

    /// The number of the process that runs.
    pub fn process(&self) -> Option<usize> {
        self.is_running().then_some(self.process)
    }

    /// A part takes a step. Returns when the next one is due, in milliseconds.
    pub fn step(&mut self, part: Part, now: u64, idle_ms: u64) -> u64 {
        match &mut self.is {
            Process::None => idle_ms,
            Process::Joins(joining) => {
                // One thread joins.
                if part != Part::Reader {
                    return idle_ms.max(20);
                }
                match joining.step() {
                    Ok(Some((manager, node))) => {
                        self.is = Process::Joined(manager, Box::new(node));
                    }
                    Ok(None) => {}
                    Err(error) => self.why = Some(error),
                }
                idle_ms.max(20)
            }
            Process::Joined(_, node) => {
                let next = match part {
                    Part::Writer => node.step_writer(),
                    Part::Reader => node.step_reader(),
                    Part::Keeper => node.step_keeper(),
                    Part::Pulse => node.step_pulse(),
                };
                match next {
                    NextStep::Again => 0,
                    NextStep::At(at) => match part {
                        // News wakes the one, and the other reads all the time.
                        Part::Writer | Part::Reader => idle_ms,
                        Part::Keeper | Part::Pulse => at.saturating_sub(now).max(1),
                    },
                    NextStep::Ended => 1_000,
                }
            }
        }
    }

    /// Prints what has changed.
    pub fn report(&mut self, now: u64) {
        let state = match &self.is {
            Process::None => "gone".to_owned(),
            Process::Joins(_) => "joins".to_owned(),
            Process::Joined(manager, _) => {
                let status = manager.cluster_status().expect("it is a node");
                format!(
                    "terms {} lost {} resyncs {} keeper {} connected {} stopped {:?}",
                    status.terms,
                    status.lost,
                    status.resyncs,
                    status.is_keeper,
                    status.is_connected,
                    status.stopped
                )
            }
        };
        if state != self.reported {
            println!("{now} ms: node {} ({}) {state}", self.number, self.process);
            self.reported = state;
        }
    }

    /// Publishes events to a channel, or to all. `events` is their number, and whether they
    /// have own ids.
    pub fn publish(&self, to: Option<usize>, events: (usize, bool), now: u64, judge: &Shared) {
        if self.has_joined() {
            let at = (self.number, self.process, now);
            let number = judge::lock(judge).publish(to, events, at);
            self.propose(number, judge);
        }
    }

    /// Publishes what some publisher has published with own ids.
    pub fn publish_again(&self, now: u64, rng: &mut Rng, judge: &Shared) {
        if self.has_joined() {
            let at = (self.number, self.process, now);
            let number = judge::lock(judge).publish_again(rng, at);
            number.into_iter().for_each(|n| self.propose(n, judge));
        }
    }

    fn propose(&self, number: usize, judge: &Shared) {
        let Process::Joined(manager, _) = &self.is else {
            return;
        };
        let (to, data, has_own_ids) = judge::lock(judge).published(number);
        let judge = judge.clone();
        let then = move |answer| judge::lock(&judge).on_answer(number, answer);
        let event = |data: &'_ String| match has_own_ids {
            true => Event::message(data.clone()).with_id(own_id(data)),
            false => Event::message(data.clone()),
        };
        let events: Vec<Event<'_>> = data.iter().map(event).collect();
        match to {
            Some(number) => {
                let name = channel(number);
                let channel = manager.get_or_create(&name).expect("a good name");
                channel.publish_then(events, Target::All, then);
            }
            None => manager.publish_then(&events, Target::All, then),
        }
    }

    /// Returns why the process does not follow the log any more.
    pub fn stopped(&self) -> Option<String> {
        if let (Process::Joins(_), Some(BrokerError::Damaged { what })) = (&self.is, &self.why) {
            return Some(what.clone());
        }
        let status = self.manager()?.cluster_status()?;
        status.stopped
    }

    /// Returns what is not in order yet: it is to have what the log had up to a number, and
    /// nothing else. A process that stands still does not know that.
    pub fn pending(&self, broker: &Broker, through: u64) -> Option<String> {
        let Process::Joined(manager, _) = &self.is else {
            return Some(format!("it has not joined: {:?}", self.why));
        };
        let status = manager.cluster_status().expect("it is a node");
        if !status.is_connected {
            return Some(format!("it is cut off: {:?}", status.error));
        }
        let applied = status.applied;
        let follows = applied >= through && (applied == 0 || broker.has(applied));
        (!follows).then(|| format!("it has applied {applied}, of a log that had {through}"))
    }
}

/// Returns an engine for the clients of a node.
pub fn engine(manager: &ChannelManager, plan: &Plan) -> EngineBuilder {
    let channels = manager.clone();
    let subscribe = move |request: &Request| {
        let names = request.query_pairs();
        let names = names.filter(|(name, _)| name == "channel");
        let mut all = names.map(|(_, name)| channels.get_or_create(&name).expect("a good name"));
        let first = all.next().expect("a request names its channels");
        let subscription = all.fold(Subscription::new(&first), |all, one| all.and(&one));
        Response::from(subscription)
    };
    Engine::builder()
        .channels(manager)
        .stall_timeout(Duration::from_millis(plan.stall_ms))
        .get("/events", subscribe)
}
