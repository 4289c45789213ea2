//! Nodes over a broker in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::joins::{Awaited, Released};
use super::model::{Kept, Model};
use super::node::SteppedNode;
use super::shared::Next;
use crate::cluster::branches::is_lost;
use crate::cluster::{BrokerError, ClusterOptions, StoredSnapshot};
use crate::hub::clock::Clock;
use crate::hub::gap::GAP_NAME;
use crate::hub::manager::ChannelManagerBuilder;
use crate::hub::{Join, Start};
use crate::{
    ChannelManager, ChannelOptions, Event, GapReason, History, KeyedState, LagPolicy, PublishError,
    Published, Target,
};

/// 2026-11-30, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_796_000_000_000;

/// A broker, and the time.
struct World {
    model: Model,
    now_ms: Arc<AtomicU64>,
    nodes: Vec<Node>,
    seed: u64,
}

/// What publishers were answered, by what they had published.
type Outcomes = Arc<Mutex<BTreeMap<String, Result<Published, PublishError>>>>;

struct Node {
    manager: ChannelManager,
    steps: SteppedNode,
    outcomes: Outcomes,
}

fn options(name: &str) -> ChannelOptions {
    let history = History::events(1_000).age_max(Duration::MAX);
    let options = ChannelOptions::new().history(history);
    match name {
        "keyed" => options
            .lag_policy(LagPolicy::Conflate)
            .keyed_state(KeyedState::keys(100)),
        _ => options,
    }
}

fn builder() -> ChannelManagerBuilder {
    ChannelManager::builder()
        .options_by_name(options)
        .empty_after(None)
}

impl World {
    fn new() -> World {
        let wall_ms = Arc::new(AtomicU64::new(BEGIN_MS));
        World {
            model: Model::new(wall_ms),
            now_ms: Arc::default(),
            nodes: Vec::new(),
            seed: 0,
        }
    }

    fn of(nodes: usize) -> World {
        let mut world = World::new();
        for _ in 0..nodes {
            world.add().unwrap();
        }
        world
    }

    fn pass(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Relaxed);
        self.model.wall_ms.fetch_add(ms, Relaxed);
    }

    /// Has the first node write what it has and read the log, and no other one.
    fn follow_alone(&mut self) {
        for _ in 0..9 {
            self.nodes[0].steps.step_writer();
            self.nodes[0].steps.step_reader();
        }
    }

    /// Has a node join.
    fn add(&mut self) -> Result<usize, BrokerError> {
        // Where a node remembers the log, it is given the time to say so.
        let may_begin = self.nodes.is_empty();
        let (seed, log, options) = self.next_node();
        let joined = builder().join_cluster_stepped(seed, log, options, may_begin)?;
        Ok(self.push(joined))
    }

    /// Does the same, however long it waits for the log.
    fn add_patiently(&mut self) -> usize {
        let (seed, log, options) = self.next_node();
        let mut joining = builder().begin_joining_stepped(seed, log, options);
        for _ in 0..1_000 {
            if let Ok(Some(joined)) = joining.step() {
                return self.push(joined);
            }
            self.pass(100);
        }
        panic!("it does not join");
    }

    fn next_node(&mut self) -> ((Clock, u64), Box<Model>, ClusterOptions) {
        self.seed += 1;
        let clock = Clock::manual_with_wall(self.now_ms.clone(), self.model.wall_ms.clone());
        let options = ClusterOptions::new(format!("n{}", self.seed));
        ((clock, self.seed), Box::new(self.model.clone()), options)
    }

    fn push(&mut self, (manager, steps): (ChannelManager, SteppedNode)) -> usize {
        self.nodes.push(Node {
            manager,
            steps,
            outcomes: Outcomes::default(),
        });
        self.nodes.len() - 1
    }

    fn publish(&self, node: usize, channel: &str, data: &str) {
        let node = &self.nodes[node];
        let event = match channel {
            "keyed" => Event::message(data).with_key(data.split('-').next().unwrap()),
            _ => Event::message(data),
        };
        let channel = node.manager.get_or_create(channel).unwrap();
        let (outcomes, data) = (node.outcomes.clone(), data.to_owned());
        channel.publish_then([event], Target::All, move |outcome| {
            let before = outcomes.lock().unwrap().insert(data, outcome);
            assert!(before.is_none(), "a publish has two outcomes");
        });
    }

    /// Lets all nodes do what there is to do.
    fn settle(&mut self) {
        for _ in 0..200 {
            for node in &mut self.nodes {
                node.steps.step_pulse();
                for _ in 0..3 {
                    node.steps.step_writer();
                    node.steps.step_reader();
                }
                node.steps.step_keeper();
            }
            self.pass(100);
        }
    }

    fn outcome(&self, node: usize, data: &str) -> Option<Result<Published, PublishError>> {
        self.nodes[node].outcomes.lock().unwrap().get(data).cloned()
    }
}

/// Returns the numbers and frames of a channel.
fn entries(manager: &ChannelManager, name: &str) -> Vec<(u64, String)> {
    let state = manager.hub().lock();
    let channel = state.names.get(name).and_then(|key| state.get(*key));
    let Some(channel) = channel else {
        return Vec::new();
    };
    let entries = channel.log.after(0);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    entries
        .map(|entry| (entry.sequence, text(entry.frame.as_bytes())))
        .collect()
}

/// Returns the data of the events of a channel, `lost` for each loss.
fn story(manager: &ChannelManager, name: &str) -> Vec<String> {
    let entries = entries(manager, name).into_iter();
    entries
        .map(|(_, frame)| match frame.contains(GAP_NAME) {
            true => {
                assert!(frame.contains("\"reason\":\"lost\""), "{frame}");
                "lost".to_owned()
            }
            false => {
                let data = frame.lines().find_map(|line| line.strip_prefix("data: "));
                data.unwrap_or("?").to_owned()
            }
        })
        .collect()
}

