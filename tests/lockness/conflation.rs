//! `LagPolicy::Conflate`: of the events with one key, the newest.

use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;

use pushwheel::{ChannelManager, ChannelOptions, Engine, Event, History, LagPolicy, Subscription};

use crate::Room;
use crate::common::{Connection, Served, Subscriber, summaries};

fn conflating() -> ChannelOptions {
    ChannelOptions::new().lag_policy(LagPolicy::Conflate)
}

#[test]
fn a_newer_event_of_a_key_replaces_the_older_one_for_slow_clients() {
    let room = Room::open(conflating());
    let narrow = Connection::narrow(room.served.address());
    let mut slow = Subscriber::over(narrow, "/stream", &[]);
    slow.wait_for_id();
    let mut quick = room.served.subscribe("/stream");
    let data = "x".repeat(64 << 10);
    for n in 0..400 {
        let key = ["EUR", "USD"][n % 2];
        let event = Event::new(format!("{key} {n}"), &data).with_key(key);
        room.channel.broadcast(event).unwrap();
        assert_eq!(
            quick.next().name,
            format!("{key} {n}"),
            "a client that keeps up has all"
        );
    }
    assert!(room.channel.stats().unwrap().history_events <= 2);
    room.channel.broadcast(Event::message("end")).unwrap();

    let mut seen: Vec<(String, usize)> = Vec::new();
    loop {
        let event = slow.next();
        if event.data == "end" {
            break;
        }
        assert_eq!(event.data, data, "each is whole, and there is no gap");
        let (key, n) = event.name.split_once(' ').unwrap();
        seen.push((key.to_owned(), n.parse().unwrap()));
    }
    assert!(seen.is_sorted_by_key(|(_, n)| *n));
    assert!(seen.len() < 400, "some were replaced");
    let newest = [("EUR".to_owned(), 398), ("USD".to_owned(), 399)];
    assert_eq!(seen[seen.len() - 2..], newest);
    assert_eq!(room.channel.stats().unwrap().gaps, 0);
}

#[test]
fn a_new_client_receives_the_newest_event_of_each_key_first() {
    let room = Room::open(conflating());
    let price = |key: &'static str, price: u32| {
        let event = Event::new(key, price.to_string()).with_key(key);
        room.channel.broadcast(event).unwrap();
    };
    for n in 0..50 {
        price("EUR", n);
        price("USD", n);
        room.channel.broadcast(Event::message("tick")).unwrap();
    }
    price("EUR", 50);
    for _ in 0..3 {
        let mut client = room.served.subscribe("/stream");
        assert_eq!(summaries(&client.take(2)), ["USD 49", "EUR 50"]);
        let published = room.channel.broadcast(Event::message("live")).unwrap();
        assert_eq!(published.clients, room.channel.client_count());
        assert_eq!(summaries(&client.take(1)), ["live"]);
    }
}

#[test]
fn a_client_that_resumes_receives_the_missed_events_that_were_not_replaced() {
    let room = Room::open(conflating());
    let publish = |key: &'static str, data: &'static str| {
        let event = Event::message(data).with_key(key);
        room.channel.broadcast(event).unwrap().id.unwrap()
    };
    publish("a", "a1");
    let seen = publish("b", "b1");
    publish("a", "a2");
    publish("", "without a key");
    publish("a", "a3");
    let mut back = room.served.resubscribe("/stream", &seen.to_string());
    assert_eq!(summaries(&back.take(2)), ["without a key", "a3"]);
}

/// The `n`th event of the publisher below: every third replaces an older one,
/// every third is the only one of its key, every third has no key.
fn nth(n: usize) -> Event<'static> {
    let event = Event::message(n.to_string());
    match n % 3 {
        0 => event.with_key(format!("key {}", n % 7)),
        1 => event.with_key(format!("only {n}")),
        _ => event,
    }
}

#[test]
fn between_the_newest_of_each_key_and_the_live_events_there_is_no_hole_and_no_double() {
    let history = History::events(1_000_000).bytes_max(1 << 30);
    let channels = ChannelManager::new();
    let options = || conflating().history(history);
    let prices = channels.get_or_create_with("prices", options).unwrap();
    let stream = prices.clone();
    let builder = Engine::builder().channels(&channels);
    let builder = builder.get("/{client}", move |request| {
        let prices = stream.clone();
        let marker = format!("joined {}", request.param("client").unwrap());
        Subscription::new(&stream).on_connect(move |_, _| {
            // Certainly between what was and what is live.
            let elsewhere = thread::spawn(move || prices.broadcast(Event::message(marker)));
            elsewhere.join().unwrap().unwrap();
        })
    });
    let served = Served::start(builder);

    for n in 0..3_000 {
        prices.broadcast(nth(n)).unwrap();
    }
    let (enough, stop) = mpsc::channel::<()>();
    let publisher = thread::spawn(move || {
        let mut count = 3_000;
        while stop.try_recv().is_err() && count < 60_000 {
            prices.broadcast(nth(count)).unwrap();
            count += 1;
            thread::yield_now();
        }
        prices.broadcast(Event::message("end")).unwrap();
        count
    });
    let open = |number: usize| {
        let mut client = served.subscribe(&format!("/{number}"));
        client.wait_for_id();
        client
    };
    let clients: Vec<Subscriber> = (0..12).map(open).collect();
    enough.send(()).unwrap();
    let count = publisher.join().unwrap();
    for (n, mut client) in clients.into_iter().enumerate() {
        let (mut all, mut joined) = (Vec::new(), Vec::new());
        loop {
            let event = client.next();
            match event.data.parse::<usize>() {
                Ok(number) => all.push(number),
                Err(_) if event.data == "end" => break,
                Err(_) => joined.push(event.data),
            }
        }
        // Its own marker, and those of all later clients.
        let expected: Vec<String> = (n..12).map(|n| format!("joined {n}")).collect();
        assert_eq!(joined, expected);
        check(&all, count);
    }
}

/// Checks what one client received of `count` events.
fn check(all: &[usize], count: usize) {
    assert!(all.windows(2).all(|two| two[0] < two[1]), "no double");
    let of = |rest: usize| all.iter().copied().filter(move |n| n % 3 == rest);
    let only: Vec<usize> = of(1).collect();
    let expected: Vec<usize> = (1..count).step_by(3).collect();
    assert_eq!(only, expected, "what nothing replaces is there, all of it");
    let live: Vec<usize> = of(2).collect();
    assert!(live.windows(2).all(|two| two[1] == two[0] + 3), "no hole");
    assert!(live.last().is_none_or(|last| last + 3 >= count));
    let newest = |ns: &mut dyn Iterator<Item = usize>| -> HashMap<usize, usize> {
        ns.map(|n| (n % 7, n)).collect()
    };
    let expected = newest(&mut (0..count).step_by(3));
    assert_eq!(newest(&mut of(0)), expected, "the newest of each key");
}

#[test]
fn where_keys_do_not_conflate_they_change_nothing() {
    let (served, channel) = Served::channel(ChannelOptions::new().history(History::events(10)));
    for n in 0..3 {
        let event = Event::message(n.to_string()).with_key("same");
        channel.broadcast(event).unwrap();
    }
    let mut client = served.subscribe("/stream?last_event_id=earliest");
    assert_eq!(summaries(&client.take(3)), ["0", "1", "2"]);
}
