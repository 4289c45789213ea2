//! Its advice, made into features.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pushwheel::{
    ChannelManager, ChannelOptions, DisconnectReason, Engine, Event, History, LagPolicy,
    PublishError, Rate, Request, Response, Subscription,
};
use serde_json::Value;

use crate::Room;
use crate::common::{Connection, Served, Subscriber, eventually, receive, summaries};

#[test]
fn connections_are_closed_by_ownership() {
    // A sink that is dropped, even by a panic, ends its stream.
    let builder = Engine::builder().get("/stream", |_| {
        Response::stream(|sink| {
            thread::spawn(move || {
                sink.send(Event::message("before")).unwrap();
                panic!("as a test wants it");
            });
        })
    });
    let served = Served::start(builder);
    let mut client = served.subscribe("/stream");
    assert_eq!(summaries(&client.rest()), ["before"]);

    // A connection that is dropped leaves its channel.
    let room = Room::open(ChannelOptions::new());
    let client = room.served.subscribe("/stream?id=ann");
    drop(client);
    assert_eq!(receive(&room.left).0, "ann");
    assert_eq!(room.channel.client_count(), 0);

    // A handle that is dropped ends nothing: others have the channel too.
    let mut client = room.served.subscribe("/stream?id=bob");
    let Room {
        channels,
        channel,
        served,
        ..
    } = room;
    drop(channel);
    let channel = channels.get("room").unwrap();
    channel.broadcast(Event::message("on")).unwrap();
    assert_eq!(client.next().data, "on");
    drop(served);
    client.expect_end();
}

#[test]
fn client_counts_are_watched_in_the_metrics() {
    let room = Room::open(ChannelOptions::new().history(History::events(5)));
    let mut clients: Vec<Subscriber> = (0..4)
        .map(|n| room.served.subscribe(&format!("/stream?id={n}")))
        .collect();
    let first = room
        .channel
        .broadcast(Event::message("0"))
        .unwrap()
        .id
        .unwrap();
    for n in 1..10 {
        room.channel
            .broadcast(Event::message(n.to_string()))
            .unwrap();
    }
    for client in &mut clients {
        client.take(10);
    }
    room.channel.send("0", Event::message("for one")).unwrap();
    clients[0].next();
    drop(clients.pop());
    assert_eq!(receive(&room.left).0, "3");
    let mut back = room.served.resubscribe("/stream?id=3", &first.to_string());
    assert_eq!(back.next().name, "pushwheel.gap");
    // Of the last five the one is not for it.
    assert_eq!(back.take(4).len(), 4);
    eventually("all is counted", || {
        room.channel.stats().unwrap().delivered == 40 + 1 + 4
    });
    let stats = room.channel.stats().unwrap();
    assert_eq!((stats.clients, stats.published, stats.gaps), (4, 11, 1));
    assert_eq!(stats.history_events, 5);
    assert_eq!(room.channels.total_clients(), 4);
}

#[test]
fn many_channels_are_managed() {
    let channels = ChannelManager::new();
    let builder = Engine::builder().channels(&channels);
    let builder = builder.get("/{n}", |request| -> Result<Subscription, Response> {
        let channel = request
            .channels()
            .get_or_create(request.param("n").unwrap())?;
        Ok(Subscription::new(&channel))
    });
    let served = Served::start(builder);
    for n in 0..5_000 {
        channels.get_or_create(&n.to_string()).unwrap();
    }
    let few = || (0..5_000).step_by(500);
    let mut clients: Vec<Subscriber> = few().map(|n| served.subscribe(&format!("/{n}"))).collect();
    let published = channels.broadcast_all(Event::message("all")).unwrap();
    assert_eq!((published.events, published.clients), (1, 10));
    for n in few() {
        let channel = channels.get(&n.to_string()).unwrap();
        channel.broadcast(Event::message(n.to_string())).unwrap();
    }
    for (n, client) in few().zip(&mut clients) {
        assert_eq!(
            summaries(&client.take(2)),
            ["all".to_owned(), n.to_string()]
        );
    }
    assert_eq!(channels.remove_empty(), 4_990);
    assert_eq!(channels.stats().channels, 10);
}

#[test]
fn reconnection_is_what_a_laggard_of_several_channels_is_sent_to_if_one_of_them_says_so() {
    for (policies, why) in [
        ([LagPolicy::Skip, LagPolicy::Skip], None),
        (
            [LagPolicy::Skip, LagPolicy::Disconnect],
            Some(DisconnectReason::Lagged),
        ),
        (
            [LagPolicy::Disconnect, LagPolicy::Skip],
            Some(DisconnectReason::Lagged),
        ),
    ] {
        let channels = ChannelManager::new();
        let both = [("a", policies[0]), ("b", policies[1])].map(|(name, policy)| {
            let options = ChannelOptions::new().lag_policy(policy);
            let options = || options.backlog_bytes_max(256 << 10);
            channels.get_or_create_with(name, options).unwrap()
        });
        let (sender, left) = mpsc::channel();
        let [a, b] = both.clone();
        let builder = Engine::builder()
            .channels(&channels)
            .get("/both", move |_| {
                let sender = sender.clone();
                let both = Subscription::new(&a).and(&b);
                both.on_disconnect(move |_, why| _ = sender.send(why))
            });
        let served = Served::start(builder);
        let narrow = Connection::narrow(served.address());
        let mut slow = Subscriber::over(narrow, "/both", &[]);
        slow.wait_for_id();
        let data = "x".repeat(64 << 10);
        for n in 0..400 {
            both[n % 2].broadcast(Event::message(&data)).unwrap();
        }
        let Some(why) = why else {
            while slow.next().name != "pushwheel.gap" {}
            continue;
        };
        // It is found out when the client reads again.
        assert!(slow.rest().iter().all(|event| event.data == data));
        assert_eq!(receive(&left), why);
    }
}