#[test]
fn what_one_node_publishes_all_have_under_one_id() {
    let mut world = World::of(3);
    world.publish(0, "news", "a");
    world.settle();
    world.publish(2, "news", "b");
    world.settle();
    let first = entries(&world.nodes[0].manager, "news");
    assert_eq!(story(&world.nodes[0].manager, "news"), ["a", "b"]);
    for node in &world.nodes {
        assert_eq!(entries(&node.manager, "news"), first);
    }
    let published = world.outcome(2, "b").unwrap().unwrap();
    let id = published.id.unwrap().to_string();
    assert!(first[1].1.contains(&id), "{id} {first:?}");
    let status = world.nodes[1].manager.cluster_status().unwrap();
    assert!(status.is_connected && status.nodes.len() == 3, "{status:?}");
    let names: Vec<_> = status.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert_eq!(status.nodes.iter().filter(|node| node.is_this).count(), 1);
}

#[test]
fn a_block_whose_answer_or_request_is_lost_is_in_the_log_once() {
    let mut world = World::of(2);
    for (n, is_answer) in [(0, true), (1, false), (2, true)] {
        world.settle();
        {
            let faults = &mut world.model.broker().faults;
            (faults.loses_answer, faults.loses_request) = (is_answer, !is_answer);
        }
        world.publish(0, "news", &format!("{n}"));
        world.settle();
        assert!(world.outcome(0, &format!("{n}")).unwrap().is_ok());
    }
    for node in &world.nodes {
        assert_eq!(story(&node.manager, "news"), ["0", "1", "2"]);
    }
}

#[test]
fn what_the_broker_does_not_accept_in_time_is_refused_or_unconfirmed_and_it_heals() {
    let mut world = World::of(2);
    world.settle();
    world.model.broker().faults.is_down = true;
    world.publish(0, "news", "sent");
    world.nodes[0].steps.step_writer();
    world.publish(0, "news", "queued");
    world.settle();
    let unconfirmed = world.outcome(0, "sent").unwrap();
    assert_eq!(unconfirmed, Err(PublishError::Unconfirmed));
    let refused = world.outcome(0, "queued").unwrap().unwrap_err();
    assert!(
        matches!(refused, PublishError::Unavailable { .. }),
        "{refused}"
    );
    let status = world.nodes[0].manager.cluster_status().unwrap();
    assert!(!status.is_connected && status.error.is_some(), "{status:?}");
    assert!(status.disconnected_for.unwrap() > Duration::from_secs(3));
    world.model.broker().faults.is_down = false;
    world.settle();
    for node in &world.nodes {
        assert_eq!(story(&node.manager, "news"), ["sent"]);
        let status = node.manager.cluster_status().unwrap();
        assert!(status.is_connected && status.error.is_none(), "{status:?}");
    }
}

#[test]
fn a_broker_that_loses_events_says_so_once_in_the_channels_concerned() {
    let mut world = World::of(3);
    for name in ["news", "other", "keyed"] {
        world.publish(0, name, &format!("{name}-kept"));
    }
    world.settle();
    let kept: Kept = world.model.broker().kept.clone();
    world.publish(1, "news", "news-gone");
    world.publish(1, "keyed", "keyed-gone");
    for _ in 0..9 {
        // The third node is behind, and has none of it.
        for node in &mut world.nodes[..2] {
            node.steps.step_writer();
            node.steps.step_reader();
        }
    }
    let gone = entries(&world.nodes[0].manager, "news");
    assert_eq!(gone.len(), 2);
    assert_eq!(story(&world.nodes[2].manager, "news"), ["news-kept"]);
    world.model.fail_over(kept);
    world.settle();
    world.publish(2, "news", "news-later");
    world.settle();
    for node in &world.nodes {
        let manager = &node.manager;
        assert_eq!(story(manager, "news"), ["news-kept", "lost", "news-later"]);
        assert_eq!(story(manager, "keyed"), ["keyed-kept", "lost"]);
        assert_eq!(story(manager, "other"), ["other-kept"]);
        assert_eq!(
            entries(manager, "news"),
            entries(&world.nodes[2].manager, "news")
        );
    }
    let newest = entries(&world.nodes[0].manager, "news")[1].0;
    assert!(newest > gone[1].0, "a number is given twice");
    let status = world.nodes[0].manager.cluster_status().unwrap();
    assert!(status.lost > 0 && status.resyncs == 1, "{status:?}");
    assert_eq!(world.nodes[2].manager.cluster_status().unwrap().resyncs, 0);
}

#[test]
fn a_loss_that_is_said_in_a_term_that_is_lost_is_said_again() {
    let mut world = World::of(2);
    world.publish(0, "news", "kept");
    world.settle();
    let kept: Kept = world.model.broker().kept.clone();
    world.publish(0, "news", "gone");
    world.follow_alone();
    assert_eq!(story(&world.nodes[0].manager, "news"), ["kept", "gone"]);
    world.model.fail_over(kept.clone());
    // It says what is lost, and reads that, before its channels are replaced.
    let open_losses = |world: &World| {
        let hub = world.nodes[0].manager.hub();
        hub.cluster.get().unwrap().open_losses()
    };
    for expected in [1, 0] {
        while open_losses(&world) != expected {
            world.nodes[0].steps.step_pulse();
            world.nodes[0].steps.step_writer();
            world.nodes[0].steps.step_reader();
            world.pass(10);
        }
    }
    assert_eq!(story(&world.nodes[0].manager, "news"), ["kept", "gone"]);
    world.model.fail_over(kept.clone());
    world.settle();
    for node in &world.nodes {
        assert_eq!(story(&node.manager, "news"), ["kept", "lost"]);
    }
}

