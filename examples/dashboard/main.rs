//! A live dashboard: figures every second for all open pages, and the last minute for a page
//! that is opened.
//!
//! `cargo run --example dashboard` prints the address to open.

#[path = "../shared/mod.rs"]
mod shared;

use std::error::Error;
use std::thread;
use std::time::Duration;

use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Engine, Event, History, LagPolicy, PublishError,
    Response,
};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let channels = ChannelManager::new();
    let options = || {
        ChannelOptions::new()
            // For a new client: the page requests `?last=60`.
            .history(History::events(60))
            // A slow client needs the newest figures, not all missed ones.
            .lag_policy(LagPolicy::Skip)
    };
    let dashboard = channels.get_or_create_with("dashboard", options)?;
    let stream = dashboard.clone();
    let engine = Engine::builder()
        .channels(&channels)
        .get("/", |_| Response::html(include_str!("page.html")))
        .get("/style.css", shared::style)
        .get("/stats", move |_| Response::subscribe(&stream));
    let engine = shared::bind(engine);
    thread::spawn(move || publish_stats(&dashboard));
    engine.run()?;
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a second has to pass")]
fn publish_stats(dashboard: &Channel) -> Result<(), PublishError> {
    for second in 0.. {
        let stats = measure(dashboard, second);
        dashboard.broadcast(Event::new("stats", stats.to_string()))?;
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// The number of viewers is real; the figures of the shop are random.
fn measure(dashboard: &Channel, second: u32) -> Value {
    let wave = |seconds: f64| (f64::from(second) * std::f64::consts::TAU / seconds).sin();
    json!({
        "watching": dashboard.client_count(),
        "orders_per_minute": (240.0 + 90.0 * wave(40.0) + 25.0 * wave(7.0)).round(),
        "answer_ms": (38.0 + 9.0 * wave(23.0) + 6.0 * wave(5.0)).round(),
        "load_percent": (52.0 + 21.0 * wave(31.0) + 9.0 * wave(6.0)).round(),
    })
}
