//! A state is copied while a log is applied, and the rest of the log is applied to what
//! was restored: the channels are the same.

use std::sync::Arc;

use proptest::prelude::*;

use super::parts::Part;
use super::{Origin, Restored, Writer};
use crate::hub::applying::BlockTime;
use crate::hub::clock::Clock;
use crate::hub::entry::Entry;
use crate::hub::idempotency::{KeyId, Keyed};
use crate::hub::ids::Ids;
use crate::hub::manager::ChannelManager;
use crate::hub::state::State;
use crate::hub::{Hub, Randomness};
use crate::journal::block::{Block, Sealed};
use crate::journal::follower::{Arrived, Follower};
use crate::journal::generated::{ID_PREFIX, changes, ids, ready};
use crate::journal::record::{Begun, Change, Options, Record};
use crate::{ChannelOptions, Event, History, KeyedState, LagPolicy};

/// The bytes of a block and the number at which it begins.
type Stored = (u64, Vec<u8>);

fn options_of(name: &str) -> ChannelOptions {
    let options = ChannelOptions::new().history(History::events(4));
    match name {
        "b" => options
            .lag_policy(LagPolicy::Conflate)
            .keyed_state(KeyedState::keys(2)),
        "many" => options
            .lag_policy(LagPolicy::Conflate)
            .keyed_state(KeyedState::keys(10_000)),
        _ => options,
    }
}

/// A hub with these ids, channels and clock.
fn hub_of(ids: Ids, clock: Clock, mut state: State) -> Arc<Hub> {
    state.remembered.follow_log();
    state.keys.follow_log();
    let builder = ChannelManager::builder().options_by_name(options_of);
    let options = builder.options_by_name;
    Hub::with_ids(ids, 0, clock, Randomness::System, state, options, None)
}

fn new_hub() -> Arc<Hub> {
    let settings = ChannelManager::builder().settings;
    hub_of(ids(), Clock::system(), State::new(settings))
}

/// Puts changes into blocks. Each is proposed when that many numbers before it were not
/// applied yet.
fn log_of(changes: Vec<Vec<(Change, u64)>>) -> Vec<Stored> {
    let mut next = 1;
    let blocks = changes.into_iter().enumerate().map(|(n, changes)| {
        let first = next;
        let mut records = Vec::new();
        for (change, lag) in changes {
            let basis = (next - 1_u64).saturating_sub(lag);
            next += change.width();
            records.push(Record { basis, change });
        }
        let sealed = Sealed::new(1, n as u64 + 1, records.iter());
        (first, sealed.bytes)
    });
    blocks.collect()
}

/// Applies the part of a log that a follower has not seen.
fn follow(hub: &Hub, follower: &mut Follower, log: &[Stored]) {
    for (first, bytes) in log {
        let time = BlockTime {
            wall_ms: 1_000 * first,
            at_ms: hub.clock.now_ms(),
        };
        let block = Block::decode(bytes, ID_PREFIX).unwrap();
        match follower.arrived(*first, block).unwrap() {
            Arrived::Seen => {}
            Arrived::Hole => panic!("block {first} does not follow {}", follower.applied()),
            Arrived::Apply { first, records } => {
                let records = records.into_iter().map(|record| (record, ()));
                hub.apply(first, time, records, |(), _| {});
            }
        }
    }
}

/// Copies a hub. After each part, something is done to it.
fn copied(hub: &Hub, mut meanwhile: impl FnMut()) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).unwrap();
    let write = |part| {
        writer.write(&part)?;
        meanwhile();
        Ok(())
    };
    hub.copy(write).unwrap();
    bytes
}

fn restored(bytes: &[u8]) -> (Arc<Hub>, u64) {
    let settings = ChannelManager::builder().settings;
    let for_all = options_of("").history;
    let origin = Origin::Log { older_ms: None };
    let restored = Restored::read(
        bytes,
        &Clock::system(),
        settings,
        origin,
        for_all,
        options_of,
    )
    .unwrap();
    let Restored {
        ids,
        clock,
        state,
        at,
    } = restored;
    (hub_of(ids, clock, state), at)
}

