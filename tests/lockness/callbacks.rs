//! `onConnect` and `onDisconnect` may call any method of any channel.

use std::sync::{Arc, mpsc};
use std::thread;

use pushwheel::{
    Candidate, Channel, ChannelManager, ChannelOptions, ClientInfo, Condition, Engine,
    EngineBuilder, Event, History, PublishError, Subscription, Welcome,
};

use crate::common::{Served, Subscriber, receive, sequence, summaries};
use crate::{known, sorted};

type Hook = Arc<dyn Fn(&ChannelManager, &ClientInfo) + Send + Sync>;
type ConnectHook = Arc<dyn Fn(&ChannelManager, &ClientInfo, &mut Welcome) + Send + Sync>;

/// A hook that sends no welcome.
fn without_welcome(hook: Hook) -> ConnectHook {
    Arc::new(move |channels, client, _| hook(channels, client))
}

/// An engine that streams `room` at `/stream` and calls `came` and `left`.
fn with_hooks(channels: &ChannelManager, came: ConnectHook, left: Hook) -> EngineBuilder {
    let builder = Engine::builder().channels(channels);
    builder.get("/stream", move |request| {
        let room = request.channels().get_or_create("room").unwrap();
        let (came, left) = (came.clone(), left.clone());
        let (before, after) = (request.channels().clone(), request.channels().clone());
        known(Subscription::new(&room), request)
            .on_connect(move |client, welcome| came(&before, client, welcome))
            .on_disconnect(move |client, _| left(&after, client))
    })
}

/// Calls every method and returns the results. Cyd is the only client of `other`.
fn call_everything(channels: &ChannelManager, client: &ClientInfo) -> Vec<String> {
    let room = channels.get("room").unwrap();
    let other = channels.get("other").unwrap();
    let event = || Event::new("from a callback", "x");
    let admins = [Condition::new("role", "admin")];
    let clients =
        |published: Result<pushwheel::Published, PublishError>| published.unwrap().clients;
    let mut answers = Vec::new();
    for channel in [&room, &other] {
        // A filter is called with nothing locked: it may do the same.
        let calling_back = |candidate: &Candidate| {
            channel.has_client(&candidate.id)
                && channel.client(&candidate.id).is_some()
                && channel.broadcast(event()).unwrap().clients == channel.client_count()
        };
        answers.push(format!(
            "{}: {} {:?} {} {} has {} knows {} sends {} {} to {} {} {} where {} {} kicks {} {}",
            channel.name(),
            channel.client_count(),
            sorted(channel.client_ids()),
            channel.clients().len(),
            channel.stats().unwrap().clients,
            channel.has_client(&client.id),
            channel.client(&client.id).is_some(),
            clients(channel.send(&client.id, event())),
            clients(channel.send_batch(&client.id, [event(), event()])),
            clients(channel.broadcast(event())),
            clients(channel.broadcast_batch([event(), event()])),
            clients(channel.broadcast_to(calling_back, event())),
            clients(channel.broadcast_where(&admins, event())),
            clients(channel.broadcast_batch_where(&admins, [event()])),
            channel.disconnect("absent"),
            channel.is_closed(),
        ));
    }
    let all = channels.broadcast_all(event()).unwrap();
    let batch = channels.broadcast_batch_all(&[event(), event()]).unwrap();
    let made = || channels.get_or_create("made").unwrap();
    let (made, names) = (made(), (channels.has("made"), channels.names().len()));
    let finished = made.finish(Some(event())).unwrap();
    let closed = (made.close(), made.is_closed(), channels.remove("made"));
    channels
        .get_or_create_with("empty", ChannelOptions::new)
        .unwrap();
    answers.push(format!(
        "all: {} in {} to {} {} to {} made {names:?} finished {finished} closed {closed:?} empty {} {}",
        channels.total_clients(),
        channels.stats().channels,
        all.clients,
        batch.events,
        batch.clients,
        channels.remove_empty(),
        channels.names().len(),
    ));
    answers
}

