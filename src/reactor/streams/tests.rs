//! Streams over a network in memory: nothing else of the reactor.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::opening::Opening;
use super::*;
use crate::hub::channel::Channel;
use crate::hub::client::ClientId;
use crate::hub::{Form, Join, Start, Work};
use crate::limits::Limits;
use crate::metrics::Meters;
use crate::reactor::budgets::Budgets;
use crate::reactor::io::Io;
use crate::reactor::io::connection::StreamKey;
use crate::reactor::io::counts::ConnectionCounts;
use crate::reactor::io::memory::{Memory, Wire};
use crate::reactor::turn::{TICK_MS, Turn};
use crate::{ChannelManager, ChannelOptions, Event, History};

/// Room for everything.
const ALL: usize = usize::MAX;

struct Loop {
    _attachment: crate::hub::Attachment,
    manager: ChannelManager,
    io: Io<Memory>,
    streams: Streams,
}

impl Loop {
    fn new(budgets: Budgets) -> Loop {
        let manager = ChannelManager::builder().build();
        let reactor: (crate::hub::Waker, Meters) = (Box::new(|| {}), Meters::new(&[]));
        let attachment = manager
            .hub()
            .attach(crate::hub::Place::Engine, [reactor])
            .unwrap();
        let turn = Turn::new(budgets, 0);
        let counts = Arc::new(ConnectionCounts::new(usize::MAX));
        let meters = attachment.engine().meters(0).clone();
        let io = Io::new(Memory, 0, Limits::default(), meters, counts, turn);
        Loop {
            _attachment: attachment,
            streams: Streams::new(manager.hub().clone()),
            manager,
            io,
        }
    }

    fn channel(&self, name: &str, history: usize) -> Channel {
        let options = ChannelOptions::new().history(History::events(history));
        self.manager.get_or_create_with(name, || options).unwrap()
    }

    fn join(
        &mut self,
        channel: &Channel,
        name: &str,
        start: Start,
        room: usize,
    ) -> (StreamKey, Rc<RefCell<Wire>>) {
        self.join_all(&[channel], name, start, room)
    }

    fn join_all(
        &mut self,
        channels: &[&Channel],
        name: &str,
        start: Start,
        room: usize,
    ) -> (StreamKey, Rc<RefCell<Wire>>) {
        self.open(channels, name, start, room, None)
    }

    /// Opens a stream, or begins to wait for a page.
    fn open(
        &mut self,
        channels: &[&Channel],
        name: &str,
        start: Start,
        room: usize,
        wait: Option<Duration>,
    ) -> (StreamKey, Rc<RefCell<Wire>>) {
        let mut channels: Vec<_> = channels.iter().map(|channel| channel.key()).collect();
        channels.sort_unstable();
        let (wire, peer) = (Wire::new(room), ([127, 0, 0, 1], 1).into());
        let key = self.io.insert(wire.clone(), peer, None).unwrap();
        let joined = self.manager.hub().join(Join {
            channels: &channels,
            id: ClientId::new(name).unwrap(),
            has_generated_id: false,
            connection: self.io.connection_id(key),
            address: peer,
            extra: None,
            start: &start,
        });
        let opening = Opening {
            channels,
            joined: joined.unwrap(),
            form: wait.map_or(Form::Plain, |_| Form::Page),
            wait,
            packed: None,
            replay_end: None,
            names_position: false,
            expires_in: None,
            on_open: None,
            is_gone: false,
        };
        self.streams.start(&mut self.io, key, opening);
        (StreamKey::of(key), wire)
    }

    /// The parts of a turn that are of streams.
    fn turn(&mut self) {
        self.io.turn.begin(self.io.turn.now_ms * 1000, [false; 3]);
        let mut work = Work::default();
        self.manager.hub().take_work(0, &mut work);
        self.streams.spread_work(&mut self.io, &mut work, true);
        self.streams.pump(&mut self.io);
        self.streams.run_cursors(&mut self.io);
        let is_idle = self.streams.is_idle();
        self.streams.report(&mut self.io, is_idle);
        self.streams.shrink(&mut self.io);
    }
}

impl Loop {
    /// Lets the timers of clients fire at a time. Returns what each was sent.
    fn beat<const N: usize>(
        &mut self,
        now_ms: u64,
        clients: [&(StreamKey, Rc<RefCell<Wire>>); N],
    ) -> [String; N] {
        self.io.turn.begin(now_ms * 1000, [false; 3]);
        clients.map(|(key, wire)| {
            wire.borrow_mut().take_text();
            self.streams.on_timer(&mut self.io, *key);
            self.streams.write_heartbeats(&mut self.io);
            wire.borrow_mut().take_text()
        })
    }
}