/// The channels of a hub without their times and counts, and what is known of others.
fn story(hub: &Hub) -> Vec<String> {
    let mut reader = Vec::new();
    hub.copy(|part| {
        reader.push(part);
        Ok(())
    })
    .unwrap();
    let mut story = Vec::new();
    let mut name = None;
    for part in reader {
        match part {
            Part::Begin(begin) => story.push(format!(" {} {:?}", begin.at, begin.jumps)),
            Part::ForAll(mut for_all) => {
                for_all.entries.iter_mut().for_each(|(e, _)| e.at_ms = 0);
                story.push(format!(" {for_all:?}"));
            }
            Part::Channel(mut channel) => {
                channel.counts = [0; 3];
                channel.finish.iter_mut().for_each(|f| f.until_ms = 0);
                story.push(format!("{} {channel:?}", channel.name));
                name = Some(channel.name);
            }
            Part::Entries(entries) => {
                for entry in entries {
                    let entry = Entry { at_ms: 0, ..entry };
                    let name = name.as_ref().unwrap();
                    story.push(format!("{name} {:08} {entry:?}", entry.sequence));
                }
            }
            Part::OwnIds(records) => {
                for (key, record) in records {
                    story.push(format!("= {key} {record:?}"));
                }
            }
            Part::Keys(keys) => story.extend(keys.iter().map(|key| format!("# {key:?}"))),
            Part::Unknown(through) => story.push(format!(" {through}")),
            Part::Finishes(ends) | Part::Removals(ends) => story.push(format!(" {ends:?}")),
            Part::Heads(heads) => {
                story.extend(heads.iter().map(|head| format!("~ {head:?}")));
            }
            Part::Refused(numbers) => story.push(format!(" refused {numbers:?}")),
            Part::End(end) => story.push(format!("~~ {end:?}")),
        }
    }
    // Channels are in the order of their newest events, which may be the same.
    story.sort_unstable();
    story
}

/// Copies a hub while a log is applied, and compares what is restored, with the rest of the
/// log, to the hub. `begin` returns how many of the blocks are applied before the copy, and
/// `meanwhile` has how many are after each of its parts.
fn copy_and_compare(
    changes: Vec<Vec<(Change, u64)>>,
    begin: impl Fn(usize) -> usize,
    meanwhile: &[usize],
) {
    let log = log_of(changes);
    let hub = new_hub();
    let mut follower = Follower::new(0);
    let mut applied = begin(log.len());
    follow(&hub, &mut follower, &log[..applied]);
    let mut meanwhile = meanwhile.iter();
    let bytes = copied(&hub, || {
        let end = log.len().min(applied + meanwhile.next().unwrap_or(&0));
        follow(&hub, &mut follower, &log[applied..end]);
        applied = end;
    });
    follow(&hub, &mut follower, &log[applied..]);

    // A node of a cluster knows the block before which it may have applied some more.
    let earlier = begin(log.len()).saturating_sub(1);
    let earlier = log.get(earlier).map_or(0, |(first, _)| first - 1);
    let (other, at) = restored(&bytes);
    let (node, _) = restored(&bytes);
    follow(&other, &mut Follower::new(at), &log);
    follow(&node, &mut Follower::behind(earlier, at), &log);
    assert_eq!(story(&node), story(&other), "from {earlier}");
    let log = log.iter().map(|(first, bytes)| {
        let block = Block::decode(bytes, ID_PREFIX).unwrap();
        format!("{first}: {:?} copied from {at}", block.records)
    });
    let log: Vec<_> = log.collect();
    assert_eq!(story(&other), story(&hub), "{log:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_copy_and_the_log_behind_it_are_the_hub(
        changes in prop::collection::vec(
            prop::collection::vec((changes(), 0..4_u64), 1..4),
            1..24,
        ),
        begin in any::<prop::sample::Index>(),
        meanwhile in prop::collection::vec(0..3_usize, 24),
    ) {
        copy_and_compare(changes, |blocks| begin.index(blocks + 1), &meanwhile);
    }
}