#[test]
fn a_loss_that_is_said_by_name_and_then_for_all_is_told_once_in_each_channel() {
    let mut world = World::of(3);
    for name in ["news", "other"] {
        world.publish(0, name, &format!("{name}-kept"));
    }
    world.settle();
    let kept: Kept = world.model.broker().kept.clone();
    let follow = |world: &mut World, nodes: std::ops::Range<usize>| {
        for _ in 0..40 {
            for node in &mut world.nodes[nodes.clone()] {
                node.steps.step_pulse();
                node.steps.step_writer();
                node.steps.step_reader();
            }
            world.pass(100);
        }
    };
    world.publish(0, "news", "news-gone");
    follow(&mut world, 0..2);
    // The first node has only the event of one channel, the second one also one for all.
    let everywhere = world.nodes[1].manager.clone();
    everywhere.publish_then(&[Event::message("all-gone")], Target::All, |_| ());
    follow(&mut world, 1..2);
    world.model.fail_over(kept);
    // The first node says what it knows to be lost before the second one does.
    follow(&mut world, 0..1);
    assert_eq!(
        story(&world.nodes[0].manager, "news"),
        ["news-kept", "lost"]
    );
    world.settle();
    let late = world.add().unwrap();
    for node in &world.nodes {
        let manager = &node.manager;
        assert_eq!(story(manager, "news"), ["news-kept", "lost"]);
        assert_eq!(story(manager, "other"), ["other-kept", "lost"]);
        // One that is made later begins with it.
        manager.get_or_create("later").unwrap();
        assert_eq!(story(manager, "later"), ["lost"]);
        assert_eq!(
            entries(manager, "news"),
            entries(&world.nodes[late].manager, "news")
        );
    }
}

#[test]
fn a_node_that_begins_with_a_snapshot_opens_streams_with_ids_of_events() {
    let mut world = World::of(2);
    world.publish(0, "news", "kept");
    world.settle();
    let kept: Kept = world.model.broker().kept.clone();
    world.publish(0, "news", "gone");
    world.settle();
    world.model.fail_over(kept);
    world.settle();
    assert_eq!(story(&world.nodes[0].manager, "news"), ["kept", "lost"]);
    world.pass(700_000);
    world.settle();
    let late = world.add().unwrap();
    for node in [0, late] {
        let manager = &world.nodes[node].manager;
        let keys = [manager.get_or_create("news").unwrap().key()];
        let joined = manager
            .hub()
            .could_join(&Join::of(&keys, 1, &Start::Live))
            .unwrap();
        let id = joined.opening_id.unwrap().text();
        assert!(!id.contains("lost"), "{node}: {id}");
    }
}

#[test]
fn a_snapshot_that_has_more_than_has_survived_is_not_used() {
    let mut world = World::of(2);
    world.publish(0, "news", "kept");
    world.settle();
    let mut kept: Kept = world.model.broker().kept.clone();
    world.publish(0, "news", "gone");
    world.settle();
    // A snapshot that was begun before, and copied "news" after.
    let before = kept.snapshot.unwrap();
    world.pass(700_000);
    world.settle();
    let (snapshot, chunks) = {
        let broker = world.model.broker();
        (broker.kept.snapshot.unwrap(), broker.kept.chunks.clone())
    };
    assert!(snapshot.name.at > before.name.at);
    let renamed = chunks.into_iter();
    kept.chunks = renamed
        .map(|((_, index), chunk)| ((before.name, index), chunk))
        .collect();
    kept.snapshot = Some(StoredSnapshot {
        name: before.name,
        ..snapshot
    });
    world.model.fail_over(kept);
    world.settle();
    let late = world.add().unwrap();
    for node in [0, 1, late] {
        assert_eq!(story(&world.nodes[node].manager, "news"), ["kept", "lost"]);
    }
}

/// Returns why a client that comes back with this number has missed something.
fn gap_after(manager: &ChannelManager, name: &str, number: u64) -> Option<GapReason> {
    let id = manager.hub().id_of(number).text();
    gap_at(manager, name, Start::After(id))
}

/// Returns why a client that begins there has missed something.
fn gap_at(manager: &ChannelManager, name: &str, start: Start) -> Option<GapReason> {
    let hub = manager.hub();
    let keys = [manager.get_or_create(name).unwrap().key()];
    let joined = hub.could_join(&Join::of(&keys, 1, &start)).unwrap();
    joined.gap.map(|gap| gap.reason)
}

#[test]
fn a_client_that_alone_has_seen_what_is_lost_receives_a_gap() {
    let mut world = World::of(2);
    world.publish(1, "news", "kept");
    world.settle();
    let mut kept: Kept = world.model.broker().kept.clone();
    // A term begins, and is lost as well.
    world.model.fail_over(kept.clone());
    let mut seen = Vec::new();
    for n in 0..3 {
        world.pass(5_000);
        world.publish(0, "news", &format!("gone-{n}"));
        for _ in 0..20 {
            world.pass(100);
            world.nodes[0].steps.step_writer();
            world.nodes[0].steps.step_reader();
        }
        let entries = entries(&world.nodes[0].manager, "news");
        assert_eq!(entries.len(), 2, "{entries:?}");
        seen.push(entries[1].0);
        // The only node that has it dies.
        world.nodes.remove(0);
        world.model.fail_over(kept.clone());
        world.add().unwrap();
        world.nodes.swap(0, 1);
        world.settle();
        kept = world.model.broker().kept.clone();
        for (at, node) in world.nodes.iter().enumerate() {
            assert_eq!(story(&node.manager, "news"), ["kept"]);
            for number in &seen {
                let gap = gap_after(&node.manager, "news", *number);
                assert_eq!(gap, Some(GapReason::Lost), "{at}: {number} of {seen:?}");
            }
        }
        world.nodes.swap(0, 1);
    }
}