/// The data of the events of a text.
fn data(text: &str) -> String {
    let lines = text.lines();
    let data: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    data.join(" ")
}

fn publish(channel: &Channel, data: &str) {
    channel.broadcast(Event::message(data)).unwrap();
}

#[test]
fn a_torn_frame_goes_on_where_it_was_cut() {
    let mut l = Loop::new(Budgets::default());
    let channel = l.channel("c", 10);
    let (key, slow) = l.join(&channel, "slow", Start::Live, 10);
    let (_, quick) = l.join(&channel, "quick", Start::Live, ALL);
    publish(&channel, "one");
    l.turn();
    let whole = quick.borrow_mut().take_text();
    assert_eq!(slow.borrow_mut().take_text(), whole[..10]);
    assert_eq!(l.streams.behind(), 1);
    // Nothing goes out before there is room, and then each byte once.
    publish(&channel, "two");
    l.turn();
    assert_eq!(data(&quick.borrow_mut().take_text()), "two");
    slow.borrow_mut().room = ALL;
    l.streams.queue_cursor(&l.io, key);
    l.turn();
    let rest = slow.borrow_mut().take_text();
    assert!(rest.starts_with(&whole[10..]), "{rest}");
    assert_eq!(data(&(whole[..10].to_owned() + &rest)), "one two");
    assert_eq!(l.streams.behind(), 0);
}

#[test]
fn a_client_that_catches_up_is_current_again() {
    let mut l = Loop::new(Budgets::default());
    let channel = l.channel("c", 10);
    publish(&channel, "one");
    publish(&channel, "two");
    let (_, wire) = l.join(&channel, "late", Start::Earliest, ALL);
    assert_eq!(l.streams.behind(), 1);
    l.turn();
    assert_eq!(data(&wire.borrow_mut().take_text()), "one two");
    assert_eq!(l.streams.behind(), 0);
    publish(&channel, "three");
    l.turn();
    assert_eq!(data(&wire.borrow_mut().take_text()), "three");
}

#[test]
fn a_client_that_joins_during_a_batch_gets_each_event_once() {
    let mut l = Loop::new(Budgets {
        writes_a_slice: 1,
        ..Budgets::default()
    });
    let channel = l.channel("c", 10);
    let first: Vec<_> = ["a", "b", "c"]
        .map(|name| l.join(&channel, name, Start::Live, ALL).1)
        .into();
    publish(&channel, "one");
    l.turn();
    let has_batch = |wire: &Rc<RefCell<Wire>>| !wire.borrow().received.is_empty();
    assert_eq!(first.iter().filter(|wire| has_batch(wire)).count(), 1);
    let (_, live) = l.join(&channel, "live", Start::Live, ALL);
    let (_, resumed) = l.join(&channel, "resumed", Start::Earliest, ALL);
    publish(&channel, "two");
    for _ in 0..20 {
        l.turn();
    }
    for wire in first.iter().chain([&resumed]) {
        assert_eq!(data(&wire.borrow_mut().take_text()), "one two");
    }
    assert_eq!(data(&live.borrow_mut().take_text()), "two");
    assert!(l.streams.is_idle());
}

#[test]
fn clients_that_have_lost_events_go_alone_a_slice_at_a_time() {
    let mut l = Loop::new(Budgets {
        writes_a_slice: 2,
        ..Budgets::default()
    });
    let options = ChannelOptions::new()
        .history(History::events(1))
        .backlog_bytes_max(64)
        .lag_policy(crate::LagPolicy::Skip);
    let channel = l.manager.get_or_create_with("c", || options).unwrap();
    let all: Vec<_> = (0..5)
        .map(|n| l.join(&channel, &format!("c{n}"), Start::Live, ALL).1)
        .collect();
    for n in 0..20 {
        publish(&channel, &format!("event {n}"));
    }
    l.turn();
    let received = |wire: &&Rc<RefCell<Wire>>| !wire.borrow().received.is_empty();
    assert_eq!(all.iter().filter(received).count(), 2, "one slice");
    for _ in 0..20 {
        l.turn();
    }
    for wire in &all {
        let text = wire.borrow_mut().take_text();
        assert!(text.contains("event: pushwheel.gap\n"), "{text}");
        assert!(data(&text).ends_with("event 19"), "{text}");
    }
    assert_eq!(l.streams.behind(), 0);
}