#[test]
fn a_removal_while_a_copy_is_made_is_over_for_the_copy() {
    let channel: Arc<str> = "c".into();
    let finish = Change::Finish {
        channel: channel.clone(),
        until_ms: 0,
        last: None,
        begins_after: None,
    };
    let to_all = Change::PublishAll {
        audience: None,
        events: vec![ready(&Event::message("to all"))],
        options: Options::default(),
    };
    let remove = Change::Remove { channel };
    let changes = vec![vec![(finish, 0)], vec![(to_all, 0), (remove, 0)]];
    copy_and_compare(changes, |_| 0, &[0, 0, 2]);
}

/// The first finish is refused, because its id is that of an event for all channels, so the
/// second one is not too late. The copy has neither of them, but the id.
#[test]
fn an_own_id_that_a_copy_has_outlives_its_removed_channel() {
    let channel: Arc<str> = "c".into();
    let own = |id| ready(&Event::message(format!("of {id}")).with_id(id));
    let to_all = Change::PublishAll {
        audience: None,
        events: vec![ready(&Event::message("to all").with_id("first"))],
        options: Options::default(),
    };
    let publish = Change::Publish {
        channel: channel.clone(),
        audience: None,
        events: vec![ready(&Event::message("to one"))],
        options: Options::default(),
    };
    let finish = |id| Change::Finish {
        channel: channel.clone(),
        until_ms: 0,
        last: Some(own(id)),
        begins_after: None,
    };
    let remove = Change::Remove {
        channel: channel.clone(),
    };
    let changes = vec![
        vec![(to_all, 0)],
        vec![(publish, 0)],
        vec![(finish("first"), 0)],
        vec![(finish("second"), 1), (remove, 0)],
    ];
    copy_and_compare(changes, |_| 2, &[2]);
}

/// The channel "b" is finished after a publish to several channels was proposed. An id that is
/// known as that of an event for all channels has the finish refused. Then the channel is
/// removed, or begins again.
fn finished_before_a_publish(
    id: &str,
    names: &[&str],
    begins_again: bool,
) -> Vec<Vec<(Change, u64)>> {
    let own = |data: &str, id: &str| ready(&Event::message(data).with_id(id));
    let to_all = Change::PublishAll {
        audience: None,
        events: vec![own("to all", "known")],
        options: Options::default(),
    };
    let publish = |name: &str| Change::Publish {
        channel: name.into(),
        audience: None,
        events: vec![ready(&Event::message("to one"))],
        options: Options::default(),
    };
    let finish = Change::Finish {
        channel: "b".into(),
        until_ms: 0,
        last: Some(own("the last", id)),
        begins_after: None,
    };
    let begun = |name: &&str| Begun {
        name: (*name).into(),
        begins_after: None,
    };
    let to_several = Change::PublishTo {
        channels: names.iter().map(begun).collect(),
        events: vec![ready(&Event::message("to several"))],
        keyed: Some(Keyed {
            id: KeyId([7; 16]),
            digest: 0,
        }),
    };
    let then = match begins_again {
        true => publish("b"),
        false => Change::Remove {
            channel: "b".into(),
        },
    };
    vec![
        vec![(to_all, 0)],
        vec![(publish("a"), 0), (publish("b"), 0)],
        vec![(finish, 0), (to_several, 1)],
        vec![(then, 0)],
    ]
}

#[test]
fn a_copy_knows_whether_a_finish_was_refused_before_a_publish_to_several() {
    for id in ["known", "new"] {
        for names in [&["b"][..], &["a", "b"]] {
            for begins_again in [false, true] {
                // After each part but the last. The one of the channel "a" is the fourth.
                for at in 0..8 {
                    let mut meanwhile = [0; 8];
                    meanwhile[at] = 2;
                    let changes = finished_before_a_publish(id, names, begins_again);
                    copy_and_compare(changes, |_| 2, &meanwhile);
                }
            }
        }
    }
}

