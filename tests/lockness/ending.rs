//! `Channel::finish`: the last event, the end, and `204` to who comes back.

use std::time::Duration;

use pushwheel::{ChannelOptions, Event, History, PublishError};

use crate::Room;
use crate::common::{Subscriber, eventually, told};

#[test]
fn finish_sends_the_last_event_then_the_end_and_who_comes_back_is_answered_204() {
    let room = Room::open(ChannelOptions::new().history(History::events(10)));
    let mut clients: Vec<Subscriber> = (0..4)
        .map(|n| room.served.subscribe(&format!("/stream?id={n}")))
        .collect();
    let first = room.channel.broadcast(Event::message("one")).unwrap().id;
    let mut behind = room.served.resubscribe("/stream?id=4", &first.to_string());
    let last = Event::new("complete", "all");
    assert_eq!(room.channel.finish(Some(last.clone())), Ok(5));
    for client in &mut clients {
        assert_eq!(told(&client.rest()), ["one", "complete all"]);
    }
    assert_eq!(told(&behind.rest()), ["complete all"]);
    eventually("all have left", || room.channel.client_count() == 0);
    let mut connection = room.served.connect();
    for _ in 0..2 {
        let answer = connection.get("/stream");
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (204, None)
        );
    }
    // It is over, but not gone.
    assert!(room.channels.has("room") && !room.channel.is_closed());
    assert_eq!(room.channel.broadcast(&last), Err(PublishError::Finished));
    assert_eq!(room.channel.send("0", &last), Err(PublishError::Finished));
    assert_eq!(
        room.channel.finish(Some(last.clone())),
        Err(PublishError::Finished)
    );
}

#[test]
fn finish_needs_no_last_event_and_frees_the_name_after_a_while() {
    let while_ms = Duration::from_millis(20);
    let room = Room::open(ChannelOptions::new().finished_for(while_ms));
    let mut client = room.served.subscribe("/stream");
    assert_eq!(room.channel.finish(None), Ok(1));
    client.expect_end();
    eventually("it is forgotten", || !room.channels.has("room"));
    assert!(room.channel.is_closed());
    let again = room.channels.get_or_create("room").unwrap();
    assert!(again.broadcast(Event::message("a new one")).is_ok());
}

#[test]
fn finish_refuses_a_last_event_that_cannot_be_written_and_the_channel_goes_on() {
    let room = Room::open(ChannelOptions::new());
    let mut client = room.served.subscribe("/stream");
    let refused = room.channel.finish(Some(Event::new("two\nlines", "")));
    assert!(matches!(refused, Err(PublishError::Event(_))));
    room.channel.broadcast(Event::message("on")).unwrap();
    room.channel.finish(Some(Event::message("end"))).unwrap();
    assert_eq!(told(&client.rest()), ["on", "end"]);
}
