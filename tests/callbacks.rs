//! `on_connect` and `on_disconnect`: when they are called, and what they may do.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{Served, eventually, receive, sequence, summaries};
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, ClientId, ClientInfo, DisconnectReason, Engine, Event,
    History, Request, Subscription,
};
use serde_json::json;

/// The calls of a callback, a line for each.
type Calls = mpsc::Receiver<String>;

/// An engine that streams `news` at `/stream?id=…` and records each `on_disconnect`.
fn noting() -> (Served, Channel, Calls) {
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let (sender, calls) = mpsc::channel();
    let stream = news.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |request| {
            let sender = sender.clone();
            known(Subscription::new(&stream), request)
                .on_disconnect(move |client, reason| note(&sender, client, reason))
        });
    (Served::start(builder), news, calls)
}

fn note(sender: &mpsc::Sender<String>, client: &ClientInfo, reason: DisconnectReason) {
    _ = sender.send(format!("{} {reason}", client.id));
}

fn known(subscription: Subscription, request: &Request) -> Subscription {
    let id = request.query("id").unwrap_or("anonymous".into());
    let role = request.query("role").unwrap_or_default();
    subscription
        .client_id(ClientId::new(&id).unwrap())
        .metadata(json!({"role": role}))
}

#[test]
fn every_end_of_a_connection_is_reported_once() {
    let (served, news, calls) = noting();
    let mut expected = Vec::new();
    for n in 0..60 {
        let path = format!("/stream?id={n}");
        let mut client = served.subscribe(&path);
        // Several causes at once: the first one has it.
        match n % 4 {
            0 => {
                news.disconnect(n.to_string());
                drop(client);
                expected.push(format!("{n} kicked"));
            }
            1 => {
                let again = served.subscribe(&path);
                expected.push(format!("{n} replaced"));
                expected.push(format!("{n} gone"));
                drop((client, again));
            }
            2 => {
                client.connection().finish_sending();
                client.expect_end();
                news.disconnect(n.to_string());
                expected.push(format!("{n} gone"));
            }
            _ => {
                drop(client);
                expected.push(format!("{n} gone"));
            }
        }
    }
    eventually("all are gone", || news.client_count() == 0);
    let mut reported: Vec<String> = expected.iter().map(|_| receive(&calls)).collect();
    expected.sort();
    reported.sort();
    assert_eq!(reported, expected);
    served.shutdown(Duration::ZERO);
    served.join();
    assert_eq!(calls.recv().ok(), None, "and none twice");
}

#[test]
fn callbacks_know_the_client_and_the_counts_are_exact() {
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let (sender, reported) = mpsc::channel();
    let stream = news.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |request| {
            let (came, left) = (sender.clone(), sender.clone());
            let (here, there) = (stream.clone(), stream.clone());
            known(Subscription::new(&stream), request)
                .on_connect(move |c, _| {
                    let counted = (here.client_count(), here.has_client(&c.id));
                    came.send((c.clone(), counted)).unwrap();
                })
                .on_disconnect(move |c, _| {
                    let counted = (there.client_count(), there.has_client(&c.id));
                    _ = left.send((c.clone(), counted));
                })
        });
    let served = Served::start(builder);
    let _bob = served.subscribe("/stream?id=bob");
    receive(&reported);

    let mut ann = served.subscribe("/stream?id=ann&role=admin");
    let (info, counted) = receive(&reported);
    assert_eq!(counted, (2, true));
    assert_eq!(info.id, "ann");
    assert_eq!(*info.metadata, json!({"role": "admin"}));
    assert_eq!(
        info.address,
        ann.connection().writer().local_addr().unwrap()
    );
    assert_eq!(info.behind, 0);
    let same = news.client("ann").unwrap();
    assert_eq!((same.id, same.address), (info.id, info.address));

    drop(ann);
    let (info, counted) = receive(&reported);
    assert_eq!(counted, (1, false));
    assert_eq!(info.id, "ann");
    assert_eq!(*info.metadata, json!({"role": "admin"}));
}

