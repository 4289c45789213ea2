//! The progress of a task: 0 to 100, then `complete`, and the stream ends.
//!
//! `cargo run --example progress` prints the address to open.
//!
//! Each task runs on a thread of its own, which is independent of browsers: it publishes to
//! the task's channel, and *finishes* the channel at the end. Any number of browsers that know
//! the task's id can follow it.

#[path = "../shared/mod.rs"]
mod shared;

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Engine, Event, History, PublishError, Request,
    Response,
};
use serde_json::{Value, json};

static TASKS: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<(), Box<dyn Error>> {
    // The newest figure is kept for clients that come later, which request `?last=1`.
    let options = ChannelOptions::new().history(History::events(1));
    let channels = ChannelManager::builder().defaults(options).build();
    let engine = Engine::builder()
        .channels(&channels)
        .get("/", |_| Response::html(include_str!("page.html")))
        .get("/style.css", shared::style)
        .post("/tasks", start_task)
        .get("/tasks/{task}/progress", follow_task);
    let engine = shared::bind(engine);
    engine.run()?;
    Ok(())
}

/// `POST /tasks` starts a task and returns `{"task": id}`.
fn start_task(request: &Request) -> Result<Value, Response> {
    let task = TASKS.fetch_add(1, Ordering::Relaxed) + 1;
    let progress = request.channels().get_or_create(&format!("task {task}"))?;
    thread::spawn(move || work(&progress));
    Ok(json!({"task": task}))
}

/// `GET /tasks/{task}/progress` is the stream of one task.
fn follow_task(request: &Request) -> Response {
    let task = request.param("task").unwrap_or_default();
    match request.channels().get(&format!("task {task}")) {
        Some(progress) => Response::subscribe(&progress),
        None => Response::error(404, "no_such_task", "no such task: start one, POST /tasks"),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is what the work consists in"
)]
fn work(progress: &Channel) -> Result<(), PublishError> {
    for percent in 0..=100 {
        progress.broadcast(Event::new("progress", percent.to_string()))?;
        thread::sleep(Duration::from_millis(50));
    }
    // The last event and the end of the stream. A browser that reconnects receives
    // `204 No Content`, and stops.
    progress.finish(Some(Event::new("complete", "100 pages are written")))?;
    Ok(())
}
