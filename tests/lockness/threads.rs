//! An engine on two threads is one engine to its clients and publishers.

use std::collections::HashSet;
use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use pushwheel::{
    Channel, ChannelManager, ChannelOptions, ClientId, Condition, DisconnectReason, Engine, Event,
    Subscription,
};
use serde_json::json;

use crate::common::{PATIENCE, Served, Subscriber, eventually, receive, told};

const CLIENTS: usize = 200;

struct Hall {
    served: Served,
    channel: Channel,
    clients: Vec<Subscriber>,
    left: mpsc::Receiver<(usize, DisconnectReason, ThreadId)>,
}

/// Two hundred clients, numbered, on both threads of an engine.
fn hall() -> Hall {
    let channels = ChannelManager::new();
    let options = || ChannelOptions::new().index("team");
    let channel = channels.get_or_create_with("hall", options).unwrap();
    let (came, threads) = mpsc::channel();
    let (sender, left) = mpsc::channel();
    let stream = channel.clone();
    let builder = Engine::builder().threads(2).channels(&channels);
    let builder = builder.get("/{n}", move |request| {
        let n: usize = request.param("n").unwrap().parse().unwrap();
        let (came, left) = (came.clone(), sender.clone());
        Subscription::new(&stream)
            .client_id(ClientId::new(&n.to_string()).unwrap())
            .metadata(json!({"team": n % 3}))
            .on_connect(move |_, _| _ = came.send(thread::current().id()))
            .on_disconnect(move |_, why| _ = left.send((n, why, thread::current().id())))
    });
    let served = Served::start(builder);
    let clients: Vec<Subscriber> = (0..CLIENTS)
        .map(|n| served.subscribe(&format!("/{n}")))
        .collect();
    let threads: HashSet<ThreadId> = clients.iter().map(|_| receive(&threads)).collect();
    assert_eq!(threads.len(), 2, "both of them serve");
    assert_eq!(channel.client_count(), CLIENTS);
    Hall {
        served,
        channel,
        clients,
        left,
    }
}

/// Waits until these clients have left, each once.
#[track_caller]
fn expect_left(hall: &Hall, numbers: impl Iterator<Item = usize>, why: DisconnectReason) {
    let expected: HashSet<usize> = numbers.collect();
    let mut told = HashSet::new();
    for _ in 0..expected.len() {
        let (n, reason, _) = receive(&hall.left);
        assert_eq!(reason, why);
        assert!(told.insert(n), "{n} is told of once");
    }
    assert_eq!(told, expected);
}

/// Shuts the engine down, and checks that no further end is reported.
fn expect_nobody_else(hall: Hall) {
    hall.served.shutdown(Duration::ZERO);
    hall.served.join();
    let more: Vec<_> = hall.left.iter().collect();
    assert_eq!(more, []);
}

