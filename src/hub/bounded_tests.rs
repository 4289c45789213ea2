//! Large calls work in bounded locked sections: each section checks its count of looks
//! when it ends ([`Section`](super::looks::Section)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;

use super::batch::Batch;
use super::channel::Channel;
use super::client::{ClientId, ConnectionId, DisconnectReason, Extra};
use super::gap::GapReason;
use super::manager::{ChannelManager, ChannelManagerBuilder};
use super::options::{ChannelOptions, LagPolicy};
use super::{Form, Join, Joined, Read, Recipients, Report, Source, Span, Start, Waker, Work};
use crate::metrics::Meters;
use crate::{Condition, Event, History, KeyedState, Target};

/// More than any locked section may look at.
const MANY: usize = 10_000;

fn keeping() -> ChannelOptions {
    ChannelOptions::new().history(History::events(usize::MAX).bytes_max(usize::MAX))
}

fn builder(options: ChannelOptions) -> ChannelManagerBuilder {
    ChannelManager::builder().defaults(options)
}

fn one_of(options: ChannelOptions) -> (ChannelManager, Channel) {
    let manager = builder(options).build();
    manager.hub().attach_idle();
    let channel = manager.get_or_create("a").unwrap();
    (manager, channel)
}

fn connection(token: u64) -> ConnectionId {
    ConnectionId { token, reactor: 0 }
}

fn join(channels: &[&Channel], token: u64, start: &Start) -> Joined {
    let keys: Vec<_> = channels.iter().map(|channel| channel.key()).collect();
    let join = Join {
        extra: Some(Box::new(Extra {
            metadata: json!({"n": token, "all": true}).into(),
            on_disconnect: Some(Box::new(|_, _| {})),
        })),
        ..Join::of(&keys, token, start)
    };
    channels[0].hub().join(join).unwrap()
}

fn join_many(channel: &Channel) {
    for token in 0..MANY as u64 {
        join(&[channel], token, &Start::Live);
    }
}

fn publish_many(channel: &Channel, target: &Target) {
    for n in 0..MANY {
        let event = Event::message("x").with_key(n.to_string());
        channel.publish([event], target.clone()).unwrap();
    }
}

fn for_another() -> Target {
    Target::Client(ClientId::lookup("another"))
}

/// Sweeps all channels, a step at a time.
fn sweep_all(manager: &ChannelManager) {
    let mut left = manager.hub().channels_capacity();
    while left > 0 {
        left = manager.hub().sweep(left);
    }
}

#[test]
fn a_history_is_trimmed_in_steps() {
    let (_, channel) = one_of(keeping());
    publish_many(&channel, &Target::All);
    channel.set_options(ChannelOptions::new());
    assert_eq!(channel.stats().unwrap().history_events, 0);
}

#[test]
fn a_sweep_evicts_old_histories_in_steps() {
    let now_ms = Arc::new(AtomicU64::new(0));
    let clock = super::clock::Clock::manual(now_ms.clone());
    let history = History::events(MANY).bytes_max(usize::MAX);
    let hub = {
        let settings = super::Settings::default();
        let options = super::options::OptionsByName::new(move |_| {
            ChannelOptions::new().history(history.age_max(Duration::from_secs(1)))
        });
        super::Hub::new(clock, super::Randomness::System, settings, options)
    };
    let manager = ChannelManager {
        _handles: None,
        hub,
    };
    let large = manager.get_or_create("large").unwrap();
    publish_many(&large, &Target::All);
    for n in 0..MANY {
        let channel = manager.get_or_create(&n.to_string()).unwrap();
        channel.broadcast(Event::message("x")).unwrap();
    }
    now_ms.store(2_000, Relaxed);
    sweep_all(&manager);
    assert_eq!(manager.backlog().log_events, 0);
    now_ms.store(3_600_000, Relaxed);
    sweep_all(&manager);
    assert_eq!(manager.names(), ["large".into()], "there is a handle to it");
}