#[test]
fn a_new_client_is_welcomed_first_and_announced_to_all_others() {
    let channels = ChannelManager::new();
    let room = channels.get_or_create("room").unwrap();
    let stream = room.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |request| {
            let (came, left) = (stream.clone(), stream.clone());
            known(Subscription::new(&stream), request)
                .on_connect(move |client, welcome| {
                    let id = client.id.to_string();
                    welcome.send(Event::new("welcome", &id)).unwrap();
                    let others = |c: &pushwheel::Candidate| c.id != client.id;
                    came.broadcast_to(others, Event::new("joined", &id))
                        .unwrap();
                })
                .on_disconnect(move |client, _| {
                    let left_event = Event::new("left", client.id.to_string());
                    left.broadcast(left_event).unwrap();
                })
        });
    let served = Served::start(builder);
    let mut ann = served.subscribe("/stream?id=ann");
    assert_eq!(summaries(&ann.take(1)), ["welcome ann"]);
    let mut bob = served.subscribe("/stream?id=bob");
    assert_eq!(summaries(&bob.take(1)), ["welcome bob"]);
    assert_eq!(summaries(&ann.take(1)), ["joined bob"]);
    room.broadcast(Event::message("hello")).unwrap();
    assert_eq!(summaries(&bob.take(1)), ["hello"]);
    drop(bob);
    assert_eq!(summaries(&ann.take(2)), ["hello", "left bob"]);
}

#[test]
fn what_is_sent_to_a_new_client_while_it_is_welcomed_is_an_event_like_any_other() {
    let history = ChannelOptions::new().history(History::events(10));
    let channels = ChannelManager::builder().defaults(history).build();
    let room = channels.get_or_create("room").unwrap();
    let stream = room.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |request| {
            let came = stream.clone();
            known(Subscription::new(&stream), request).on_connect(move |client, welcome| {
                welcome.send(Event::new("welcome", "1")).unwrap();
                let sent = came.send(&client.id, Event::new("other", "1")).unwrap();
                assert_eq!(sent.clients, 1);
                welcome.send(Event::new("welcome", "2")).unwrap();
            })
        });
    let served = Served::start(builder);
    let before = room
        .broadcast(Event::message("before"))
        .unwrap()
        .id
        .unwrap();
    let mut ann = served.subscribe("/stream?id=ann");
    let events = ann.take(3);
    assert_eq!(summaries(&events), ["welcome 1", "welcome 2", "other 1"]);
    let own = sequence(&before.to_string()) + 1;
    assert_eq!(sequence(&events[2].last_event_id), own);

    let mut again = served.resubscribe("/stream?id=ann", &before.to_string());
    let events = summaries(&again.take(4));
    assert_eq!(events, ["other 1", "welcome 1", "welcome 2", "other 1"]);
    let mut bob = served.resubscribe("/stream?id=bob", &before.to_string());
    assert_eq!(
        summaries(&bob.take(3)),
        ["welcome 1", "welcome 2", "other 1"]
    );
}

#[test]
fn a_welcome_comes_right_after_the_replay_whatever_is_published_meanwhile() {
    let history = ChannelOptions::new().history(History::events(100_000));
    let channels = ChannelManager::builder().defaults(history).build();
    let room = channels.get_or_create("room").unwrap();
    let stream = room.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |_| {
            let came = stream.clone();
            Subscription::new(&stream).on_connect(move |_, welcome| {
                came.broadcast(Event::message("before")).unwrap();
                welcome.send(Event::new("welcome", "1")).unwrap();
                welcome.send(Event::new("welcome", "2")).unwrap();
                came.broadcast(Event::message("after")).unwrap();
            })
        });
    let served = Served::start(builder);
    let (stop, stopped) = mpsc::channel::<()>();
    let publisher = thread::spawn(move || {
        while let Err(mpsc::TryRecvError::Empty) = stopped.try_recv() {
            room.broadcast(Event::message("meanwhile")).unwrap();
            thread::yield_now();
        }
    });
    for _ in 0..50 {
        let mut client = served.subscribe("/stream");
        let first = client.take(2);
        assert_eq!(summaries(&first), ["welcome 1", "welcome 2"]);
        let last_id = sequence(&first[1].last_event_id);
        let next = client.take(3);
        assert_eq!(sequence(&next[0].last_event_id), last_id + 1, "no hole");

        // One that comes back: first what it has missed, whole and in order.
        let mut client = served.resubscribe("/stream", &next[0].last_event_id);
        let mut replayed = Vec::new();
        while replayed.last() != Some(&"welcome 2".to_owned()) {
            let event = client.next();
            replayed.extend(summaries(&[event]));
        }
        let welcome = replayed.len() - 2;
        assert_eq!(replayed[welcome], "welcome 1");
        assert!(
            replayed[..welcome]
                .iter()
                .all(|data| !data.starts_with('w'))
        );
    }
    stop.send(()).unwrap();
    publisher.join().unwrap();
}