/// The channel "b" is finished, and then begins again or is removed, and is finished again. A
/// publish to several channels from before is refused for the first end.
fn published_to_several_before_two_ends(begins_again: bool) -> Vec<Vec<(Change, u64)>> {
    let publish = |name: &str| Change::Publish {
        channel: name.into(),
        audience: None,
        events: vec![ready(&Event::message("to one"))],
        options: Options::default(),
    };
    let finish = || Change::Finish {
        channel: "b".into(),
        until_ms: 0,
        last: None,
        begins_after: None,
    };
    let remove = || Change::Remove {
        channel: "b".into(),
    };
    let begun = |name: &str| Begun {
        name: name.into(),
        begins_after: None,
    };
    let to_several = Change::PublishTo {
        channels: vec![begun("a"), begun("b")],
        events: vec![ready(&Event::message("to several"))],
        keyed: Some(Keyed {
            id: KeyId([7; 16]),
            digest: 0,
        }),
    };
    let then = match begins_again {
        true => vec![(publish("b"), 0), (finish(), 0)],
        false => vec![(remove(), 0), (finish(), 3), (remove(), 0)],
    };
    vec![
        vec![(publish("b"), 0), (finish(), 0)],
        vec![(to_several, 1)],
        then,
        vec![(publish("b"), 0), (publish("c"), 3)],
    ]
}

#[test]
fn a_copy_has_the_ends_behind_which_the_log_is_applied_again() {
    for begins_again in [false, true] {
        for begin in 0..4 {
            // After each part but the last.
            for at in 0..6 {
                let mut meanwhile = [0; 6];
                meanwhile[at] = 2;
                let changes = published_to_several_before_two_ends(begins_again);
                copy_and_compare(changes, |_| begin, &meanwhile);
            }
        }
    }
}

/// A channel with more keys than one locked section looks at, copied while another thread
/// replaces, removes and finishes.
#[test]
fn a_channel_is_copied_as_it_was_when_its_copy_began() {
    let key = |n: usize| format!("key {}", n % 3_000);
    let put = |n: usize| Event::message(format!("{n}")).with_key(key(n));
    let publish = |events: Vec<Event<'_>>| Change::Publish {
        channel: "many".into(),
        audience: None,
        events: events.iter().map(ready).collect(),
        options: Options::default(),
    };
    let filled = (0..3_000).collect::<Vec<_>>();
    let mut changes: Vec<_> = filled
        .chunks(250)
        .map(|some| vec![(publish(some.iter().map(|n| put(*n)).collect()), 0)])
        .collect();
    let before = changes.len();
    for n in 0..1_500 {
        let event = match n % 3 {
            0 => Event::removal(key(7 * n)),
            _ => put(11 * n),
        };
        changes.push(vec![(publish(vec![event]), 0)]);
    }
    let log = log_of(changes);
    let hub = new_hub();
    let mut follower = Follower::new(0);
    follow(&hub, &mut follower, &log[..before]);
    let bytes = std::thread::scope(|scope| {
        scope.spawn(|| follow(&hub, &mut follower, &log[before..]));
        copied(&hub, || {})
    });
    let (other, at) = restored(&bytes);
    follow(&other, &mut Follower::new(at), &log);
    assert_eq!(story(&other), story(&hub));
}

#[test]
fn own_ids_are_forgotten_while_a_copy_is_written() {
    let hub = new_hub();
    let event = Event::message("x").with_id("own");
    let publish = Change::Publish {
        channel: "news".into(),
        audience: None,
        events: vec![ready(&event)],
        options: Options::default(),
    };
    let log = log_of(vec![vec![(publish, 0)]]);
    follow(&hub, &mut Follower::new(0), &log);
    let mut own_ids = 0;
    let parts = hub.copy(|part| {
        // A disk may take its time now.
        assert!(!hub.lock().remembered.is_copied());
        own_ids += usize::from(matches!(part, Part::OwnIds(_)));
        Ok(())
    });
    assert_eq!((parts.unwrap().events, own_ids), (1, 1));
}