#[test]
fn what_all_clients_have_been_sent_is_dropped_in_steps() {
    let (manager, channel) = one_of(ChannelOptions::new().backlog_bytes_max(usize::MAX));
    join(&[&channel], 1, &Start::Live);
    publish_many(&channel, &Target::All);
    assert_eq!(channel.stats().unwrap().history_events, MANY);
    let report = Report {
        sent_through: Some(manager.hub().newest_sequence()),
        ..Report::default()
    };
    let mut steps = 0;
    while manager
        .hub()
        .report(0, [(channel.key(), report)], 0)
        .has_more
    {
        steps += 1;
    }
    assert_eq!(steps, MANY / super::looks::LOOKS_MAX);
    assert_eq!(channel.stats().unwrap().history_events, 0);
}

#[test]
fn a_channel_with_many_clients_is_removed_in_steps() {
    let (manager, channel) = one_of(ChannelOptions::new());
    join_many(&channel);
    assert_eq!(channel.close(), MANY);
    assert!(channel.is_closed() && manager.get("a").is_none());
    assert_eq!((manager.total_clients(), channel.close()), (0, 0));
    let mut work = Work::default();
    manager.hub().take_work(0, &mut work);
    assert_eq!(work.departures.len(), MANY);
    let is_closed =
        |departure: &super::Departure| departure.reason == DisconnectReason::ChannelClosed;
    assert!(work.departures.iter().all(is_closed));
}

#[test]
fn clients_behind_in_a_log_with_state_are_disconnected_in_steps() {
    let keyed = KeyedState::keys(MANY).bytes_max(usize::MAX);
    let options = ChannelOptions::new().lag_policy(LagPolicy::Conflate);
    let (manager, channel) = one_of(options.keyed_state(keyed));
    let hub = manager.hub();
    let positions: Vec<_> = (0..2_000)
        .map(|token| super::Position {
            member_key: super::MemberKey {
                channel: channel.key(),
                slot: join(&[&channel], token, &Start::Live).readers[0].slot,
            },
            token,
            seen: 0,
        })
        .collect();
    publish_many(&channel, &Target::All);
    hub.note_positions(0, &positions);
    assert_eq!(channel.close(), positions.len());
    let mut work = Work::default();
    hub.take_work(0, &mut work);
    let behind = |departure: &super::Departure| {
        let call = departure.disconnect_call.as_ref();
        call.map(|call| call.info.behind)
    };
    assert_eq!(work.departures.len(), positions.len());
    assert!(
        work.departures
            .iter()
            .all(|left| behind(left) == Some(1024))
    );
}

#[test]
fn an_unpublished_channel_with_many_clients_makes_room_in_steps() {
    let manager = ChannelManager::builder()
        .channels_max(1)
        .unpublished_channels_max(1);
    let manager = manager.build();
    manager.hub().attach_idle();
    join_many(&manager.get_or_create_for_subscriber("a", None).unwrap());
    manager.get_or_create("b").unwrap();
    assert_eq!(
        (manager.names(), manager.total_clients()),
        (vec!["b".into()], 0)
    );
}

#[test]
fn the_clients_that_an_event_is_for_are_counted_in_steps() {
    for options in [ChannelOptions::new(), ChannelOptions::new().index("all")] {
        let (_, channel) = one_of(options);
        join_many(&channel);
        let clients = |target| {
            channel
                .publish([Event::message("x")], target)
                .unwrap()
                .clients
        };
        let all = || Condition::new("all", "true");
        assert_eq!(clients(Target::Where(vec![all()])), MANY);
        assert_eq!(
            clients(Target::Where(vec![Condition::new("n", "17"), all()])),
            1
        );
        assert_eq!(
            clients(Target::Where(vec![Condition::not("n", "17")])),
            MANY - 1
        );
        assert_eq!(
            clients(Target::Except(ClientId::lookup("client 7"))),
            MANY - 1
        );
        let even =
            |client: &crate::Candidate| client.metadata["n"].as_u64().is_some_and(|n| n % 2 == 0);
        assert_eq!(clients(channel.filter(even)), MANY / 2);
        assert_eq!(channel.count_where(&[all()]), MANY);
    }
}