#[test]
fn a_client_that_has_seen_what_is_lost_waits_until_a_node_says_it() {
    let mut world = World::of(3);
    for name in ["news", "other"] {
        world.publish(0, name, "kept");
    }
    world.settle();
    let kept: Kept = world.model.broker().kept.clone();
    for name in ["news", "other"] {
        world.publish(0, name, "gone");
    }
    let step = |node: &mut Node| {
        node.steps.step_writer();
        node.steps.step_reader();
    };
    world.follow_alone();
    let gone = entries(&world.nodes[0].manager, "other")[1].0;
    world.model.fail_over(kept);
    // The second node is there first.
    world.publish(1, "news", "later");
    while story(&world.nodes[1].manager, "news") != ["kept", "later"] {
        world.pass(100);
        step(&mut world.nodes[1]);
    }
    let manager = world.nodes[1].manager.clone();
    let hub = manager.hub().clone();
    let awaited = |name: &str, number: u64| {
        let channels = [manager.get_or_create(name).unwrap()];
        hub.awaited(&Start::After(hub.id_of(number).text()), &channels)
    };
    let released: Arc<Mutex<Vec<(&str, Released)>>> = Arc::default();
    for name in ["news", "other", "quiet"] {
        let to = released.clone();
        let loss = awaited(name, gone).unwrap();
        assert!(matches!(loss, Awaited::Loss(_)), "{loss:?}");
        let go_on = move |why| to.lock().unwrap().push((name, why));
        hub.wait_for(loss, Box::new(go_on));
    }
    assert_eq!(awaited("news", gone - 5), None, "it is not lost");
    assert_eq!(*released.lock().unwrap(), []);
    // The one that had it says so within the time that it has.
    for _ in 0..40 {
        world.pass(100);
        world.nodes[0].steps.step_pulse();
        world.nodes.iter_mut().for_each(step);
    }
    released
        .lock()
        .unwrap()
        .sort_unstable_by_key(|(name, _)| *name);
    let said = [("news", Released::Applied), ("other", Released::Applied)];
    assert_eq!(*released.lock().unwrap(), said);
    for name in ["news", "other"] {
        assert_eq!(awaited(name, gone), None);
        assert_eq!(gap_after(&manager, name, gone), None, "it is in its place");
    }
    // Nothing was lost in the third channel, and a client cannot know that.
    world.pass(5_000);
    world.nodes[1].steps.step_pulse();
    assert_eq!(released.lock().unwrap()[2], ("quiet", Released::Unsaid));
    assert_eq!(awaited("quiet", gone), None);
    assert_eq!(gap_after(&manager, "quiet", gone), Some(GapReason::Lost));
}

#[test]
fn a_loss_that_is_on_its_way_is_not_said_where_the_events_are() {
    for is_renumbered in [false, true] {
        let mut world = World::of(2);
        world.publish(0, "news", "kept");
        world.settle();
        let kept: Kept = world.model.broker().kept.clone();
        world.publish(0, "news", "gone");
        world.follow_alone();
        let whole: Kept = world.model.broker().kept.clone();
        let run = world.model.broker().run;
        world.model.fail_over(kept);
        // It has a block with the loss, and the log does not take it.
        let open_losses = |world: &World| {
            let hub = world.nodes[0].manager.hub();
            hub.cluster.get().unwrap().open_losses()
        };
        while open_losses(&world) == 0 {
            world.pass(100);
            world.nodes[0].steps.step_reader();
        }
        for _ in 0..9 {
            world.nodes[0].steps.step_pulse();
            world.model.broker().faults.loses_request = true;
            world.pass(100);
            world.nodes[0].steps.step_writer();
        }
        world.model.broker().faults.loses_request = false;
        world.model.fail_over(whole);
        if !is_renumbered {
            // The server from before is there again.
            world.model.broker().run = run;
        }
        world.settle();
        for node in &world.nodes {
            assert_eq!(story(&node.manager, "news"), ["kept", "gone"]);
        }
    }
}

#[test]
fn a_late_node_begins_with_the_snapshot_and_the_log_behind_it() {
    let mut world = World::of(2);
    for n in 0..5 {
        world.publish(0, "news", &format!("{n}"));
        world.publish(0, "keyed", &format!("k{}-{n}", n % 2));
    }
    world.settle();
    // Far beyond the retention, so that the next snapshot has all, and the log little.
    world.pass(700_000);
    world.settle();
    world.publish(1, "news", "5");
    world.settle();
    let blocks = world.model.broker().kept.blocks.len();
    let late = world.add().unwrap();
    assert!(blocks < 500, "nothing was trimmed: {blocks}");
    for name in ["news", "keyed"] {
        let [first, last] = [0, late].map(|node| entries(&world.nodes[node].manager, name));
        assert_eq!(first, last, "{name}");
    }
    world.publish(late, "news", "6");
    world.settle();
    for node in &world.nodes {
        assert_eq!(story(&node.manager, "news").last().unwrap(), "6");
    }
}

#[test]
fn a_node_that_does_not_know_the_past_says_so_in_channels_that_are_made_later() {
    let mut world = World::of(1);
    for name in ["news", "quiet", "keyed"] {
        world.publish(0, name, &format!("{name}-0"));
    }
    world.settle();
    world.pass(700_000);
    world.settle();
    // The only node that has the past ends, and nothing is left of its snapshot.
    world.nodes.clear();
    world.model.broker().kept.snapshot = None;
    let first = world.add_patiently();
    for name in ["news", "keyed"] {
        world.publish(first, name, &format!("{name}-1"));
    }
    let everywhere = world.nodes[first].manager.clone();
    everywhere.publish_then(&[Event::message("for-all")], Target::All, |_| ());
    world.settle();
    // The second one begins with the snapshot of the first one.
    let second = world.add_patiently();
    world.settle();
    for node in [first, second] {
        let manager = &world.nodes[node].manager;
        assert_eq!(story(manager, "news"), ["news-1", "for-all"], "{node}");
        for name in ["news", "quiet", "keyed", "other"] {
            let gap = gap_at(manager, name, Start::Earliest);
            assert_eq!(gap, Some(GapReason::Evicted), "{node} {name}");
        }
        let gap = gap_at(manager, "keyed", Start::Live);
        assert_eq!(gap, Some(GapReason::Evicted), "{node}");
    }
}

