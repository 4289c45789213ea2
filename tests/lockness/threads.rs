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

use crate::common::{PATIENCE, Served, Subscriber, eventually, receive, summaries};

const CLIENTS: usize = 200;

struct Setup {
    served: Served,
    channel: Channel,
    clients: Vec<Subscriber>,
    left: mpsc::Receiver<(usize, DisconnectReason, ThreadId)>,
}

/// Two hundred clients, numbered, on both threads of an engine.
fn set_up() -> Setup {
    let channels = ChannelManager::new();
    let options = || ChannelOptions::new().index("team");
    let channel = channels.get_or_create_with("room", options).unwrap();
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
    Setup {
        served,
        channel,
        clients,
        left,
    }
}

/// Waits until these clients have left, each once.
#[track_caller]
fn expect_left(setup: &Setup, numbers: impl Iterator<Item = usize>, why: DisconnectReason) {
    let expected: HashSet<usize> = numbers.collect();
    let mut reported = HashSet::new();
    for _ in 0..expected.len() {
        let (n, reason, _) = receive(&setup.left);
        assert_eq!(reason, why);
        assert!(reported.insert(n), "{n} is reported once");
    }
    assert_eq!(reported, expected);
}

/// Shuts the engine down, and checks that no further end is reported.
fn expect_no_other(setup: Setup) {
    setup.served.shutdown(Duration::ZERO);
    setup.served.join();
    let more: Vec<_> = setup.left.iter().collect();
    assert_eq!(more, []);
}

#[test]
fn all_clients_receive_all_events_in_one_order_from_several_publishers() {
    let mut setup = set_up();
    let publishers: Vec<_> = (0..3)
        .map(|publisher| {
            let channel = setup.channel.clone();
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
    let first = setup.clients[0].take(300);
    for client in &mut setup.clients[1..] {
        assert_eq!(client.take(300), first, "the ids too");
    }
    for publisher in 0..3 {
        let prefix = format!("{publisher} ");
        let all = summaries(&first);
        let own = all.iter().filter_map(|data| data.strip_prefix(&*prefix));
        assert!(own.eq((0..100).map(|n| n.to_string()).collect::<Vec<_>>().iter()));
    }
    eventually("all is counted", || {
        setup.channel.stats().unwrap().delivered == 300 * CLIENTS as u64
    });
}

#[test]
fn directed_sends_reach_their_client_on_whichever_thread_it_is() {
    let mut setup = set_up();
    for n in 0..CLIENTS {
        let sent = setup
            .channel
            .send(n.to_string(), Event::message(format!("for {n}")));
        assert_eq!(sent.unwrap().clients, 1);
    }
    let even = |client: &pushwheel::Candidate| {
        let n: usize = client.id.to_string().parse().unwrap();
        n.is_multiple_of(2)
    };
    let sent = setup.channel.broadcast_to(even, Event::message("even"));
    assert_eq!(sent.unwrap().clients, CLIENTS / 2);
    let team = [Condition::new("team", "1")];
    let sent = setup.channel.broadcast_where(&team, Event::message("team"));
    assert_eq!(
        sent.unwrap().clients,
        (0..CLIENTS).filter(|n| n % 3 == 1).count()
    );
    setup.channel.broadcast(Event::message("end")).unwrap();
    for (n, client) in setup.clients.iter_mut().enumerate() {
        let mut expected = vec![format!("for {n}")];
        expected.extend((n % 2 == 0).then(|| "even".to_owned()));
        expected.extend((n % 3 == 1).then(|| "team".to_owned()));
        expected.push("end".to_owned());
        assert_eq!(summaries(&client.take(expected.len())), expected);
    }
}

#[test]
fn disconnect_ends_its_client_on_whichever_thread_it_is() {
    let mut setup = set_up();
    for n in (0..CLIENTS).step_by(2) {
        assert!(setup.channel.disconnect(n.to_string()));
        assert!(!setup.channel.has_client(n.to_string()), "at once");
    }
    setup.channel.broadcast(Event::message("on")).unwrap();
    for (n, client) in setup.clients.iter_mut().enumerate() {
        match n % 2 {
            0 => client.expect_end(),
            _ => assert_eq!(client.next().data, "on"),
        }
    }
    expect_left(&setup, (0..CLIENTS).step_by(2), DisconnectReason::Kicked);
    assert_eq!(setup.channel.client_count(), CLIENTS / 2);
    setup.clients.clear();
    expect_left(&setup, (1..CLIENTS).step_by(2), DisconnectReason::Gone);
    assert_eq!(setup.channel.client_count(), 0);
    expect_no_other(setup);
}

#[test]
fn a_client_that_reconnects_replaces_its_old_connection_on_any_thread() {
    let mut setup = set_up();
    for n in 0..CLIENTS {
        let again = setup.served.subscribe(&format!("/{n}"));
        let mut old = std::mem::replace(&mut setup.clients[n], again);
        old.expect_end();
    }
    expect_left(&setup, 0..CLIENTS, DisconnectReason::Replaced);
    assert_eq!(setup.channel.client_count(), CLIENTS);
    setup.channel.broadcast(Event::message("on")).unwrap();
    for client in &mut setup.clients {
        assert_eq!(client.next().data, "on");
    }
    setup.clients.clear();
    expect_left(&setup, 0..CLIENTS, DisconnectReason::Gone);
    expect_no_other(setup);
}

#[test]
fn close_ends_all_clients_of_both_threads() {
    let mut setup = set_up();
    assert_eq!(setup.channel.close(), CLIENTS);
    for client in &mut setup.clients {
        client.expect_end();
    }
    expect_left(&setup, 0..CLIENTS, DisconnectReason::ChannelClosed);
    expect_no_other(setup);
}

#[test]
fn finish_ends_all_clients_of_both_threads_when_they_have_the_last_event() {
    let mut setup = set_up();
    setup.channel.broadcast(Event::message("first")).unwrap();
    assert_eq!(
        setup.channel.finish(Some(Event::message("last"))),
        Ok(CLIENTS)
    );
    for client in &mut setup.clients {
        assert_eq!(summaries(&client.rest()), ["first", "last"]);
    }
    expect_left(&setup, 0..CLIENTS, DisconnectReason::Finished);
    expect_no_other(setup);
}

#[test]
fn a_shutdown_delivers_what_was_published_and_ends_all_clients_of_both_threads() {
    let mut setup = set_up();
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for data in &expected {
        setup.channel.broadcast(Event::message(data)).unwrap();
    }
    setup.served.shutdown(PATIENCE);
    for client in &mut setup.clients {
        assert_eq!(summaries(&client.rest()), expected);
        assert!(client.retry().is_some());
    }
    expect_left(&setup, 0..CLIENTS, DisconnectReason::Shutdown);
    expect_no_other(setup);
}

#[test]
fn callbacks_on_both_threads_call_each_others_channels_without_a_deadlock() {
    let channels = ChannelManager::new();
    let rooms = [0, 1].map(|n| channels.get_or_create(&n.to_string()).unwrap());
    let (sender, left) = mpsc::channel();
    let builder = Engine::builder().threads(2).channels(&channels);
    let builder = builder.get("/{n}", move |request| {
        let n: usize = request.param("n").unwrap().parse().unwrap();
        let (here, there) = (rooms[n % 2].clone(), rooms[1 - n % 2].clone());
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
    let reported: HashSet<usize> = (0..CLIENTS).map(|_| receive(&left)).collect();
    assert_eq!(reported.len(), CLIENTS);
    assert_eq!(channels.total_clients(), 0);
}
