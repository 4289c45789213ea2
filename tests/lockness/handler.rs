//! `sseHandler`: clients that connect, and what is known of them.

use pushwheel::{
    ChannelManager, ChannelOptions, ClientId, DisconnectReason, Engine, Event, Request, Response,
    Subscription,
};
use serde_json::{Value, json};

use crate::Room;
use crate::common::{Connection, Served, Subscriber, eventually, receive};

#[test]
fn client_id_is_random_unless_it_is_given() {
    let room = Room::open(ChannelOptions::new());
    let _clients = [0, 1].map(|_| room.served.subscribe("/stream"));
    let ids = room.channel.client_ids();
    assert_ne!(ids[0], ids[1]);
    assert!(ids.iter().all(|id| id.to_string().len() == 36));
    let _ann = room
        .served
        .subscribe("/stream?id=Ann%20of%20Green%20Gables");
    assert!(room.channel.has_client("Ann of Green Gables"));
}

#[test]
fn a_new_client_replaces_the_one_with_its_id() {
    let room = Room::open(ChannelOptions::new());
    let mut old = room.served.subscribe("/stream?id=ann&seat=old");
    let mut client = room.served.subscribe("/stream?id=ann&seat=new");
    old.expect_end();
    let replaced = ("ann".to_owned(), DisconnectReason::Replaced);
    assert_eq!(receive(&room.left), replaced);
    assert_eq!(room.channel.client_count(), 1);
    let info = room.channel.client("ann").unwrap();
    assert_eq!(*info.metadata, json!({"seat": "new"}));
    assert_eq!(
        room.channel
            .send("ann", Event::message("hi"))
            .unwrap()
            .clients,
        1
    );
    assert_eq!(client.next().data, "hi");
}

#[test]
fn client_id_that_cannot_be_one_is_answered_400() {
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let handler = move |request: &Request| -> Result<Subscription, Response> {
        let id = ClientId::new(&request.query("id").unwrap())?;
        Ok(Subscription::new(&news).client_id(id))
    };
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", handler);
    let served = Served::start(builder);
    let mut connection = served.connect();
    let long = "x".repeat(256);
    for id in ["", "two%0Alines", &*long] {
        let answer = connection.get(&format!("/stream?id={id}"));
        assert_eq!(answer.status, 400);
        assert_eq!(answer.error_code(), "client_id_invalid");
    }
    assert_eq!(channels.total_clients(), 0);
}

#[test]
fn metadata_is_any_json() {
    let kinds = [
        json!({"role": "admin", "tags": ["a", 7], "deep": {"er": null}}),
        json!(["one", 2]),
        json!("text"),
        json!(42.5),
        json!(true),
        Value::Null,
    ];
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let (stream, all) = (news.clone(), kinds.clone());
    let builder = Engine::builder()
        .channels(&channels)
        .get("/{n}", move |request| {
            let (n, subscription) = (request.param("n").unwrap(), Subscription::new(&stream));
            let subscription = subscription.client_id(ClientId::new(n).unwrap());
            match n.parse::<usize>() {
                Ok(n) => subscription.metadata(all[n].clone()),
                Err(_) => subscription,
            }
        });
    let served = Served::start(builder);
    let _silent = served.subscribe("/silent");
    assert_eq!(*news.client("silent").unwrap().metadata, Value::Null);
    let mut clients: Vec<Subscriber> = (0..kinds.len())
        .map(|n| served.subscribe(&format!("/{n}")))
        .collect();
    for (n, (kind, client)) in kinds.iter().zip(&mut clients).enumerate() {
        assert_eq!(*news.client(n.to_string()).unwrap().metadata, *kind);
        let is_it = |c: &pushwheel::Candidate| c.id == *n.to_string() && *c.metadata == *kind;
        assert_eq!(
            news.broadcast_to(is_it, Event::message("it"))
                .unwrap()
                .clients,
            1
        );
        assert_eq!(client.next().data, "it");
    }
}