#[test]
fn a_snapshot_from_which_the_log_does_not_go_on_is_not_used() {
    let mut world = World::of(1);
    world.publish(0, "news", "0");
    world.settle();
    let before = world.model.broker().kept.clone();
    world.publish(0, "news", "1");
    world.settle();
    for _ in 0..2 {
        world.pass(700_000);
        world.settle();
    }
    world.nodes.clear();
    {
        let kept = &mut world.model.broker().kept;
        assert!(kept.snapshot.unwrap().name.at > before.snapshot.unwrap().name.at);
        (kept.snapshot, kept.chunks) = (before.snapshot, before.chunks);
    }
    let late = world.add_patiently();
    world.publish(late, "news", "2");
    world.settle();
    let manager = &world.nodes[late].manager;
    assert_eq!(story(manager, "news"), ["2"]);
    let gap = gap_at(manager, "news", Start::Earliest);
    assert_eq!(gap, Some(GapReason::Evicted));
}

#[test]
fn a_node_that_was_away_for_long_builds_its_channels_anew() {
    let mut world = World::of(2);
    world.publish(0, "news", "0");
    world.publish(0, "gone", "x");
    world.settle();
    // The second node stands still.
    let still = world.nodes.pop().unwrap();
    world.publish(0, "news", "1");
    world.settle();
    world.nodes[0]
        .manager
        .get("gone")
        .unwrap()
        .close_then(|_| ());
    world.settle();
    world.pass(700_000);
    world.settle();
    world.pass(700_000);
    world.publish(0, "news", "2");
    world.settle();
    world.nodes.push(still);
    assert_eq!(story(&world.nodes[1].manager, "news"), ["0"]);
    world.settle();
    world.settle();
    assert_eq!(story(&world.nodes[1].manager, "news"), ["0", "1", "2"]);
    assert_eq!(story(&world.nodes[1].manager, "gone"), [""; 0]);
    let status = world.nodes[1].manager.cluster_status().unwrap();
    assert_eq!((status.resyncs, status.lost), (1, 0), "{status:?}");
    let [one, other] = [0, 1].map(|node| entries(&world.nodes[node].manager, "news"));
    assert_eq!(one, other);
    world.publish(1, "news", "3");
    world.settle();
    assert!(world.outcome(1, "3").unwrap().is_ok());
}

#[test]
fn an_empty_broker_goes_on_with_what_a_node_remembers() {
    let mut world = World::of(2);
    world.publish(0, "news", "0");
    world.settle();
    let before = entries(&world.nodes[0].manager, "news");
    world.model.flush();
    world.publish(1, "news", "1");
    world.settle();
    world.settle();
    let late = world.add().unwrap();
    for node in &world.nodes {
        let entries = entries(&node.manager, "news");
        assert_eq!(story(&node.manager, "news"), ["0", "1"]);
        assert_eq!(entries[0], before[0]);
        let status = node.manager.cluster_status().unwrap();
        assert_eq!(status.stopped, None);
    }
    assert_eq!(late, 2);
}

#[test]
fn a_node_that_lacks_a_part_of_the_log_gives_the_lease_of_the_keeper_back() {
    let mut world = World::of(2);
    world.publish(0, "news", "0");
    world.settle();
    world.publish(0, "news", "1");
    world.follow_alone();
    world.model.flush();
    // The node that is behind has a session from before, and takes the lease.
    world.pass(5_000);
    world.nodes[1].steps.step_keeper();
    assert!(world.nodes[1].manager.cluster_status().unwrap().is_keeper);
    // The other one begins the log again, and has what is in front of it.
    world.publish(0, "news", "2");
    for _ in 0..9 {
        world.nodes[0].steps.step_pulse();
        world.nodes[0].steps.step_writer();
        world.pass(100);
    }
    world.settle();
    for node in &world.nodes {
        assert_eq!(story(&node.manager, "news"), ["0", "1", "2"]);
    }
}

#[test]
fn a_node_does_not_follow_a_log_that_began_without_it() {
    let mut world = World::of(1);
    world.publish(0, "news", "0");
    world.settle();
    world.model.flush();
    let first = world.nodes.pop().unwrap();
    world.add().unwrap();
    world.nodes.push(first);
    world.settle();
    let status = world.nodes[1].manager.cluster_status().unwrap();
    assert!(status.stopped.is_some(), "{status:?}");
    assert_eq!(
        world.nodes[0].manager.cluster_status().unwrap().stopped,
        None
    );
}

#[test]
fn a_request_of_a_client_that_is_ahead_waits_for_its_number() {
    let mut world = World::of(2);
    world.publish(0, "news", "0");
    world.follow_alone();
    let number = entries(&world.nodes[0].manager, "news")[0].0;
    let hub = world.nodes[1].manager.hub().clone();
    let news = [world.nodes[1].manager.get_or_create("news").unwrap()];
    let awaited = |number| hub.awaited(&Start::After(hub.id_of(number).text()), &news);
    assert_eq!(awaited(number), Some(Awaited::Event(number)));
    let released: Arc<Mutex<Vec<(u64, Released)>>> = Arc::default();
    let wait = |number: u64| {
        let to = released.clone();
        hub.wait_for(
            Awaited::Event(number),
            Box::new(move |why| to.lock().unwrap().push((number, why))),
        );
    };
    // The second number is never given.
    let never = number + (1 << 40);
    wait(number);
    wait(never);
    assert_eq!(*released.lock().unwrap(), []);
    world.nodes[1].steps.step_reader();
    world.nodes[1].steps.step_reader();
    assert_eq!(*released.lock().unwrap(), [(number, Released::Applied)]);
    assert_eq!(awaited(number), None);
    world.settle();
    assert_eq!(released.lock().unwrap()[1], (never, Released::Applied));
    world.model.broker().faults.is_down = true;
    wait(never);
    world.settle();
    assert_eq!(released.lock().unwrap()[2], (never, Released::TooLate));
}

