//! `SSEChannel`.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use pushwheel::{
    ChannelManager, ChannelOptions, Engine, Event, EventError, PublishError, Subscription,
};
use serde_json::json;

use crate::common::{Served, eventually, summaries};
use crate::{Room, sorted};

#[test]
fn heartbeat_interval_is_30_seconds_by_default() {
    let options = |options: ChannelOptions| format!("{options:?}");
    let default = options(ChannelOptions::new());
    let of = |seconds| options(ChannelOptions::new().heartbeat(Duration::from_secs(seconds)));
    assert_eq!(default, of(30));
    assert_ne!(default, of(29));
}

#[test]
fn heartbeat_interval_of_a_stream_of_several_channels_is_the_shortest() {
    let channels = ChannelManager::new();
    let make = |name: &str, interval: Duration| {
        let options = || ChannelOptions::new().heartbeat(interval);
        channels.get_or_create_with(name, options).unwrap()
    };
    let all = [
        make("silent", Duration::ZERO),
        make("slow", Duration::from_secs(60)),
        make("quick", Duration::from_millis(100)),
    ];
    let builder = Engine::builder().channels(&channels);
    let builder = builder.get("/all", move |_| {
        Subscription::new(&all[0]).and(&all[1]).and(&all[2])
    });
    let served = Served::start(builder);
    let mut client = served.subscribe("/all");
    while client.pings() < 3 {
        assert!(client.read(1_000), "the stream goes on");
    }
}

#[test]
fn name_client_count_and_client_ids_are_exact() {
    let room = Room::open(ChannelOptions::new());
    assert_eq!(room.channel.name(), "room");
    assert_eq!(room.channel.client_count(), 0);
    assert!(room.channel.client_ids().is_empty());
    let _ann = room.served.subscribe("/stream?id=ann");
    let bob = room.served.subscribe("/stream?id=bob");
    assert_eq!(room.channel.client_count(), 2);
    assert_eq!(sorted(room.channel.client_ids()), ["ann", "bob"]);
    drop(bob);
    eventually("Bob is gone", || room.channel.client_count() == 1);
    assert_eq!(room.channel.client_ids(), ["ann"]);
}

#[test]
fn broadcast_reaches_all_and_says_for_how_many_it_was_and_its_id() {
    let room = Room::open(ChannelOptions::new());
    let none = room.channel.broadcast(Event::message("unheard")).unwrap();
    assert_eq!((none.clients, none.events), (0, 1));
    let mut clients: Vec<_> = (0..5).map(|_| room.served.subscribe("/stream")).collect();
    let published = room.channel.broadcast(Event::new("news", "it works"));
    let published = published.unwrap();
    assert_eq!((published.clients, published.events), (5, 1));
    let id = published.id.unwrap().to_string();
    for client in &mut clients {
        let event = client.next();
        assert_eq!(summaries(std::slice::from_ref(&event)), ["news it works"]);
        assert_eq!(event.last_event_id, id);
    }
    let three = ["1", "2", "3"].map(Event::message);
    let published = room.channel.broadcast_batch(three).unwrap();
    assert_eq!((published.clients, published.events), (5, 3));
    let id = published.id.unwrap().to_string();
    for client in &mut clients {
        assert_eq!(summaries(&client.take(3)), ["1", "2", "3"]);
        assert_eq!(client.last_event_id(), id);
    }
}

#[test]
fn send_reaches_one_client_and_says_whether_it_is_there() {
    let room = Room::open(ChannelOptions::new());
    let mut ann = room.served.subscribe("/stream?id=ann");
    let mut bob = room.served.subscribe("/stream?id=bob");
    let send = |id: &str, data: &'static str| {
        let sent = room.channel.send(id, Event::new("note", data));
        sent.unwrap().clients
    };
    assert_eq!(send("ann", "for Ann"), 1);
    assert_eq!(send("cyd", "for none"), 0);
    assert_eq!(send("an impossible\nid", "for none"), 0);
    let id = room.channel.client("bob").unwrap().id;
    let two = ["1", "2"].map(Event::message);
    assert_eq!(room.channel.send_batch(&id, two).unwrap().clients, 1);
    room.channel.broadcast(Event::message("for both")).unwrap();
    assert_eq!(summaries(&ann.take(2)), ["note for Ann", "for both"]);
    assert_eq!(summaries(&bob.take(3)), ["1", "2", "for both"]);
}