#[test]
fn clients_that_resume_one_channel_do_not_delay_another_channel() {
    let mut l = Loop::new(Budgets {
        cursor_bytes_a_turn: 128 << 10,
        ..Budgets::default()
    });
    let (busy, other) = (l.channel("busy", 100), l.channel("other", 10));
    for _ in 0..100 {
        publish(&busy, &"x".repeat(1_000));
    }
    for n in 0..50 {
        l.join(&busy, &format!("b{n}"), Start::Earliest, ALL);
    }
    let (_, ann) = l.join(&other, "ann", Start::Live, ALL);
    l.turn();
    other.send("ann", Event::message("hello")).unwrap();
    l.turn();
    assert_eq!(data(&ann.borrow_mut().take_text()), "hello");
    assert!(l.streams.behind() > 40, "the others are still at it");
}

#[test]
fn cursors_give_their_memory_back_after_a_burst() {
    let mut l = Loop::new(Budgets::default());
    let channel = l.channel("c", 10);
    publish(&channel, "one");
    for n in 0..9_000 {
        l.join(&channel, &format!("c{n}"), Start::Earliest, ALL);
    }
    let (_, stuck) = l.join(&channel, "stuck", Start::Earliest, 5);
    assert!(l.streams.cursors.capacity() > 9_000);
    for _ in 0..400 {
        l.turn();
    }
    assert_eq!(l.streams.behind(), 1);
    assert!(l.streams.cursors.capacity() <= 1_024);
    // The client that was moved goes on.
    stuck.borrow_mut().room = ALL;
    let key = l.io.connections.keys_end() - 1;
    let keys = (0..=key).filter(|key| l.io.connections.contains(*key));
    for key in keys.collect::<Vec<_>>() {
        l.streams.queue_cursor(&l.io, StreamKey::of(key));
    }
    l.turn();
    assert_eq!(data(&stuck.borrow_mut().take_text()), "one");
    assert_eq!(l.streams.behind(), 0);
}

#[test]
fn heartbeats_name_a_newer_position_to_clients_that_ask() {
    let mut l = Loop::new(Budgets::default());
    let (quiet, busy) = (l.channel("quiet", 10), l.channel("busy", 10));
    let plain = l.join(&quiet, "plain", Start::Live, ALL);
    let asking = l.join(&quiet, "asking", Start::Live, ALL);
    l.io.connections.stream_mut(asking.0).names_position = true;
    publish(&quiet, "one");
    l.turn();
    publish(&busy, "two");
    let newest = format!("id: {}\n\n", quiet.position());
    let idle = "ping:\n";
    let sent = l.beat(60_000, [&plain, &asking]);
    assert_eq!(sent, [idle, &*newest]);
    // The client knows it.
    assert_eq!(l.beat(120_000, [&asking]), [idle]);
    // An event has not been sent yet.
    publish(&quiet, "three");
    assert_eq!(l.beat(180_000, [&asking]), [idle]);
    l.turn();
    assert_eq!(data(&asking.1.borrow_mut().take_text()), "three");
    publish(&busy, "four");
    let newest = format!("id: {}\n\n", quiet.position());
    assert_eq!(l.beat(240_000, [&asking]), [newest]);
    // From now on the positions that clients know are own ids.
    quiet
        .broadcast(Event::message("five").with_id("own"))
        .unwrap();
    l.turn();
    publish(&busy, "six");
    assert_eq!(l.beat(300_000, [&asking]), [idle]);
}

#[test]
fn a_page_that_is_being_written_is_not_cut_by_the_end_of_the_wait() {
    let mut l = Loop::new(Budgets::default());
    let channel = l.channel("c", 10);
    let wait = Some(Duration::from_secs(50));
    let (key, wire) = l.open(&[&channel], "ann", Start::Live, 100, wait);
    assert_eq!(l.beat(40_000, [&(key, wire.clone())]), ["\n"]);
    let large = "x".repeat(10_000);
    publish(&channel, &large);
    l.turn();
    let begun = wire.borrow_mut().take_text();
    assert!(
        begun.starts_with("{\"events\":[{") && begun.len() < 200,
        "{begun}"
    );
    // More is no part of it.
    publish(&channel, "later");
    let at_its_end = l.beat(50_100, [&(key, wire.clone())]);
    assert_eq!(at_its_end, [""]);
    assert!(!wire.borrow().is_closed);
    wire.borrow_mut().room = ALL;
    l.streams.queue_cursor(&l.io, key);
    l.turn();
    let page = begun + &wire.borrow_mut().take_text();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    assert_eq!(page["events"][0]["data"], *large);
    assert_eq!(page["newest"], page["events"][0]["id"]);
    assert!(wire.borrow().is_closed);
    assert_eq!((channel.client_count(), l.streams.behind()), (0, 0));
}

