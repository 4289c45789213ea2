//! The bounds of all channels, over the public parts.

use crate::hub::batch::Batch;
use crate::hub::channel::Channel;
use crate::hub::client::{ConnectionId, DisconnectReason};
use crate::hub::gap::GapReason;
use crate::hub::looks::LOOKS_MAX;
use crate::hub::manager::{ChannelManager, ChannelManagerBuilder};
use crate::hub::names::ChannelError;
use crate::hub::options::ChannelOptions;
use crate::hub::{Form, Join, JoinError, Joined, Read, Source, Span, Start};
use crate::{Event, History};

const PLACE: ConnectionId = ConnectionId {
    token: 1,
    reactor: 0,
};

fn builder() -> ChannelManagerBuilder {
    let history = History::events(1_000);
    ChannelManager::builder().defaults(ChannelOptions::new().history(history))
}

fn built(builder: ChannelManagerBuilder) -> ChannelManager {
    let manager = builder.build();
    manager.hub().attach_idle();
    manager
}

/// Publishes events of some 500 bytes.
fn publish(channel: &Channel, events: usize) {
    for _ in 0..events {
        let event = Event::message("x".repeat(400));
        channel.broadcast(event).unwrap();
    }
}

fn join(channel: &Channel, start: &Start) -> Joined {
    try_join(channel, start).unwrap()
}

fn try_join(channel: &Channel, start: &Start) -> Result<Joined, JoinError> {
    let hub = channel.hub();
    hub.join(Join {
        id: hub.new_client_id(),
        has_generated_id: true,
        ..Join::of(&[channel.key()], PLACE.token, start)
    })
}

fn events(channel: &Channel) -> usize {
    channel.stats().unwrap().history_events
}

/// The total is what the logs hold.
fn check_total(manager: &ChannelManager) -> usize {
    let total = manager.hub().lock().memory.bytes();
    assert_eq!(total as u64, manager.backlog().log_bytes);
    total
}

#[test]
fn beyond_the_total_the_channel_published_to_longest_ago_loses_its_oldest_events() {
    let manager = built(builder().history_total(40_000));
    let [old, mid, new] = ["old", "mid", "new"].map(|name| manager.get_or_create(name));
    let [old, mid, new] = [old.unwrap(), mid.unwrap(), new.unwrap()];
    publish(&old, 30);
    let first = old.stats().unwrap().oldest.unwrap();
    publish(&mid, 30);
    publish(&new, 30);
    assert!((39_000..=40_000).contains(&check_total(&manager)));
    let [left, all] = [events(&old), 30];
    assert!(
        left > 0 && left < all,
        "{left} of the oldest channel's are left"
    );
    assert_eq!([events(&mid), events(&new)], [all, all]);
    // A client that comes back to evicted events receives a gap.
    let joined = join(&old, &Start::After(first.to_string()));
    assert!(
        joined
            .gap
            .unwrap()
            .to_string()
            .contains("\"reason\":\"evicted\"")
    );
    // One that is published to again is not the oldest any more.
    publish(&old, 1);
    publish(&new, 10);
    assert!(events(&mid) < all && events(&old) == left + 1);
    assert!(check_total(&manager) <= 40_000);
}

#[test]
fn finished_channels_lose_their_history_first() {
    let manager = built(builder().history_total(50_000));
    let [kept, finished, new] = ["kept", "finished", "new"].map(|n| manager.get_or_create(n));
    let [kept, finished, new] = [kept.unwrap(), finished.unwrap(), new.unwrap()];
    publish(&kept, 30);
    publish(&finished, 30);
    finished.finish(None).unwrap();
    publish(&new, 40);
    assert_eq!([events(&kept), events(&new)], [30, 40]);
    assert!(events(&finished) < 30);
}