#[test]
fn a_request_of_a_client_that_is_ahead_waits_for_its_own_id() {
    let mut world = World::of(2);
    world.publish(0, "news", "0");
    world.settle();
    let news = world.nodes[0].manager.get_or_create("news").unwrap();
    let own = Event::message("1").with_id("order-1");
    news.publish_then([own], Target::All, |_| ());
    world.follow_alone();
    let manager = world.nodes[1].manager.clone();
    let hub = manager.hub().clone();
    let start = |id: &str| Start::After(id.to_owned());
    let channels = [manager.get_or_create("news").unwrap()];
    let awaited = |id: &str| hub.awaited(&start(id), &channels);
    let released: Arc<Mutex<Vec<(&str, Released)>>> = Arc::default();
    let wait = |id: &'static str| {
        let own = awaited(id).unwrap();
        assert!(matches!(own, Awaited::OwnId(_)), "{own:?}");
        let to = released.clone();
        hub.wait_for(own, Box::new(move |why| to.lock().unwrap().push((id, why))));
    };
    wait("order-1");
    wait("never");
    assert_eq!(*released.lock().unwrap(), []);
    let unknown = Some(GapReason::Unknown);
    assert_eq!(gap_at(&manager, "news", start("order-1")), unknown);
    world.nodes[1].steps.step_reader();
    world.nodes[1].steps.step_reader();
    assert_eq!(*released.lock().unwrap(), [("order-1", Released::Applied)]);
    assert_eq!(awaited("order-1"), None);
    assert_eq!(gap_at(&manager, "news", start("order-1")), None);
    world.settle();
    assert_eq!(released.lock().unwrap()[1], ("never", Released::Applied));
    // Without the broker it is not known whether there is such an event.
    world.model.broker().faults.is_down = true;
    wait("never");
    world.settle();
    assert_eq!(released.lock().unwrap()[2], ("never", Released::TooLate));
}

#[test]
fn an_own_id_that_is_published_again_after_a_loss_does_not_lead_past_it() {
    let mut world = World::of(2);
    world.publish(0, "news", "kept");
    world.settle();
    let kept: Kept = world.model.broker().kept.clone();
    let publish = |world: &World, id: &str| {
        let news = world.nodes[0].manager.get_or_create("news").unwrap();
        let event = Event::message(id.to_owned()).with_id(id.to_owned());
        news.publish_then([event], Target::All, |_| ());
    };
    publish(&world, "order-1");
    world.settle();
    world.model.fail_over(kept);
    world.publish(1, "news", "in its place");
    world.settle();
    // Its publisher has received no answer.
    publish(&world, "order-1");
    publish(&world, "order-2");
    world.settle();
    let reason = |world: &World, id: &str| {
        let start = Start::After(id.to_owned());
        gap_at(&world.nodes[1].manager, "news", start)
    };
    assert_eq!(reason(&world, "order-1"), Some(GapReason::Restart));
    let late = world.add().unwrap();
    let start = Start::After("order-1".to_owned());
    let of_late = gap_at(&world.nodes[late].manager, "news", start);
    assert_eq!(of_late, Some(GapReason::Restart));
    // Nobody publishes it again any more.
    world.pass(61_000);
    world.settle();
    publish(&world, "order-3");
    world.settle();
    assert_eq!(reason(&world, "order-3"), None);
}

#[test]
fn a_node_joins_when_the_broker_has_failed_a_few_times() {
    let model = Model::new(Arc::new(AtomicU64::new(BEGIN_MS)));
    let join = |name: &str| builder().join_cluster(model.clone(), ClusterOptions::new(name));
    let first = join("first").unwrap();
    let news = first.get_or_create("news").unwrap();
    news.broadcast(Event::message("kept")).unwrap();
    model.broker().faults.failing_snapshots = 3;
    let late = join("late").unwrap();
    assert_eq!(entries(&late, "news").len(), 1);
}

#[test]
fn threads_publish_and_read_and_end_with_the_last_handle() {
    let wall_ms = Arc::new(AtomicU64::new(BEGIN_MS));
    let model = Model::new(wall_ms);
    let join = |name: &str| {
        let options = ClusterOptions::new(name).publish_timeout(Duration::from_secs(30));
        builder().join_cluster(model.clone(), options).unwrap()
    };
    let one = join("one");
    let two = join("two");
    let news = one.get_or_create("news").unwrap();
    let published: Vec<Published> = (0..20)
        .map(|n| news.broadcast(Event::message(format!("{n}"))).unwrap())
        .collect();
    // What the other node publishes comes later, so it has all of this then.
    let other = two.get_or_create("news").unwrap();
    let last = other.broadcast(Event::message("last")).unwrap();
    assert_eq!(entries(&two, "news").len(), 21);
    assert!(last.id > published[19].id);
    let (sender, results) = std::sync::mpsc::channel();
    let values = one.shared_values().unwrap();
    let put = sender.clone();
    values.put(
        b"key".to_vec(),
        b"value".to_vec(),
        Duration::from_secs(9),
        move |result| {
            put.send(result.map(|()| None)).unwrap();
        },
    );
    assert_eq!(results.recv().unwrap(), Ok(None));
    for expected in [Some(b"value".to_vec()), None] {
        let taken = sender.clone();
        let values = two.shared_values().unwrap();
        values.take(b"key".to_vec(), move |result| taken.send(result).unwrap());
        assert_eq!(results.recv().unwrap(), Ok(expected));
    }
    one.leave_cluster();
    let error = news.broadcast(Event::message("late")).unwrap_err();
    assert!(matches!(error, PublishError::Unavailable { .. }), "{error}");
    drop((two, other));
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Publish(usize, usize),
    Finish(usize),
    Remove(usize),
    Write(usize),
    Read(usize),
    Keep(usize),
    Pulse(usize),
    Pass(u64),
    LoseAnswer,
    LoseRequest,
    Down(bool),
    /// Remember what the broker has, for the next failover.
    Copy,
    FailOver,
    Flush,
    PublishToAll(usize),
    /// A node dies, and another one joins.
    Die(usize),
}

