//! `EventSource` in a page: named events, errors, automatic reconnection, and the end. The
//! page is the example; this is its server.
//!
//! `cargo run --example page` prints the address to open.

#[path = "../shared/mod.rs"]
mod shared;

use std::error::Error;
use std::thread;
use std::time::Duration;

use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Engine, Event, History, PublishError, Response,
};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let channels = ChannelManager::new();
    // With a history, a client that comes back receives the events in between.
    let options = || ChannelOptions::new().history(History::events(1_000));
    let clock = channels.get_or_create_with("clock", options)?;
    let (stream, cut) = (clock.clone(), clock.clone());
    let engine = Engine::builder()
        .channels(&channels)
        .get("/", |_| Response::html(include_str!("page.html")))
        .get("/style.css", shared::style)
        .get("/clock", move |_| Response::subscribe(&stream))
        // Cuts all connections, as a bad network would.
        .post("/cut", move |_| {
            let clients = cut.client_ids();
            let gone = clients.iter().filter(|id| cut.disconnect(*id)).count();
            json!({"cut": gone})
        });
    let engine = shared::bind(engine);
    thread::spawn(move || tick(&clock));
    engine.run()?;
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a clock waits")]
fn tick(clock: &Channel) -> Result<(), PublishError> {
    for number in 1.. {
        // A browser that loses its connection reconnects after 2 s.
        let tick = Event::new("tick", number.to_string()).with_retry(Duration::from_secs(2));
        clock.broadcast(tick)?;
        if number % 10 == 0 {
            clock.broadcast(Event::message(format!("{number} ticks so far")))?;
        }
        thread::sleep(Duration::from_millis(400));
    }
    Ok(())
}
