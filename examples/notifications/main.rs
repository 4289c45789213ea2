//! Notifications: a channel for each user, and one for all users.
//!
//! `cargo run --example notifications` prints the address to open.

#[path = "../shared/mod.rs"]
mod shared;

use std::error::Error;
use std::thread;
use std::time::Duration;

use pushwheel::{
    ChannelManager, ChannelOptions, Engine, Event, History, Request, Response, Subscription,
};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    // A user whose connection is lost receives the missed events afterwards.
    let options = ChannelOptions::new().history(History::events(20));
    let channels = ChannelManager::builder().defaults(options).build();
    let engine = Engine::builder()
        .channels(&channels)
        .get("/", |_| Response::html(include_str!("page.html")))
        .get("/style.css", shared::style)
        .get("/users/{user}/notifications", subscribe)
        .post("/users/{user}/notifications", notify_one)
        .post("/users/{user}/reports", write_report)
        .post("/notifications", notify_all);
    let engine = shared::bind(engine);
    engine.run()?;
    Ok(())
}

/// Notifies a user, from any thread. Returns the number of browsers that the user has
/// open.
fn notify_user(channels: &ChannelManager, user: &str, text: &str) -> Result<usize, Response> {
    let inbox = channels.get_or_create(&format!("user {user}"))?;
    let published = inbox.broadcast(Event::new("notification", text))?;
    Ok(published.clients)
}

/// The user in the path. A real program takes it from the session.
fn user(request: &Request) -> &str {
    request.param("user").unwrap_or_default()
}

/// One stream of two channels: the user's own, and that of all users.
fn subscribe(request: &Request) -> Result<Subscription, Response> {
    let channels = request.channels();
    let inbox = channels.get_or_create(&format!("user {}", user(request)))?;
    let all = channels.get_or_create("all")?;
    Ok(Subscription::new(&inbox).and(&all))
}

/// The body is the text; the response is `{"sent": n}`.
fn notify_one(request: &Request) -> Result<Value, Response> {
    let sent = notify_user(request.channels(), user(request), request.text()?)?;
    Ok(json!({"sent": sent}))
}

fn notify_all(request: &Request) -> Result<Value, Response> {
    let all = request.channels().get_or_create("all")?;
    let published = all.broadcast(Event::new("notification", request.text()?))?;
    Ok(json!({"sent": published.clients}))
}

/// Responds at once; the thread that does the work notifies the user later.
#[allow(
    clippy::disallowed_methods,
    reason = "this is what the work consists in"
)]
fn write_report(request: &Request) -> Response {
    let (channels, user) = (request.channels().clone(), user(request).to_owned());
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(1));
        notify_user(&channels, &user, "Your report is ready")
    });
    Response::status(202)
}