fn happens() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        12 => (0..3_usize, 0..3_usize).prop_map(|(n, c)| Happens::Publish(n, c)),
        1 => (0..3_usize).prop_map(Happens::Finish),
        1 => (0..3_usize).prop_map(Happens::Remove),
        14 => (0..3_usize).prop_map(Happens::Write),
        14 => (0..3_usize).prop_map(Happens::Read),
        4 => (0..3_usize).prop_map(Happens::Keep),
        4 => (0..3_usize).prop_map(Happens::Pulse),
        4 => (1..2_000_u64).prop_map(Happens::Pass),
        1 => Just(Happens::LoseAnswer),
        1 => Just(Happens::LoseRequest),
        1 => Just(Happens::Down(true)),
        2 => Just(Happens::Down(false)),
        2 => Just(Happens::Copy),
        1 => Just(Happens::FailOver),
        1 => Just(Happens::Flush),
        1 => (0..3_usize).prop_map(Happens::PublishToAll),
        1 => (0..3_usize).prop_map(Happens::Die),
    ];
    prop::collection::vec(one, 20..200)
}

const CHANNELS: [&str; 3] = ["news", "other", "keyed"];

/// Has all of it happen, and checks what is said of
/// [`nodes_agree_whatever_happens`](self::nodes_agree_whatever_happens).
fn check(happens: &[Happens]) -> Result<(), TestCaseError> {
    let mut world = World::of(3);
    let mut copy = world.model.broker().kept.clone();
    let (mut losses, mut published) = (0, 0);
    // What clients may have seen, by channel.
    let mut seen: BTreeSet<(&str, u64)> = BTreeSet::new();
    for what in happens {
        let count = world.nodes.len();
        if count == 0 {
            break;
        }
        match *what {
            Happens::Publish(node, channel) => {
                let name = CHANNELS[channel];
                world.publish(node % count, name, &format!("{published}-{name}"));
                published += 1;
            }
            Happens::Finish(node) => {
                let manager = &world.nodes[node % count].manager;
                if let Some(channel) = manager.get("other") {
                    channel.finish_then(None, |_| ());
                }
            }
            Happens::Remove(node) => {
                let manager = &world.nodes[node % count].manager;
                if let Some(channel) = manager.get("other") {
                    channel.close_then(|_| ());
                }
            }
            Happens::Write(node) => drop(world.nodes[node % count].steps.step_writer()),
            Happens::Read(node) => {
                let node = &mut world.nodes[node % count];
                node.steps.step_reader();
                for name in CHANNELS {
                    let entries = entries(&node.manager, name).into_iter();
                    seen.extend(entries.map(|(number, _)| (name, number)));
                }
            }
            Happens::Keep(node) => drop(world.nodes[node % count].steps.step_keeper()),
            Happens::Pulse(node) => drop(world.nodes[node % count].steps.step_pulse()),
            Happens::Pass(ms) => world.pass(ms),
            Happens::LoseAnswer => world.model.broker().faults.loses_answer = true,
            Happens::LoseRequest => world.model.broker().faults.loses_request = true,
            Happens::Down(is_down) => world.model.broker().faults.is_down = is_down,
            Happens::Copy => copy = world.model.broker().kept.clone(),
            Happens::FailOver => {
                losses += 1;
                world.model.fail_over(copy.clone());
            }
            Happens::Flush => {
                losses += 1;
                world.model.flush();
            }
            Happens::PublishToAll(node) => {
                let event = Event::message(format!("{published}-all"));
                published += 1;
                world.nodes[node % count]
                    .manager
                    .publish_then(&[event], Target::All, |_| ());
            }
            Happens::Die(node) => {
                let node = world.nodes.remove(node % count);
                drop((node.manager, node.steps));
                // It may not be possible to join now.
                if !world.nodes.is_empty() {
                    let _ = world.add();
                }
            }
        }
    }
    if world.nodes.is_empty() {
        return Ok(());
    }
    world.model.broker().faults.is_down = false;
    world.settle();
    world.settle();
    let alive = &world.nodes;
    for node in alive {
        let status = node.manager.cluster_status().unwrap();
        prop_assert_eq!(status.stopped, None);
    }
    let terms = world.model.broker().kept.terms.clone();
    for name in CHANNELS {
        let all: Vec<_> = alive
            .iter()
            .filter_map(|node| {
                let state = node.manager.hub().lock();
                let channel = state.names.get(name).and_then(|key| state.get(*key));
                let evicted = channel?.log.evicted_through();
                drop(state);
                Some((entries(&node.manager, name), evicted))
            })
            .collect();
        let evicted = all
            .iter()
            .map(|(_, evicted)| *evicted)
            .max()
            .unwrap_or_default();
        let newer = |entries: &[(u64, String)]| -> Vec<(u64, String)> {
            entries
                .iter()
                .filter(|(n, _)| *n > evicted)
                .cloned()
                .collect()
        };
        for (entries, _) in &all {
            prop_assert_eq!(newer(entries), newer(&all[0].0), "{}", name);
            for (number, frame) in entries {
                prop_assert!(!is_lost(&terms, *number), "{} is lost, and there", frame);
            }
            let numbers: BTreeSet<u64> = entries.iter().map(|(n, _)| *n).collect();
            prop_assert_eq!(numbers.len(), entries.len());
        }
        for node in alive {
            let story = story(&node.manager, name);
            let events: Vec<_> = story.iter().filter(|data| *data != "lost").collect();
            let once: BTreeSet<_> = events.iter().collect();
            prop_assert_eq!(once.len(), events.len(), "an event is there twice");
            prop_assert!(story.len() - events.len() <= losses, "{:?}", story);
        }
    }
    for (name, number) in &seen {
        // Clients that miss what has survived in no history receive a gap.
        if *name != "news" || !is_lost(&terms, *number) {
            continue;
        }
        for node in alive {
            // It makes the channel where there is none.
            let gap = gap_after(&node.manager, name, *number);
            let entries = entries(&node.manager, name);
            let later = entries.iter().filter(|(other, _)| other > number);
            let told = later.filter(|(_, frame)| frame.contains(GAP_NAME)).count();
            prop_assert!(
                told > 0 || gap.is_some(),
                "{} is lost, and a client is not told: {:?}",
                number,
                entries
            );
            let told = told + usize::from(gap == Some(GapReason::Lost));
            prop_assert!(told <= losses, "{} of {}: {:?}", told, losses, entries);
        }
    }
    for node in &world.nodes {
        let status = node.manager.cluster_status().unwrap();
        for (data, outcome) in &*node.outcomes.lock().unwrap() {
            let name = data.split_once('-').unwrap().1;
            let is_there = alive.iter().any(|n| story(&n.manager, name).contains(data));
            match outcome {
                Err(PublishError::Unavailable { .. } | PublishError::Busy { .. }) => {
                    prop_assert!(!is_there, "{} was refused", data);
                }
                Ok(_) if losses == 0 && name == "news" => {
                    prop_assert!(is_there, "{} was published: {:?}", data, status);
                }
                _ => {}
            }
        }
    }
    for node in &mut world.nodes {
        prop_assert!(node.steps.step_reader() != Next::Ended);
    }
    Ok(())
}