#[test]
fn a_client_that_has_waited_in_vain_is_answered_at_the_end_of_the_wait() {
    let mut l = Loop::new(Budgets::default());
    let channel = l.channel("c", 10);
    let wait = Some(Duration::from_secs(50));
    let (key, wire) = l.open(&[&channel], "ann", Start::Live, ALL, wait);
    let client = (key, wire.clone());
    // An event for another client is no reason to answer.
    channel.send("bob", Event::message("for Bob")).unwrap();
    l.turn();
    assert_eq!(l.beat(40_000, [&client]), ["\n"]);
    assert_eq!(l.beat(50_100, [&client]), [""]);
    l.turn();
    let page = wire.borrow_mut().take_text();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["events"], serde_json::json!([]));
    assert!(wire.borrow().is_closed);
}

#[test]
fn news_of_a_channel_reach_a_slice_of_its_feeds_in_a_turn() {
    let mut l = Loop::new(Budgets {
        looks_a_slice: 2,
        ..Budgets::default()
    });
    let channel = l.channel("c", 10);
    let others: Vec<_> = (0..5)
        .map(|n| l.channel(&format!("o{n}"), 10).key())
        .collect();
    for key in &others {
        let source = crate::hub::Source {
            channels: &[channel.key(), *key],
            form: Form::Plain,
        };
        l.streams.feeds.find_or_insert(source, &Arc::default(), 0);
    }
    let mut work = Work::default();
    work.dirty.push_back((channel.key(), 7));
    let mut reached = Vec::new();
    while !work.dirty.is_empty() {
        l.streams.spread_work(&mut l.io, &mut work, true);
        assert_eq!(l.streams.spread.has_news, !work.dirty.is_empty());
        reached.push(l.streams.pump_queue.len());
    }
    assert_eq!(reached, [2, 4, 5]);
    // One that leaves meanwhile is none of those that are left.
    work.dirty.push_back((channel.key(), 8));
    l.streams.spread_work(&mut l.io, &mut work, true);
    for id in 0..5 {
        l.streams.feeds.remove(id);
    }
    l.streams.spread_work(&mut l.io, &mut work, true);
    assert!(work.dirty.is_empty());
}

#[test]
fn a_report_looks_at_a_slice_of_the_clients_that_are_behind() {
    let mut l = Loop::new(Budgets {
        looks_a_slice: 4,
        ..Budgets::default()
    });
    let channel = l.channel("c", 0);
    let blocked: Vec<_> = (0..10)
        .map(|n| l.join(&channel, &format!("c{n}"), Start::Live, 5))
        .collect();
    publish(&channel, "one");
    l.turn();
    assert_eq!(l.streams.behind(), 10);
    let kept = || channel.stats().unwrap().history_events;
    let mut turns = 0;
    while l.streams.has_reports() {
        l.turn();
        turns += 1;
        assert!(l.io.turn.spent.looks <= 3 * 4, "{}", l.io.turn.spent.looks);
    }
    assert!(turns >= 2, "{turns}");
    assert_eq!(kept(), 1, "it is torn for all");
    for (key, wire) in &blocked {
        wire.borrow_mut().room = ALL;
        l.streams.queue_cursor(&l.io, *key);
    }
    publish(&channel, "two");
    for _ in 0..20 {
        l.turn();
    }
    assert_eq!(kept(), 0);
}