#[test]
fn errors_are_handled_by_the_question_mark() {
    let options = ChannelOptions::new().event_bytes_max(1_000);
    let channels = ChannelManager::builder()
        .defaults(options)
        .channels_max(3)
        .build();
    channels
        .get_or_create("finished")
        .unwrap()
        .finish(None)
        .unwrap();
    let builder = Engine::builder().channels(&channels);
    let builder = builder.post(
        "/{channel}",
        |request: &Request| -> Result<Value, Response> {
            let body: Value = request.json()?;
            let channel = request
                .channels()
                .get_or_create(request.param("channel").unwrap())?;
            if body["close"] == true {
                channel.close();
            }
            let (name, data) = (body["name"].as_str(), body["data"].as_str());
            let event = Event::new(name.unwrap_or_default(), data.unwrap_or_default());
            let sent = channel.broadcast(event)?.clients;
            Ok(serde_json::json!({"sent": sent}))
        },
    );
    let served = Served::start(builder);
    let mut connection = served.connect();
    let long = format!(r#"{{"data": "{}"}}"#, "x".repeat(1_000));
    for (path, body, status, code) in [
        ("/news", "not JSON", 400, "invalid_json"),
        ("/a%2Fb", "{}", 400, "channel_name_invalid"),
        (
            "/news",
            r#"{"name": "two\nlines"}"#,
            400,
            "event_name_line_break",
        ),
        ("/news", &*long, 413, "event_too_large"),
        ("/news", r#"{"close": true}"#, 404, "channel_closed"),
        ("/finished", "{}", 409, "channel_finished"),
    ] {
        let answer = connection.post(path, body);
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (status, code),
            "{body}"
        );
    }
    let fine = connection.post("/news", r#"{"data": "fine"}"#);
    assert_eq!((fine.status, fine.text()), (200, "{\"sent\":0}\n"));
    assert_eq!(connection.post("/other", "{}").status, 200);
    let _held = ["news", "other"].map(|name| channels.get(name).expect("it was made just now"));
    let one_more = connection.post("/one-more", "{}");
    assert_eq!(
        (one_more.status, &*one_more.error_code()),
        (503, "too_many_channels")
    );
}

#[test]
fn a_rate_limits_what_is_published() {
    let hourly = Rate::per_second(1.0 / 3600.0).burst(3);
    let room = Room::open(ChannelOptions::new().publish_rate(hourly));
    let mut client = room.served.subscribe("/stream?id=ann");
    let publish = |data: &'static str| room.channel.broadcast(Event::message(data));
    assert!(publish("1").is_ok());
    // What is refused for another reason costs nothing.
    assert!(
        room.channel
            .broadcast(Event::new("two\nlines", ""))
            .is_err()
    );
    assert!(room.channel.send("ann", Event::message("2")).is_ok());
    assert!(publish("3").is_ok());
    let refused = publish("4").unwrap_err();
    let PublishError::RateLimited { retry_after } = refused else {
        panic!("{refused}");
    };
    let hour = Duration::from_secs(3600);
    assert!(retry_after <= hour && retry_after > hour / 2);
    let batch = room.channel.broadcast_batch(["5", "6"].map(Event::message));
    assert!(matches!(batch, Err(PublishError::RateLimited { .. })));
    assert_eq!(room.channel.stats().unwrap().published, 3);
    // The end of a channel is not rationed.
    room.channel.finish(Some(Event::message("end"))).unwrap();
    assert_eq!(summaries(&client.rest()), ["1", "2", "3", "end"]);

    let quick = ChannelOptions::new().publish_rate(Rate::per_second(50.0).burst(1));
    let quick = room.channels.get_or_create_with("quick", || quick).unwrap();
    quick.broadcast(Event::message("1")).unwrap();
    eventually("time passes", || {
        quick.broadcast(Event::message("2")).is_ok()
    });
}

#[test]
fn a_publisher_over_the_rate_is_answered_429_with_retry_after() {
    let rate = Rate::per_second(0.1).burst(2);
    let options = ChannelOptions::new().publish_rate(rate);
    let channels = ChannelManager::builder().defaults(options).build();
    let news = channels.get_or_create("news").unwrap();
    let builder = Engine::builder().channels(&channels);
    let builder = builder.post(
        "/news",
        move |request: &Request| -> Result<Value, Response> {
            let published = news.broadcast(Event::message(request.text()?))?;
            Ok(serde_json::json!({"sent": published.clients}))
        },
    );
    let served = Served::start(builder);
    let mut connection = served.connect();
    assert_eq!(connection.post("/news", "1").status, 200);
    assert_eq!(connection.post("/news", "2").status, 200);
    let refused = connection.post("/news", "3");
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (429, "rate_limited")
    );
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
}
