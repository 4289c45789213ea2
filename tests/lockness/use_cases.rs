//! The use cases, where the examples' own suite in the browser does not reach.

use std::thread;

use pushwheel::{
    Channel, ChannelError, ChannelManager, ChannelOptions, Engine, Event, History, Response,
    Subscription,
};
use serde_json::json;

use crate::common::{Served, Subscriber, summaries};

/// The channel of one user.
fn inbox(channels: &ChannelManager, user: &str) -> Result<Channel, ChannelError> {
    channels.get_or_create(&format!("user {user}"))
}

#[test]
fn notify_user_from_any_thread_reaches_all_browsers_of_that_user_alone() {
    let channels = ChannelManager::new();
    let builder = Engine::builder().channels(&channels);
    let builder = builder.get("/{user}", |request| -> Result<Subscription, Response> {
        let user = request.param("user").unwrap();
        Ok(Subscription::new(&inbox(request.channels(), user)?))
    });
    let builder = builder.post("/{user}", |request| -> Result<_, Response> {
        let user = request.param("user").unwrap();
        let event = Event::new("notification", request.text()?);
        let sent = inbox(request.channels(), user)?.broadcast(event)?.clients;
        Ok(json!({"sent": sent}))
    });
    let served = Served::start(builder);
    let mut anns: Vec<Subscriber> = (0..3).map(|_| served.subscribe("/ann")).collect();
    let mut bob = served.subscribe("/bob");
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let channels = channels.clone();
            thread::spawn(move || {
                for n in 0..50 {
                    let event = Event::message(format!("{worker} {n}"));
                    let ann = inbox(&channels, "ann").unwrap();
                    assert_eq!(ann.broadcast(event).unwrap().clients, 3);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let first = summaries(&anns[0].take(200));
    for client in &mut anns[1..] {
        assert_eq!(summaries(&client.take(200)), first, "all in one order");
    }
    for worker in 0..4 {
        let of = |data: &&String| data.starts_with(&format!("{worker} "));
        let own: Vec<&String> = first.iter().filter(of).collect();
        let expected: Vec<String> = (0..50).map(|n| format!("{worker} {n}")).collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>());
    }
    let mut connection = served.connect();
    assert_eq!(connection.post("/bob", "hello").text(), "{\"sent\":1}\n");
    assert_eq!(connection.post("/cyd", "hello").text(), "{\"sent\":0}\n");
    assert_eq!(summaries(&bob.take(1)), ["notification hello"]);
}

#[test]
fn progress_by_task_id_reaches_late_clients_and_ends_with_the_task() {
    let options = ChannelOptions::new().history(History::events(1));
    let channels = ChannelManager::builder().defaults(options).build();
    let builder = Engine::builder().channels(&channels);
    let builder = builder.get("/tasks/{id}", |request| {
        match request.channels().get(request.param("id").unwrap()) {
            Some(task) => Response::subscribe(&task),
            None => Response::error(404, "no_such_task", "no such task: start one"),
        }
    });
    let served = Served::start(builder);
    assert_eq!(served.connect().get("/tasks/7").status, 404);
    let task = channels.get_or_create("7").unwrap();
    let mut early = served.subscribe("/tasks/7");
    for percent in 0..=50 {
        let event = Event::new("progress", percent.to_string());
        task.broadcast(event).unwrap();
    }
    let mut late = served.subscribe("/tasks/7?last=1");
    assert_eq!(summaries(&late.take(1)), ["progress 50"]);
    for percent in 51..=100 {
        let event = Event::new("progress", percent.to_string());
        task.broadcast(event).unwrap();
    }
    task.finish(Some(Event::new("complete", "done"))).unwrap();
    let progress = |from: u32| (from..=100).map(|percent| format!("progress {percent}"));
    let of = |from| progress(from).chain(["complete done".to_owned()]);
    assert!(summaries(&early.rest()).into_iter().eq(of(0)));
    assert!(summaries(&late.rest()).into_iter().eq(of(51)));
    assert_eq!(served.connect().get("/tasks/7").status, 204);
}