#[test]
fn on_connect_may_disconnect_the_client_and_close_its_channel() {
    let channels = ChannelManager::new();
    let (sender, calls) = mpsc::channel();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/{what}", move |request| {
            let sender = sender.clone();
            let channel = request.channels().get_or_create("news").unwrap();
            let what = request.param("what").unwrap().to_owned();
            let own = channel.clone();
            known(Subscription::new(&channel), request)
                .on_connect(move |c, _| match &*what {
                    "kick" => assert!(own.disconnect(&c.id)),
                    "close" => assert_eq!(own.close(), 1),
                    "finish" => assert_eq!(own.finish(Some(Event::message("bye"))), Ok(1)),
                    _ => panic!("as a test wants it"),
                })
                .on_disconnect(move |c, reason| {
                    note(&sender, c, reason);
                    panic!("as a test wants it");
                })
        });
    let served = Served::start(builder);
    for (path, expected) in [
        ("/kick", "anonymous kicked"),
        ("/close", "anonymous channel_closed"),
    ] {
        served.subscribe(path).expect_end();
        assert_eq!(receive(&calls), expected);
    }
    let mut client = served.subscribe("/panic");
    let news = channels.get("news").unwrap();
    news.broadcast(Event::message("all the same")).unwrap();
    assert_eq!(summaries(&client.take(1)), ["all the same"]);
    drop(client);
    assert_eq!(receive(&calls), "anonymous gone");
    assert_eq!(summaries(&served.subscribe("/finish").rest()), ["bye"]);
    assert_eq!(receive(&calls), "anonymous finished");
}

#[test]
fn a_client_of_several_channels_is_reported_once_and_leaves_them_all() {
    let channels = ChannelManager::new();
    let [a, b] = ["a", "b"].map(|name| channels.get_or_create(name).unwrap());
    let (sender, calls) = mpsc::channel();
    let both = [a.clone(), b.clone()];
    let builder = Engine::builder()
        .channels(&channels)
        .get("/both", move |request| {
            let sender = sender.clone();
            let merged = Subscription::new(&both[0]).and(&both[1]);
            known(merged, request).on_disconnect(move |c, reason| note(&sender, c, reason))
        });
    let served = Served::start(builder);
    let is_empty = || (a.client_count(), b.client_count()) == (0, 0);

    drop(served.subscribe("/both?id=ann"));
    assert_eq!(receive(&calls), "ann gone");
    assert!(is_empty());
    for (first, second) in [(&a, &b), (&b, &a)] {
        let mut client = served.subscribe("/both?id=ann");
        assert!(second.has_client("ann"));
        first.disconnect("ann");
        client.expect_end();
        assert_eq!(receive(&calls), "ann kicked");
        assert!(is_empty());
    }
    let mut client = served.subscribe("/both?id=ann");
    assert_eq!(channels.total_clients(), 2, "once for each channel");
    b.close();
    client.expect_end();
    assert_eq!(receive(&calls), "ann channel_closed");
    assert_eq!((a.client_count(), channels.total_clients()), (0, 0));
}

#[test]
fn a_rejected_client_causes_no_callback() {
    let one = ChannelOptions::new().max_clients(1);
    let channels = ChannelManager::builder().defaults(one).build();
    let news = channels.get_or_create("news").unwrap();
    let (sender, calls) = mpsc::channel();
    let stream = news.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |request| {
            let (came, left) = (sender.clone(), sender.clone());
            known(Subscription::new(&stream), request)
                .on_connect(move |c, _| came.send(format!("{} came", c.id)).unwrap())
                .on_disconnect(move |c, reason| note(&left, c, reason))
        });
    let served = Served::start(builder);
    let mut ann = served.subscribe("/stream?id=ann");
    served.subscribe("/stream?id=bob").expect_end();
    let mut connection = served.connect();
    connection.send("HEAD /stream?id=cyd HTTP/1.1\r\nHost: test\r\n\r\n");
    connection.head();
    news.finish(None).unwrap();
    ann.expect_end();
    assert_eq!(served.connect().get("/stream?id=dan").status, 204);
    served.shutdown(Duration::ZERO);
    served.join();
    let all: Vec<String> = calls.iter().collect();
    assert_eq!(all, ["ann came", "ann finished"]);
}