#[test]
fn broadcast_to_reaches_clients_that_pass_the_filter() {
    let room = Room::open(ChannelOptions::new());
    let open = |(id, role)| {
        let path = format!("/stream?id={id}&role={role}");
        room.served.subscribe(&path)
    };
    let mut clients = [("ann", "admin"), ("bob", "guest"), ("cyd", "admin")].map(open);

    // The filter borrows from the stack, and may change what it borrows.
    let banned = HashSet::from(["cyd".to_owned()]);
    let mut asked = Vec::new();
    let filter = |client: &pushwheel::Candidate| {
        asked.push(client.id.to_string());
        client.metadata["role"] == "admin" && !banned.contains(&client.id.to_string())
    };
    let sent = room.channel.broadcast_to(filter, Event::message("for Ann"));
    assert_eq!(sent.unwrap().clients, 1);
    asked.sort();
    assert_eq!(asked, ["ann", "bob", "cyd"], "each is asked for once");

    let sent = room.channel.broadcast_to(|_| false, Event::message("none"));
    assert_eq!(sent.unwrap().clients, 0);
    let others = |client: &pushwheel::Candidate| client.id != "ann";
    let sent = room.channel.broadcast_to(others, Event::message("others"));
    assert_eq!(sent.unwrap().clients, 2);
    room.channel.broadcast(Event::message("end")).unwrap();
    for (client, expected) in clients.iter_mut().zip(["for Ann", "others", "others"]) {
        assert_eq!(summaries(&client.take(2)), [expected, "end"]);
    }
}

#[test]
fn has_client_and_get_client_find_connected_clients() {
    let room = Room::open(ChannelOptions::new());
    assert!(!room.channel.has_client("ann"));
    assert!(room.channel.client("ann").is_none());
    let before = SystemTime::now();
    let mut ann = room.served.subscribe("/stream?id=ann&role=admin");
    assert!(room.channel.has_client("ann"));
    let info = room.channel.client("ann").unwrap();
    assert_eq!(info.id, "ann");
    assert_eq!(*info.metadata, json!({"role": "admin"}));
    let address = ann.connection().writer().local_addr().unwrap();
    assert_eq!((info.address, info.behind), (address, 0));
    let second = Duration::from_secs(1);
    assert!(info.since + 2 * second >= before && info.since <= SystemTime::now() + second);
    let all = room.channel.clients();
    assert_eq!((all.len(), &all[0].id), (1, &info.id));
    drop(ann);
    eventually("she is gone", || !room.channel.has_client(&info.id));
    assert!(room.channel.client("ann").is_none());
}

#[test]
fn close_ends_every_stream_and_frees_the_name() {
    let room = Room::open(ChannelOptions::new());
    let mut clients = ["/stream?id=ann", "/stream?id=bob"].map(|path| room.served.subscribe(path));
    let old = &room.channel;
    assert!(!old.is_closed());
    assert_eq!(old.close(), 2);
    assert!(old.is_closed() && !room.channels.has("room"));
    for client in &mut clients {
        client.expect_end();
    }
    // Its handle is still usable, and reports an empty channel.
    assert_eq!(
        (old.name(), old.close(), old.client_count()),
        ("room", 0, 0)
    );
    assert!(old.stats().is_none() && !old.has_client("ann"));
    let late = Event::message("too late");
    assert_eq!(old.broadcast(&late), Err(PublishError::Closed));
    assert_eq!(old.send("ann", &late), Err(PublishError::Closed));
    assert_eq!(old.broadcast_to(|_| true, &late), Err(PublishError::Closed));
    assert_eq!(old.finish(Some(late.clone())), Err(PublishError::Closed));
    let new = room.channels.get_or_create("room").unwrap();
    assert!(new.broadcast(&late).is_ok() && old.is_closed());
}

#[test]
fn retry_on_an_event_sets_the_reconnection_time_of_the_browser() {
    let room = Room::open(ChannelOptions::new());
    let mut client = room.served.subscribe("/stream");
    assert_eq!(client.retry(), None);
    let event = Event::message("soon").with_retry(Duration::from_millis(2_500));
    room.channel.broadcast(event).unwrap();
    assert_eq!(client.next().data, "soon");
    assert_eq!(client.retry(), Some(2_500));
    let never = Event::message("").with_retry(Duration::MAX);
    let refused = room.channel.broadcast(never).unwrap_err();
    assert!(matches!(
        refused,
        PublishError::Event(EventError::RetryTooLong)
    ));
}