#[test]
fn callbacks_call_every_method_of_every_channel_and_the_answers_are_exact() {
    let channels = ChannelManager::new();
    let (sender, answers) = mpsc::channel();
    let call: Hook = Arc::new(move |channels, client| {
        let answers = call_everything(channels, client);
        _ = sender.send((client.id.to_string(), answers));
    });
    let answers_to = |id: &str| loop {
        let (client, answers) = receive(&answers);
        if client == id {
            return answers;
        }
    };
    let other = channels.get_or_create("other").unwrap();
    let builder = with_hooks(&channels, without_welcome(call.clone()), call);
    let builder = builder.get("/other", move |request| {
        known(Subscription::new(&other), request)
    });
    let served = Served::start(builder);
    // First, because `remove_empty` would remove its channel.
    let _cyd = served.subscribe("/other?id=cyd");
    let mut bob = served.subscribe("/stream?id=bob&role=admin");

    let ann = served.subscribe("/stream?id=ann&role=admin");
    let cyds = r#"other: 1 ["cyd"] 1 1 has false knows false sends 0 0 to 1 1 1 where 0 0 kicks false false"#;
    let made = "made (true, 3) finished 0 closed (0, true, false) empty 1 2";
    let with_ann = [
        r#"room: 2 ["ann", "bob"] 2 2 has true knows true sends 1 1 to 2 2 2 where 2 2 kicks false false"#,
        cyds,
        &format!("all: 3 in 3 to 3 2 to 3 {made}"),
    ];
    assert_eq!(answers_to("ann"), with_ann);
    drop(ann);
    let without = [
        r#"room: 1 ["bob"] 1 1 has false knows false sends 0 0 to 1 1 1 where 1 1 kicks false false"#,
        cyds,
        &format!("all: 2 in 3 to 2 2 to 2 {made}"),
    ];
    assert_eq!(answers_to("ann"), without);

    // The cause of an end makes no difference, and nothing hangs.
    let room = channels.get("room").unwrap();
    let _kicked = served.subscribe("/stream?id=kicked");
    answers_to("kicked");
    assert!(room.disconnect("kicked"));
    answers_to("kicked");
    let _twice = ["/stream?id=twice"; 2].map(|path| served.subscribe(path));
    for _ in 0..3 {
        answers_to("twice");
    }
    room.broadcast(Event::message("on and on")).unwrap();
    while bob.next().data != "on and on" {}
}

#[test]
fn on_disconnect_may_close_every_channel() {
    let (sender, left) = mpsc::channel();
    let gone: Hook = Arc::new(move |channels, client| {
        _ = sender.send(client.id.to_string());
        channels.close_all();
    });
    let served = Served::start(with_hooks(
        &ChannelManager::new(),
        without_welcome(nothing()),
        gone,
    ));
    let mut ann = served.subscribe("/stream?id=ann");
    drop(served.subscribe("/stream?id=bob"));
    ann.expect_end();
    assert_eq!([receive(&left), receive(&left)], ["bob", "ann"]);
    assert!(served.channels().names().is_empty());
}

/// Publishes on another thread, and waits for it.
fn publish_elsewhere(channel: &Channel, data: &'static str) {
    let channel = channel.clone();
    let elsewhere = thread::spawn(move || channel.broadcast(Event::message(data)));
    elsewhere.join().unwrap().unwrap();
}

/// Two welcomes, with events of another thread before, between and after.
fn welcome_amid_others(channels: &ChannelManager, client: &ClientInfo, welcome: &mut Welcome) {
    if client.id == "witness" {
        return;
    }
    let room = channels.get("room").unwrap();
    publish_elsewhere(&room, "meanwhile 1");
    welcome.send(Event::message("welcome 1")).unwrap();
    publish_elsewhere(&room, "meanwhile 2");
    welcome.send(Event::message("welcome 2")).unwrap();
    publish_elsewhere(&room, "meanwhile 3");
}

const WELCOMES: [&str; 2] = ["welcome 1", "welcome 2"];
const MEANWHILE: [&str; 3] = ["meanwhile 1", "meanwhile 2", "meanwhile 3"];

fn nothing() -> Hook {
    Arc::new(|_, _| {})
}