#[test]
fn the_clients_of_a_directed_event_are_found_in_steps() {
    let mut l = Loop::new(Budgets::default());
    let channel = l.channel("c", 10);
    let wires: Vec<_> = (0..2_500)
        .map(|n| l.join(&channel, &format!("c{n}"), Start::Live, ALL).1)
        .collect();
    let event = Event::message("not for one");
    channel.broadcast_except("c7", event).unwrap();
    publish(&channel, "for all");
    l.turn();
    let reached = |l: &Loop| l.streams.behind();
    assert!(reached(&l) < 1_100, "{}", reached(&l));
    // A client that comes while the others are looked for is not for them.
    let (_, late) = l.join(&channel, "late", Start::Live, ALL);
    for _ in 0..200 {
        l.turn();
    }
    for (n, wire) in wires.iter().enumerate() {
        let expected = if n == 7 {
            "for all"
        } else {
            "not for one for all"
        };
        assert_eq!(data(&wire.borrow_mut().take_text()), expected, "c{n}");
    }
    assert_eq!(data(&late.borrow_mut().take_text()), "");
    assert!(l.streams.is_idle());
}

#[test]
fn other_heartbeats_apply_to_a_slice_of_the_clients_in_a_turn() {
    let mut l = Loop::new(Budgets {
        looks_a_slice: 3,
        ..Budgets::default()
    });
    let channel = l.channel("c", 10);
    for n in 0..8 {
        l.join(&channel, &format!("c{n}"), Start::Live, ALL);
    }
    let next_ms = |l: &Loop| l.io.next_timer_ms().unwrap();
    let before_ms = next_ms(&l);
    for seconds in [9, 2] {
        let heartbeat = std::time::Duration::from_secs(seconds);
        channel.set_options(ChannelOptions::new().heartbeat(heartbeat));
    }
    let mut turns = 0;
    while turns == 0 || !l.streams.is_idle() {
        l.turn();
        turns += 1;
    }
    assert!((3..=4).contains(&turns), "{turns}");
    assert!(next_ms(&l) < before_ms);
    let mut due = 0;
    while l.io.pop_timer(2_100 / TICK_MS).is_some() {
        due += 1;
    }
    assert_eq!(due, 8);
}

#[test]
fn clients_that_were_written_to_together_hear_heartbeats_in_groups_of_neighbours() {
    let mut l = Loop::new(Budgets::default());
    let channel = l.channel("c", 10);
    let keys: Vec<_> = (0..1_000)
        .map(|n| l.join(&channel, &format!("c{n}"), Start::Live, ALL).0)
        .collect();
    let intervals = keys
        .iter()
        .map(|key| l.streams.heartbeat_ticks(&l.io, *key).unwrap());
    let intervals: Vec<_> = intervals.collect();
    let longest = 30_000 / TICK_MS;
    assert!(
        intervals
            .iter()
            .all(|ticks| (longest * 3 / 4..=longest).contains(ticks))
    );
    let groups = intervals.chunk_by(|one, next| one == next).count();
    // A thousand neighbours, from an aligned key on or not.
    assert!((15..=17).contains(&groups), "{groups} groups");
}

#[test]
fn a_subscriber_that_sends_a_lot_is_disconnected_after_few_reads() {
    let mut l = Loop::new(Budgets::default());
    let channel = l.channel("c", 0);
    let (key, wire) = l.join(&channel, "loud", Start::Live, ALL);
    wire.borrow_mut()
        .sent
        .extend([0; 3].map(|_| vec![0; 60_000]));
    l.streams.listen(&mut l.io, key);
    assert_eq!(wire.borrow().sent.len(), 1, "the rest is not read");
    assert!(wire.borrow().is_closed);
    // A few bytes now and then are ignored.
    let (key, wire) = l.join(&channel, "quiet", Start::Live, ALL);
    for _ in 0..100 {
        wire.borrow_mut().sent.push_back(vec![0]);
        l.streams.listen(&mut l.io, key);
    }
    assert!(!wire.borrow().is_closed);
}

#[test]
fn a_feed_that_closes_lets_go_of_what_its_log_kept_for_it() {
    let mut l = Loop::new(Budgets::default());
    let (channel, other) = (l.channel("c", 0), l.channel("d", 0));
    l.join(&channel, "quick", Start::Live, ALL);
    let (slow, _) = l.join_all(&[&channel, &other], "slow", Start::Live, 5);
    publish(&channel, "one");
    for _ in 0..5 {
        l.turn();
    }
    let kept = || channel.stats().unwrap().history_events;
    assert_eq!((kept(), l.streams.behind()), (1, 1));
    let reason = crate::DisconnectReason::Gone;
    l.streams.end(&mut l.io, slow, reason);
    for _ in 0..5 {
        l.turn();
    }
    assert_eq!(kept(), 0);
}