#[test]
fn everybody_gets_everything_in_one_order_whoever_publishes() {
    let mut hall = hall();
    let publishers: Vec<_> = (0..3)
        .map(|publisher| {
            let channel = hall.channel.clone();
            thread::spawn(move || {
                for n in 0..100 {
                    let event = Event::message(format!("{publisher} {n}"));
                    assert_eq!(channel.broadcast(event).unwrap().clients, CLIENTS);
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.join().unwrap();
    }
    let first = hall.clients[0].take(300);
    for client in &mut hall.clients[1..] {
        assert_eq!(client.take(300), first, "the ids too");
    }
    for publisher in 0..3 {
        let prefix = format!("{publisher} ");
        let all = told(&first);
        let own = all.iter().filter_map(|data| data.strip_prefix(&*prefix));
        assert!(own.eq((0..100).map(|n| n.to_string()).collect::<Vec<_>>().iter()));
    }
    eventually("all is counted", || {
        hall.channel.stats().unwrap().delivered == 300 * CLIENTS as u64
    });
}

#[test]
fn directed_sends_reach_their_client_on_whichever_thread_it_is() {
    let mut hall = hall();
    for n in 0..CLIENTS {
        let sent = hall
            .channel
            .send(n.to_string(), Event::message(format!("for {n}")));
        assert_eq!(sent.unwrap().clients, 1);
    }
    let even = |client: &pushwheel::Candidate| {
        let n: usize = client.id.to_string().parse().unwrap();
        n.is_multiple_of(2)
    };
    let sent = hall.channel.broadcast_to(even, Event::message("even"));
    assert_eq!(sent.unwrap().clients, CLIENTS / 2);
    let team = [Condition::new("team", "1")];
    let sent = hall.channel.broadcast_where(&team, Event::message("team"));
    assert_eq!(
        sent.unwrap().clients,
        (0..CLIENTS).filter(|n| n % 3 == 1).count()
    );
    hall.channel.broadcast(Event::message("end")).unwrap();
    for (n, client) in hall.clients.iter_mut().enumerate() {
        let mut expected = vec![format!("for {n}")];
        expected.extend((n % 2 == 0).then(|| "even".to_owned()));
        expected.extend((n % 3 == 1).then(|| "team".to_owned()));
        expected.push("end".to_owned());
        assert_eq!(told(&client.take(expected.len())), expected);
    }
}

#[test]
fn disconnect_ends_its_client_on_whichever_thread_it_is() {
    let mut hall = hall();
    for n in (0..CLIENTS).step_by(2) {
        assert!(hall.channel.disconnect(n.to_string()));
        assert!(!hall.channel.has_client(n.to_string()), "at once");
    }
    hall.channel.broadcast(Event::message("on")).unwrap();
    for (n, client) in hall.clients.iter_mut().enumerate() {
        match n % 2 {
            0 => client.expect_end(),
            _ => assert_eq!(client.next().data, "on"),
        }
    }
    expect_left(&hall, (0..CLIENTS).step_by(2), DisconnectReason::Kicked);
    assert_eq!(hall.channel.client_count(), CLIENTS / 2);
    hall.clients.clear();
    expect_left(&hall, (1..CLIENTS).step_by(2), DisconnectReason::Gone);
    assert_eq!(hall.channel.client_count(), 0);
    expect_nobody_else(hall);
}

#[test]
fn who_comes_back_replaces_its_ghost_on_whichever_thread_that_is() {
    let mut hall = hall();
    for n in 0..CLIENTS {
        let again = hall.served.subscribe(&format!("/{n}"));
        let mut ghost = std::mem::replace(&mut hall.clients[n], again);
        ghost.expect_end();
    }
    expect_left(&hall, 0..CLIENTS, DisconnectReason::Replaced);
    assert_eq!(hall.channel.client_count(), CLIENTS);
    hall.channel.broadcast(Event::message("on")).unwrap();
    for client in &mut hall.clients {
        assert_eq!(client.next().data, "on");
    }
    hall.clients.clear();
    expect_left(&hall, 0..CLIENTS, DisconnectReason::Gone);
    expect_nobody_else(hall);
}

#[test]
fn close_ends_all_clients_of_both_threads() {
    let mut hall = hall();
    assert_eq!(hall.channel.close(), CLIENTS);
    for client in &mut hall.clients {
        client.expect_end();
    }
    expect_left(&hall, 0..CLIENTS, DisconnectReason::ChannelClosed);
    expect_nobody_else(hall);
}

#[test]
fn finish_ends_all_clients_of_both_threads_when_they_have_the_last_event() {
    let mut hall = hall();
    hall.channel.broadcast(Event::message("first")).unwrap();
    assert_eq!(
        hall.channel.finish(Some(Event::message("last"))),
        Ok(CLIENTS)
    );
    for client in &mut hall.clients {
        assert_eq!(told(&client.rest()), ["first", "last"]);
    }
    expect_left(&hall, 0..CLIENTS, DisconnectReason::Finished);
    expect_nobody_else(hall);
}

#[test]
fn a_shutdown_delivers_what_was_published_and_ends_all_clients_of_both_threads() {
    let mut hall = hall();
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for data in &expected {
        hall.channel.broadcast(Event::message(data)).unwrap();
    }
    hall.served.shutdown(PATIENCE);
    for client in &mut hall.clients {
        assert_eq!(told(&client.rest()), expected);
        assert!(client.retry().is_some());
    }
    expect_left(&hall, 0..CLIENTS, DisconnectReason::Shutdown);
    expect_nobody_else(hall);
}

#[test]
fn callbacks_on_both_threads_call_each_others_channels_without_a_deadlock() {
    let channels = ChannelManager::new();
    let halls = [0, 1].map(|n| channels.get_or_create(&n.to_string()).unwrap());
    let (sender, left) = mpsc::channel();
    let builder = Engine::builder().threads(2).channels(&channels);
    let builder = builder.get("/{n}", move |request| {
        let n: usize = request.param("n").unwrap().parse().unwrap();
        let (here, there) = (halls[n % 2].clone(), halls[1 - n % 2].clone());
        let other = there.clone();
        let sender = sender.clone();
        Subscription::new(&here)
            .on_connect(move |_, welcome| {
                welcome.send(Event::new("welcome", n.to_string())).unwrap();
                let not_it = |c: &pushwheel::Candidate| other.has_client(&c.id);
                other
                    .broadcast_to(not_it, Event::new("joined", n.to_string()))
                    .unwrap();
            })
            .on_disconnect(move |_, _| {
                let _ = (here.client_ids(), there.broadcast(Event::message("left")));
                _ = sender.send(n);
            })
    });
    let served = Served::start(builder);
    let clients: Vec<_> = (0..4)
        .map(|opener| {
            let address = served.address();
            thread::spawn(move || {
                let open = |n: usize| {
                    let path = format!("/{}", 50 * opener + n);
                    let mut client = Subscriber::open(address, &path, &[]);
                    assert_eq!(client.next().name, "welcome");
                    client
                };
                (0..50).map(open).collect::<Vec<_>>()
            })
        })
        .collect();
    let clients: Vec<Vec<_>> = clients.into_iter().map(|c| c.join().unwrap()).collect();
    assert_eq!(channels.total_clients(), CLIENTS);
    drop(clients);
    let told: HashSet<usize> = (0..CLIENTS).map(|_| receive(&left)).collect();
    assert_eq!(told.len(), CLIENTS);
    assert_eq!(channels.total_clients(), 0);
}
