//! Indexed metadata: `ChannelOptions::index` and `Channel::broadcast_where`.

use std::collections::BTreeMap;

use pushwheel::{
    ChannelManager, ChannelOptions, ClientId, Condition, Engine, Event, History, Subscription,
};
use serde_json::{Value, json};

use crate::common::{Served, Subscriber, eventually, summaries};

const CLIENTS: usize = 60;

/// What is known of the `n`th client.
fn metadata(n: usize) -> Value {
    let role = ["admin", "editor"][n % 2];
    json!({
        "user": n % 20,
        "roles": ["reader", role, n % 3],
        "vip": n.is_multiple_of(5),
        "score": 1.5,
        "nothing": null,
        "city": format!("{} {}", "City", n % 4),
        "plain": n % 6,
        "object": {"no": "value"},
    })
}

/// Conditions, and the clients that meet them by the documentation of `Condition`.
type Case = (&'static [(&'static str, &'static str)], fn(usize) -> bool);

const CASES: [Case; 16] = [
    (&[("user", "7")], |n| n % 20 == 7),
    (&[("user", "70")], |_| false),
    (&[("user", "\"7\"")], |_| false),
    (&[("roles", "reader")], |_| true),
    (&[("roles", "admin")], |n| n % 2 == 0),
    (&[("roles", "2")], |n| n % 3 == 2),
    (&[("roles", "admin"), ("roles", "2")], |n| {
        n % 2 == 0 && n % 3 == 2
    }),
    (&[("user", "7"), ("roles", "admin")], |_| false),
    (&[("user", "8"), ("roles", "admin")], |n| n % 20 == 8),
    (&[("vip", "true"), ("user", "5")], |n| n % 20 == 5),
    (&[("score", "1.5"), ("city", "City 3")], |n| n % 4 == 3),
    (&[("nothing", "null"), ("user", "0")], |n| n % 20 == 0),
    (&[("absent", "null")], |_| false),
    (&[("object", "{\"no\":\"value\"}")], |_| false),
    (&[("plain", "4"), ("user", "10")], |n| {
        n % 6 == 4 && n % 20 == 10
    }),
    (&[], |_| true),
];

fn conditions(case: &Case) -> Vec<Condition> {
    let pairs = case.0.iter();
    pairs
        .map(|(field, value)| Condition::new(*field, *value))
        .collect()
}

/// An engine whose client `/{n}` has the metadata of that number.
fn serve(options: ChannelOptions) -> (Served, pushwheel::Channel) {
    let channels = ChannelManager::builder().defaults(options).build();
    let channel = channels.get_or_create("news").unwrap();
    let stream = channel.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/{n}", move |request| {
            let n = request.param("n").unwrap();
            Subscription::new(&stream)
                .client_id(ClientId::new(n).unwrap())
                .metadata(metadata(n.parse().unwrap()))
        });
    (Served::start(builder), channel)
}

#[test]
fn broadcast_where_reaches_clients_that_match_all_conditions_indexed_or_not() {
    let indexed = [
        "user", "roles", "vip", "score", "nothing", "city", "object", "absent",
    ]
    .into_iter()
    .fold(ChannelOptions::new(), ChannelOptions::index);
    for options in [ChannelOptions::new(), indexed] {
        let (served, channel) = serve(options);
        let mut clients: BTreeMap<usize, Subscriber> = (0..CLIENTS)
            .map(|n| (n, served.subscribe(&format!("/{n}"))))
            .collect();
        // Twice: the second time some clients have left.
        for _ in 0..2 {
            for (number, case) in CASES.iter().enumerate() {
                let event = Event::message(number.to_string());
                let published = channel.broadcast_where(&conditions(case), event).unwrap();
                let those = clients.keys().filter(|n| case.1(**n)).count();
                assert_eq!(published.clients, those, "{:?}", case.0);
            }
            channel.broadcast(Event::message("end")).unwrap();
            for (n, client) in &mut clients {
                let those = (0..CASES.len()).filter(|number| CASES[*number].1(*n));
                let expected: Vec<String> = those.map(|number| number.to_string()).collect();
                assert_eq!(
                    summaries(&client.take(expected.len() + 1))[..expected.len()],
                    expected
                );
            }
            clients.retain(|n, _| n % 7 != 3);
            let left = clients.len();
            eventually("some have left", || channel.client_count() == left);
        }
    }
}