#[test]
fn what_on_connect_sends_comes_right_after_the_replay_though_others_publish_meanwhile() {
    for has_witness in [false, true] {
        let options = ChannelOptions::new().history(History::events(1_000));
        let channels = ChannelManager::builder().defaults(options).build();
        let builder = with_hooks(&channels, Arc::new(welcome_amid_others), nothing());
        let served = Served::start(builder);
        let mut witness = has_witness.then(|| served.subscribe("/stream?id=witness"));
        let room = channels.get_or_create("room").unwrap();
        let first = room.broadcast(Event::message("seen")).unwrap().id.unwrap();
        room.broadcast(Event::message("missed 1")).unwrap();
        room.broadcast(Event::message("missed 2")).unwrap();

        let mut client = served.subscribe("/stream?id=ann");
        assert_eq!(summaries(&client.take(2)), WELCOMES);
        assert_eq!(summaries(&client.take(3)), MEANWHILE);
        let ids: Vec<u64> = ["missed 2", "meanwhile 1"]
            .map(|_| sequence(client.last_event_id()))
            .into();
        assert_eq!(ids[0], ids[1], "a welcome has no id of its own");

        let mut back = served.resubscribe("/stream?id=bob", &first.to_string());
        let missed = ["missed 1", "missed 2"].into_iter().chain(MEANWHILE);
        let expected: Vec<&str> = missed.chain(WELCOMES).chain(MEANWHILE).collect();
        assert_eq!(summaries(&back.take(expected.len())), expected);

        // For all others it was no event at all.
        if let Some(witness) = &mut witness {
            let all = ["seen", "missed 1", "missed 2"].into_iter();
            let all: Vec<&str> = all.chain(MEANWHILE).chain(MEANWHILE).collect();
            assert_eq!(summaries(&witness.take(all.len())), all);
        }
    }
}

#[test]
fn a_welcome_waits_for_a_replay_of_which_the_loop_itself_has_not_heard_yet() {
    // The handler, on the engine's own thread, publishes more than one turn
    // of the loop takes out of the log.
    let data = "x".repeat(30_000);
    let options = ChannelOptions::new().history(History::events(100).bytes_max(8 << 20));
    let channels = ChannelManager::builder().defaults(options).build();
    let room = channels.get_or_create("room").unwrap();
    let (stream, large) = (room.clone(), data.clone());
    let builder = Engine::builder()
        .channels(&channels)
        .get("/back", move |_| {
            for n in 0..40 {
                stream.broadcast(Event::new(n.to_string(), &large)).unwrap();
            }
            let came = stream.clone();
            Subscription::new(&stream).on_connect(move |_, welcome| {
                publish_elsewhere(&came, "meanwhile 1");
                welcome.send(Event::message("welcome 1")).unwrap();
            })
        });
    let stream = room.clone();
    let builder = builder.get("/stream", move |_| Subscription::new(&stream));
    let served = Served::start(builder);
    let mut witnesses: Vec<Subscriber> = (0..3).map(|_| served.subscribe("/stream")).collect();
    let first = room.broadcast(Event::message("seen")).unwrap().id.unwrap();
    for witness in &mut witnesses {
        witness.next();
    }
    let mut back = served.resubscribe("/back", &first.to_string());
    for n in 0..40 {
        assert_eq!(summaries(&back.take(1)), [format!("{n} {data}")]);
    }
    assert_eq!(summaries(&back.take(2)), ["welcome 1", "meanwhile 1"]);
}

#[test]
fn a_welcome_of_merged_channels_comes_before_what_any_of_them_publishes_meanwhile() {
    let channels = ChannelManager::new();
    let [room, lobby] = ["room", "lobby"].map(|name| channels.get_or_create(name).unwrap());
    let builder = Engine::builder()
        .channels(&channels)
        .get("/both", move |_| {
            let (here, there) = (room.clone(), lobby.clone());
            Subscription::new(&room)
                .and(&lobby)
                .on_connect(move |_, welcome| {
                    publish_elsewhere(&there, "meanwhile 1");
                    welcome.send(Event::message("welcome 1")).unwrap();
                    publish_elsewhere(&here, "meanwhile 2");
                    welcome.send(Event::message("welcome 2")).unwrap();
                    publish_elsewhere(&there, "meanwhile 3");
                })
        });
    let served = Served::start(builder);
    let mut client = served.subscribe("/both");
    assert_eq!(summaries(&client.take(2)), WELCOMES);
    assert_eq!(summaries(&client.take(3)), MEANWHILE);
}