#[test]
fn what_a_slow_client_waits_for_is_evicted_last() {
    let manager = built(builder().history_total(50_000));
    let [slow, other] = ["slow", "other"].map(|name| manager.get_or_create(name).unwrap());
    let joined = join(&slow, &Start::Live);
    publish(&slow, 40);
    publish(&other, 80);
    assert_eq!(
        events(&slow),
        40,
        "the other one's own history went instead"
    );
    let read = |channel: &Channel| {
        let source = Source {
            channels: &[channel.key()],
            form: Form::Plain,
        };
        let span = Span {
            seen: joined.seen,
            through: u64::MAX,
            keyed_through: 0,
        };
        let (readers, batch) = (&joined.readers, &mut Batch::default());
        channel
            .hub()
            .read(source, readers, PLACE, span, 1 << 20, batch)
    };
    assert!(matches!(read(&slow), Read::Through(_)));
    // Nothing is left but that, and one event that is larger than all.
    let large = Event::message("x".repeat(60_000));
    other.broadcast(large).unwrap();
    assert_eq!([events(&slow), events(&other)], [0, 1]);
    let Read::Lagged(lag) = read(&slow) else {
        panic!("it has lost something");
    };
    assert_eq!(lag.gap.reason, GapReason::Slow);
}

#[test]
fn a_publish_evicts_a_bounded_number_of_entries_and_the_next_ones_the_rest() {
    let history = History::events(1 << 20).bytes_max(64 << 20);
    let options = ChannelOptions::new().history(history);
    let manager = built(
        ChannelManager::builder()
            .defaults(options)
            .history_total(1 << 20),
    );
    let [small, large] = ["small", "large"].map(|name| manager.get_or_create(name).unwrap());
    while check_total(&manager) < (1 << 20) - 1_000 {
        small.broadcast(Event::message("x")).unwrap();
    }
    let before = events(&small);
    assert!(before > 3 * LOOKS_MAX, "{before}");
    let event = || Event::message("x".repeat(900_000));
    large.broadcast(event()).unwrap();
    assert_eq!(events(&small), before - LOOKS_MAX);
    manager.hub().sweep(1);
    assert_eq!(events(&small), before - 2 * LOOKS_MAX);
    while check_total(&manager) > 1 << 20 {
        manager.hub().sweep(1);
    }
    assert_eq!(events(&large), 1);
}

#[test]
fn the_total_is_what_the_logs_hold_whatever_is_done() {
    let mut rng = fastrand::Rng::with_seed(11);
    let history = History::events(20);
    let options = ChannelOptions::new().history(history);
    let manager = built(
        ChannelManager::builder()
            .defaults(options)
            .history_total(20_000),
    );
    let mut places = Vec::new();
    for _ in 0..5_000 {
        let name = format!("c{}", rng.u32(0..10));
        let Ok(channel) = manager.get_or_create_for_subscriber(&name, None) else {
            continue;
        };
        match rng.u32(0..12) {
            0 => drop(channel.finish(None)),
            1 => drop(channel.close()),
            2 => {
                // A finished channel takes no more clients.
                if let Ok(joined) = try_join(&channel, &Start::Live) {
                    places.push((channel.key(), joined.readers[0].slot));
                }
            }
            3 => {
                if let Some((channel, slot)) = places.pop() {
                    let member_key = crate::hub::MemberKey { channel, slot };
                    manager
                        .hub()
                        .leave(&[member_key], PLACE, DisconnectReason::Gone);
                }
            }
            4 => drop(manager.broadcast_all(Event::message("all"))),
            5 => drop(manager.hub().sweep(4)),
            6 => channel.set_options(ChannelOptions::new()),
            _ => {
                let data = "x".repeat(rng.usize(0..500));
                drop(channel.broadcast(Event::message(data)));
            }
        }
        check_total(&manager);
    }
    manager.close_all();
    let state = manager.hub().lock();
    assert!(state.memory.is_empty() && state.unpublished.is_empty());
}

#[test]
fn what_is_known_of_removed_channels_counts_in_the_total() {
    const REMOVED: usize = 20;
    let manager = built(builder().history_total(60_000));
    let kept = manager.get_or_create("kept").unwrap();
    for n in 0..REMOVED {
        let name = format!("{n:0>200}");
        publish(&manager.get_or_create(&name).unwrap(), 1);
        manager.remove(&name);
    }
    let heads = manager.hub().lock().heads.bytes();
    assert!((300..=60_000 / 16).contains(&heads), "{heads}");
    publish(&kept, 200);
    let left = check_total(&manager);
    assert!((59_000 - heads..=60_000 - heads).contains(&left), "{left}");
}