#[test]
fn an_index_follows_a_client_that_reconnects_with_other_metadata() {
    let channels = ChannelManager::new();
    let options = || ChannelOptions::new().index("role");
    let news = channels.get_or_create_with("news", options).unwrap();
    let stream = news.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/{role}", move |request| {
            Subscription::new(&stream)
                .client_id(ClientId::new("ann").unwrap())
                .metadata(json!({"role": request.param("role")}))
        });
    let served = Served::start(builder);
    let clients_where = |role: &str| {
        let conditions = [Condition::new("role", role)];
        let event = Event::message(role.to_owned());
        news.broadcast_where(&conditions, event).unwrap().clients
    };
    let mut guest = served.subscribe("/guest");
    assert_eq!((clients_where("guest"), clients_where("admin")), (1, 0));
    let mut admin = served.subscribe("/admin");
    assert_eq!((clients_where("guest"), clients_where("admin")), (0, 1));
    assert_eq!(summaries(&guest.rest()), ["guest"]);
    assert_eq!(summaries(&admin.take(1)), ["admin"]);
}

#[test]
fn an_index_finds_a_client_that_reconnects() {
    let options = ChannelOptions::new()
        .index("user")
        .history(History::events(100));
    let (served, channel) = serve(options);
    let mut client = served.subscribe("/7");
    let id = client.wait_for_id();
    drop(client);
    eventually("it is away", || channel.client_count() == 0);
    for user in ["6", "7", "8", "7"] {
        let conditions = [Condition::new("user", user)];
        let event = Event::message(format!("for {user}"));
        let published = channel.broadcast_where(&conditions, event).unwrap();
        assert_eq!(published.clients, 0);
    }
    channel.broadcast(Event::message("end")).unwrap();
    let mut back = served.resubscribe("/7", &id);
    assert_eq!(summaries(&back.take(3)), ["for 7", "for 7", "end"]);
}

/// `user-joined` for all clients except the new one, as in the manual.
#[test]
fn an_event_about_a_new_client_reaches_all_others_and_clients_that_reconnect() {
    let options = ChannelOptions::new().history(History::events(100));
    let channels = ChannelManager::builder().defaults(options).build();
    let room = channels.get_or_create("room").unwrap();
    let stream = room.clone();
    let builder = Engine::builder()
        .channels(&channels)
        .get("/stream", move |request| {
            let room = stream.clone();
            let subscription = Subscription::new(&stream);
            let subscription = match request.query("id") {
                Some(id) => subscription.client_id(ClientId::new(&id).unwrap()),
                None => subscription,
            };
            subscription.on_connect(move |client, _| {
                let joined = Event::new("user-joined", client.id.to_string());
                room.broadcast_except(&client.id, joined).unwrap();
            })
        });
    let served = Served::start(builder);
    let mut away = served.subscribe("/stream?id=away");
    let mut nameless = served.subscribe("/stream");
    let before = [away.wait_for_id(), nameless.wait_for_id()];
    drop((away, nameless));
    eventually("both are away", || room.client_count() == 0);
    let mut ann = served.subscribe("/stream?id=ann");
    ann.wait_for_id();

    let mut away = served.resubscribe("/stream?id=away", &before[0]);
    // What it missed; not that it is back itself.
    let joined = summaries(&away.take(2));
    assert!(joined[0].starts_with("user-joined "), "{joined:?}");
    assert_eq!(joined[1], "user-joined ann");
    // Under a generated id a client is not recognised, so it hears of itself too.
    let mut nameless = served.resubscribe("/stream", &before[1]);
    let joined = summaries(&nameless.take(3));
    assert_eq!(joined[1..], ["user-joined ann", "user-joined away"]);
    assert!(summaries(&ann.take(1))[0].starts_with("user-joined away"));
}