#[test]
fn the_targets_of_an_event_are_found_in_steps() {
    let (manager, channel) = one_of(ChannelOptions::new());
    join_many(&channel);
    for _ in 0..2 {
        channel
            .broadcast_except("client 7", Event::message("x"))
            .unwrap();
        channel.broadcast(Event::message("x")).unwrap();
    }
    let recipients = Recipients {
        reactor: 0,
        clients: MANY,
    };
    let channels = [channel.key()];
    let source = Source {
        channels: &channels,
        form: Form::Plain,
    };
    let (mut after, mut found, mut has_more) = (0, Vec::new(), true);
    while has_more {
        let (mut batch, mut targets) = (Batch::default(), Vec::new());
        let gathered =
            manager
                .hub()
                .gather(recipients, source, after, 1 << 20, &mut batch, &mut targets);
        let (gathered, mut search) = gathered.expect("no client was disconnected");
        (after, has_more) = (gathered.through, gathered.has_more);
        while let Some(steps) = &mut search {
            let before = targets.len();
            let is_last = manager.hub().find_targets(0, steps, &mut targets);
            assert!(targets.len() - before <= super::looks::LOOKS_MAX);
            search = search.filter(|_| !is_last);
        }
        found.push((batch.pieces().len(), targets.len()));
    }
    assert_eq!(found, [(0, MANY - 1), (1, 0), (0, MANY - 1), (1, 0)]);
}

#[test]
fn targets_are_not_found_while_a_client_is_being_disconnected() {
    let (manager, channel) = one_of(ChannelOptions::new());
    join_many(&channel);
    channel
        .broadcast_except("client 7", Event::message("x"))
        .unwrap();
    channel.disconnect("client 9");
    let recipients = Recipients {
        reactor: 0,
        clients: MANY,
    };
    let source = Source {
        channels: &[channel.key()],
        form: Form::Plain,
    };
    let (mut batch, mut targets) = (Batch::default(), Vec::new());
    let gathered = manager
        .hub()
        .gather(recipients, source, 0, 1 << 20, &mut batch, &mut targets);
    assert_eq!((gathered, targets.len()), (None, 0));
}

#[test]
fn a_client_resumes_over_many_events_for_others_in_steps() {
    let (manager, channel) = one_of(keeping());
    let first = channel.broadcast(Event::message("x")).unwrap().id.unwrap();
    publish_many(&channel, &for_another());
    let joined = join(&[&channel], 1, &Start::After(first.to_string()));
    assert_eq!(joined.gap, None);
    let channels = [channel.key()];
    let source = Source {
        channels: &channels,
        form: Form::Plain,
    };
    let (mut seen, mut steps) = (joined.seen, 0);
    while seen < joined.now {
        let span = Span {
            seen,
            through: joined.now,
            keyed_through: 0,
        };
        let mut batch = Batch::default();
        let read = manager.hub().read(
            source,
            &joined.readers,
            connection(1),
            span,
            1 << 20,
            &mut batch,
        );
        let Read::Through(through) = read else {
            panic!("{read:?}");
        };
        assert!(through > seen && batch.is_empty());
        (seen, steps) = (through, steps + 1);
    }
    assert_eq!(steps, MANY.div_ceil(super::looks::LOOKS_MAX));
}

#[test]
fn the_last_events_are_found_in_steps() {
    let (_, channel) = one_of(keeping());
    let first = channel.broadcast(Event::message("x")).unwrap();
    publish_many(&channel, &for_another());
    let joined = join(&[&channel], 1, &Start::Last(1));
    let found = channel.hub().id_of(joined.seen + 1);
    assert_eq!(Some(found), first.id);
}

#[test]
fn a_gap_of_many_channels_looks_at_a_bounded_number_of_entries() {
    let manager = builder(keeping()).build();
    manager.hub().attach_idle();
    let channels: Vec<Channel> = (0..20)
        .map(|n| manager.get_or_create(&n.to_string()).unwrap())
        .collect();
    for channel in &channels {
        for _ in 0..super::looks::LOOKS_MAX {
            channel
                .publish([Event::message("x")], for_another())
                .unwrap();
        }
    }
    let all: Vec<&Channel> = channels.iter().collect();
    let joined = join(&all, 1, &Start::After("unknown".into()));
    assert_eq!(joined.gap.unwrap().reason, GapReason::Unknown);
    let filtered = channels[0].filter(|_| true);
    channels[0]
        .publish([Event::message("x")], filtered)
        .unwrap();
    let first = manager.hub().id_of(1).to_string();
    let joined = join(&all, 2, &Start::After(first));
    assert_eq!(joined.gap.unwrap().reason, GapReason::Audience);
}

