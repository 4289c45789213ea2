//! What clients that catch up leave to everything else, counted in turns of the
//! loop.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "../benches/parts/net.rs"]
#[allow(dead_code, reason = "the benches use the rest of it")]
mod net;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use net::Takers;
use pushwheel::internals::{Budgets, SimulatedEngine};
use pushwheel::{
    ChannelManager, ChannelOptions, Engine, Event, History, IntoResponse, Response, Start,
    Subscription,
};

const CATCHING_UP: usize = 100;

/// An engine with so many events of 1 KB in each of 8 channels. `/stream` reads
/// all of them, `/ask` counts its requests.
fn engine(
    channels: &ChannelManager,
    events: usize,
    asked: &Arc<AtomicUsize>,
) -> SimulatedEngine<Takers> {
    let history = History::events(events).bytes_max(64 << 20);
    let options = || ChannelOptions::new().history(history);
    let all: Vec<_> = (0..8)
        .map(|n| channels.get_or_create_with(&format!("c{n}"), options))
        .collect::<Result<_, _>>()
        .unwrap();
    let data = "x".repeat(1_000);
    for _ in 0..events {
        for channel in &all {
            channel.broadcast(Event::message(&data[..])).unwrap();
        }
    }
    let asked = asked.clone();
    let engine = Engine::builder()
        .channels(channels)
        .get("/stream", move |_| {
            let merged = Subscription::new(&all[0]).start(Start::Earliest);
            let merged = all[1..].iter().fold(merged, Subscription::and);
            merged.into_response()
        })
        .get("/ask", move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            Response::text("yes")
        });
    net::simulated(engine)
}

#[test]
fn a_request_does_not_wait_behind_clients_that_catch_up() {
    let (channels, asked) = (ChannelManager::new(), Arc::new(AtomicUsize::new(0)));
    let mut engine = engine(&channels, 250, &asked);
    engine.net().come(CATCHING_UP);
    while channels.total_clients() < 8 * CATCHING_UP {
        engine.turn().unwrap();
    }
    engine.net().request = Some(b"GET /ask HTTP/1.1\r\nHost: localhost\r\n\r\n");
    engine.net().come(1);
    // It is accepted in one turn, and heard in the next.
    engine.turn().unwrap();
    let bytes = engine.net().bytes;
    engine.turn().unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // And it comes in the middle of the catching up, which goes on.
    let written = engine.net().bytes - bytes;
    let budgets = Budgets::default();
    let max = budgets.cursor_bytes_a_turn;
    let usual = max..max + budgets.buffer_bytes;
    assert!(usual.contains(&written), "{written} bytes in a turn");
    assert!(engine.net().bytes < CATCHING_UP * 8 * 250 * 1_000);
}