/// Does to Ann, which reads nothing unless the test does, what ends its stream
/// for this reason.
fn end(room: &Room, mut ann: Subscriber, reason: DisconnectReason) {
    let (served, channel) = (&room.served, &room.channel);
    match reason {
        DisconnectReason::Gone => drop(ann),
        DisconnectReason::Lagged => {
            let data = "x".repeat(64 << 10);
            eventually("she has fallen behind", || {
                channel.broadcast(Event::message(&data)).unwrap();
                !channel.has_client("ann")
            });
        }
        DisconnectReason::Stalled => {
            let data = "x".repeat(512 << 10);
            for _ in 0..40 {
                channel.broadcast(Event::message(&data)).unwrap();
            }
            eventually("she is given up", || !channel.has_client("ann"));
        }
        DisconnectReason::Misbehaved => {
            eventually("she is cut off", || !ann.connection().try_send("blah"));
        }
        DisconnectReason::Replaced => {
            let mut again = served.subscribe("/stream?id=ann");
            ann.expect_end();
            // This one goes by its own reason.
            channel.finish(None).unwrap();
            again.expect_end();
        }
        DisconnectReason::Kicked => {
            assert!(channel.disconnect("ann"));
            assert!(!channel.disconnect("ann"));
            ann.expect_end();
        }
        DisconnectReason::ChannelClosed => {
            assert_eq!(channel.close(), 1);
            ann.expect_end();
        }
        DisconnectReason::Finished => {
            assert_eq!(channel.finish(Some(Event::message("last"))), Ok(1));
            assert_eq!(ann.next().data, "last");
            ann.expect_end();
        }
        DisconnectReason::Expired => {
            assert_eq!(ann.next().name, "pushwheel.reauth");
            ann.expect_end();
        }
        DisconnectReason::Aged => ann.expect_end(),
        DisconnectReason::Shutdown => {
            served.shutdown(crate::common::PATIENCE);
            ann.expect_end();
        }
        other => panic!("how does {other} come about?"),
    }
}

#[test]
fn on_disconnect_is_called_once_with_the_reason_for_every_kind_of_end() {
    use std::time::Duration;
    // An engine that fails is `tests/streams.rs`', a client that waits for one page
    // `tests/pages.rs`'.
    let others = [DisconnectReason::Failed, DisconnectReason::Answered];
    let reasons = DisconnectReason::ALL.iter().copied();
    for reason in reasons.filter(|reason| !others.contains(reason)) {
        let (backlog, stall) = match reason {
            DisconnectReason::Lagged => (256 << 10, Duration::from_secs(60)),
            DisconnectReason::Stalled => (64 << 20, Duration::from_millis(200)),
            _ => (64 << 20, Duration::from_secs(60)),
        };
        let options = ChannelOptions::new().backlog_bytes_max(backlog);
        let room = Room::open_with(options, |builder| {
            let builder = builder.stall_timeout(stall);
            match reason {
                DisconnectReason::Aged => builder.stream_age_max(Duration::from_millis(300)),
                _ => builder,
            }
        });
        let path = match reason {
            DisconnectReason::Expired => "/stream?id=ann&expires_ms=300",
            _ => "/stream?id=ann",
        };
        let narrow = Connection::narrow(room.served.address());
        let mut ann = Subscriber::over(narrow, path, &[]);
        ann.wait_for_id();
        end(&room, ann, reason);
        let mut expected = vec![("ann".to_owned(), reason)];
        if reason == DisconnectReason::Replaced {
            expected.push(("ann".to_owned(), DisconnectReason::Finished));
        }
        let reported: Vec<_> = expected.iter().map(|_| receive(&room.left)).collect();
        assert_eq!(reported, expected);
        room.served.shutdown(Duration::ZERO);
        room.served.join();
        let more: Vec<_> = room.left.iter().collect();
        assert_eq!(more, [], "once");
    }
}

#[test]
fn a_subscription_to_a_channel_of_a_foreign_manager_is_answered_500() {
    let [ours, foreign] = [0, 1].map(|_| ChannelManager::new().get_or_create("news").unwrap());
    let there = foreign.clone();
    let builder = Engine::builder().get("/foreign", move |_| Response::subscribe(&there));
    let there = foreign.clone();
    let builder = builder.get("/both", move |_| Subscription::new(&ours).and(&there));
    let served = Served::start(builder);
    let mut connection = served.connect();
    for path in ["/foreign", "/both", "/foreign"] {
        let answer = connection.get(path);
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (500, "internal_error")
        );
    }
    assert_eq!(foreign.client_count(), 0);
}