#[test]
fn many_channels_are_listed_published_to_and_removed_in_steps() {
    let (manager, first) = one_of(keeping());
    for n in 1..MANY {
        manager.get_or_create(&n.to_string()).unwrap();
    }
    assert_eq!(manager.names().len(), MANY);
    let published = manager.broadcast_all(Event::message("x")).unwrap();
    assert_eq!(published.events, 1);
    assert_eq!(manager.backlog().log_events, MANY as u64);
    manager.set_options_by_name(|_| ChannelOptions::new());
    assert_eq!(manager.backlog().log_events, 0);
    assert_eq!((manager.close_all(), first.is_closed()), (MANY, true));
}

#[test]
fn a_large_state_is_saved_in_steps() {
    let (manager, channel) = one_of(
        keeping()
            .lag_policy(LagPolicy::Conflate)
            .keyed_state(KeyedState::keys(MANY / 2).bytes_max(usize::MAX)),
    );
    publish_many(&channel, &Target::All);
    for _ in 0..MANY {
        channel.broadcast(Event::message("x")).unwrap();
    }
    let mut bytes = Vec::new();
    let saved = manager.save(&mut bytes).unwrap();
    assert_eq!((saved.channels, saved.events), (1, MANY / 2 + MANY));
    let options = keeping()
        .lag_policy(LagPolicy::Conflate)
        .keyed_state(KeyedState::keys(MANY).bytes_max(usize::MAX));
    let restored = builder(options).restore(&*bytes).unwrap();
    let stats = restored.get("a").unwrap().stats().unwrap();
    assert_eq!(
        (stats.keys, stats.history_events),
        (MANY / 2, MANY / 2 + MANY)
    );
}

#[test]
fn all_clients_of_a_reactor_leave_in_steps() {
    let (manager, channel) = one_of(ChannelOptions::new().backlog_bytes_max(usize::MAX));
    join_many(&channel);
    publish_many(&channel, &Target::All);
    let mut calls = 0;
    manager
        .hub()
        .leave_all(0, DisconnectReason::Shutdown, |_| calls += 1);
    assert_eq!((channel.client_count(), calls), (0, MANY));
    sweep_all(&manager);
    assert_eq!(channel.stats().unwrap().history_events, 0);
}

#[test]
fn taking_work_costs_the_same_however_many_channels_have_news() {
    let (manager, first) = one_of(ChannelOptions::new());
    let channels: Vec<Channel> = (1..MANY)
        .map(|n| manager.get_or_create(&n.to_string()).unwrap())
        .collect();
    for (channel, token) in channels.iter().chain([&first]).zip(0..) {
        join(&[channel], token, &Start::Live);
        channel.broadcast(Event::message("x")).unwrap();
        channel.broadcast(Event::message("x")).unwrap();
    }
    let mut work = Work::default();
    manager.hub().take_work(0, &mut work);
    assert_eq!(work.dirty.len(), MANY, "each once");
    let mut next = Work::default();
    manager.hub().take_work(0, &mut next);
    assert!(next.dirty.is_empty());
    first.broadcast(Event::message("x")).unwrap();
    manager.hub().take_work(0, &mut next);
    assert_eq!(next.dirty.len(), 1, "again, after it was taken");
}

#[test]
fn a_channel_has_news_for_the_next_engine_too() {
    let manager = ChannelManager::new();
    let channel = manager.get_or_create("a").unwrap();
    for token in 0..3 {
        let reactor: (Waker, Meters) = (Box::new(|| {}), Meters::new(&[]));
        let engine = manager
            .hub()
            .attach(crate::hub::Place::Engine, [reactor])
            .unwrap();
        join(&[&channel], token, &Start::Live);
        channel.broadcast(Event::message("x")).unwrap();
        let mut work = Work::default();
        manager.hub().take_work(0, &mut work);
        assert_eq!(work.dirty.len(), 1, "engine {token}");
        manager
            .hub()
            .leave_all(0, DisconnectReason::Shutdown, |_| {});
        drop(engine);
    }
}