#[test]
fn a_restored_state_obeys_the_total() {
    let before = built(builder());
    for name in ["old", "new"] {
        publish(&before.get_or_create(name).unwrap(), 100);
    }
    let mut state = Vec::new();
    before.save(&mut state).unwrap();
    let after = builder().history_total(60_000).restore(&*state).unwrap();
    assert!(check_total(&after) <= 60_000);
    let [old, new] = ["old", "new"].map(|name| after.get(name).unwrap());
    assert_eq!(events(&new), 100);
    assert!(events(&old) < 20);
}

fn subscribe(manager: &ChannelManager, name: &str, source: u64) -> Result<(), ChannelError> {
    let channel = manager.get_or_create_for_subscriber(name, Some(source))?;
    join(&channel, &Start::Live);
    Ok(())
}

#[test]
fn subscriptions_have_a_share_of_all_channels_and_a_source_a_part_of_it() {
    let manager = built(builder().channels_max(80));
    let too_many_of_source = Err(ChannelError::TooManyOfSource { max: 5 });
    for source in 0..14 {
        for n in 0..5 {
            assert_eq!(
                subscribe(&manager, &format!("{source}.{n}"), source),
                Ok(())
            );
        }
        let one_more = subscribe(&manager, &format!("{source}.5"), source);
        assert_eq!(one_more, too_many_of_source);
        // What is there it may have.
        assert_eq!(subscribe(&manager, &format!("{source}.4"), source), Ok(()));
    }
    let too_many = Err(ChannelError::TooManyUnpublished { max: 70 });
    assert_eq!(subscribe(&manager, "other", 99), too_many);
    // What is published to is a publisher's, and counts for its source no more.
    publish(&manager.get("3.3").unwrap(), 1);
    assert_eq!(subscribe(&manager, "3.5", 3), Ok(()));
    // An event for all channels does not make one of them published.
    manager.broadcast_all(Event::message("all")).unwrap();
    assert_eq!(subscribe(&manager, "other", 99), too_many);
    assert_eq!(subscribe(&manager, "3.6", 3), too_many_of_source);
}

#[test]
fn an_unpublished_channel_makes_room_for_a_publishers() {
    let manager = built(builder().channels_max(8).unpublished_channels_max(8));
    for n in 0..8 {
        assert_eq!(subscribe(&manager, &format!("s{n}"), n), Ok(()));
    }
    let published = manager.get_or_create("orders").unwrap();
    publish(&published, 1);
    assert!(!manager.has("s7") && manager.has("s6"), "the newest went");
    assert!(
        manager.hub().has_departures(0),
        "its client is disconnected"
    );
    for n in 0..7 {
        publish(&manager.get_or_create(&format!("p{n}")).unwrap(), 1);
    }
    let none = manager.get_or_create("one more").unwrap_err();
    assert_eq!(none, ChannelError::TooMany { max: 8 });
    assert_eq!(manager.hub().metrics().channels_displaced, 8);
}

#[test]
fn a_channel_counts_for_its_source_while_it_has_clients() {
    let manager = built(builder().channels_max(32));
    let source = Some(7);
    let open = |name: &str| manager.get_or_create_for_subscriber(name, source);
    let [a, b] = ["a", "b"].map(|name| open(name).unwrap());
    assert_eq!(open("c").unwrap_err().code(), "too_many_channels_of_source");
    let slot = join(&a, &Start::Live).readers[0].slot;
    let member_key = crate::hub::MemberKey {
        channel: a.key(),
        slot,
    };
    manager
        .hub()
        .leave(&[member_key], PLACE, DisconnectReason::Gone);
    let _c = open("c").unwrap();
    // And again when it has some.
    assert_eq!(open("a").unwrap_err().code(), "too_many_channels_of_source");
    assert_eq!(open("b").unwrap().name(), b.name());
}