/// `PROPTEST_CASES` makes them more.
fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(24),
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever happens to the broker and its nodes: when it is over, all nodes have the same
    /// events and losses in the same order, none twice. A client that has seen what is lost
    /// receives a gap. What was published is there, or its channel has the gap of a loss.
    /// What was refused is not there.
    #[test]
    fn nodes_agree_whatever_happens(happens in happens()) {
        check(&happens)?;
    }
}

#[test]
fn a_node_that_has_more_than_one_flush_has_left_goes_on_with_the_others() {
    use Happens::{Flush, Publish, Pulse, Read, Write};
    let history = [
        Flush,
        Pulse(1),
        Write(1),
        Write(1),
        Read(1),
        Write(2),
        Publish(2, 0),
        Write(2),
        Read(0),
        Publish(1, 0),
        Read(1),
        Read(1),
        Write(1),
        Read(0),
        Flush,
        Publish(0, 0),
        Pulse(0),
        Publish(0, 0),
        Publish(0, 0),
        Pulse(0),
    ];
    check(&history).unwrap();
}

#[test]
fn a_node_that_builds_on_a_log_that_is_lost_goes_on_with_the_one_before() {
    use Happens::{Die, FailOver, Flush, Pass, Publish, Read, Write};
    let history = [
        Write(2),
        Die(0),
        Write(2),
        Publish(2, 0),
        Write(2),
        Read(2),
        Die(0),
        Flush,
        Write(2),
        Publish(2, 0),
        Write(2),
        Read(1),
        Read(1),
        FailOver,
        Read(1),
        Pass(48),
        Read(1),
        Flush,
        Read(2),
        Read(1),
        Pass(41),
    ];
    check(&history).unwrap();
}

#[test]
fn a_node_without_the_past_does_not_wait_for_a_block_of_its_own_in_it() {
    use Happens::{Die, FailOver, Flush, Keep, Pass, Publish, PublishToAll, Read, Write};
    let history = [
        Flush,
        Write(2),
        Publish(2, 0),
        Write(0),
        Write(2),
        Publish(0, 0),
        Publish(0, 0),
        PublishToAll(0),
        Read(1),
        Read(0),
        Publish(0, 0),
        Write(0),
        Read(1),
        Read(1),
        FailOver,
        Die(2),
        Write(2),
        Publish(2, 0),
        Keep(2),
        Write(2),
        Read(0),
        Publish(0, 0),
        Read(1),
        Publish(0, 0),
        Pass(33),
        Read(0),
        Publish(0, 0),
        Read(0),
        Publish(0, 0),
        Flush,
        Publish(0, 0),
        Pass(1239),
        Write(1),
        Publish(0, 0),
        Pass(1729),
        Keep(2),
    ];
    check(&history).unwrap();
}

#[test]
fn nodes_notice_that_an_empty_log_has_begun_behind_what_they_have() {
    use Happens::{Die, FailOver, Flush, Pass, Publish, PublishToAll, Read, Write};
    let history = [
        Write(1),
        Read(0),
        FailOver,
        PublishToAll(0),
        Write(0),
        Publish(1, 2),
        Read(1),
        Write(0),
        Write(1),
        Pass(100),
        Write(1),
        Die(2),
        Read(1),
        Read(1),
        Write(1),
        Read(2),
        Flush,
        Write(2),
        Die(2),
        Publish(0, 2),
    ];
    check(&history).unwrap();
}
