//! One channel, and events for some of its clients: for admins only, or for one user.
//!
//! `cargo run --example filtered` prints the address to open.

#[path = "../shared/mod.rs"]
mod shared;

use std::error::Error;

use pushwheel::{
    ChannelManager, ChannelOptions, Condition, Engine, Event, Request, Response, Subscription,
};
use serde_json::{Value, json};

/// The users. A real program has sessions.
const ADMINS: [&str; 1] = ["ann"];

fn main() -> Result<(), Box<dyn Error>> {
    let channels = ChannelManager::new();
    let options = || ChannelOptions::new().index("user");
    let office = channels.get_or_create_with("office", options)?;
    let (stream, all, admins, one) = (office.clone(), office.clone(), office.clone(), office);

    let engine = Engine::builder()
        .channels(&channels)
        .get("/", |_| Response::html(include_str!("page.html")))
        .get("/style.css", shared::style)
        // A client gets its metadata when it subscribes.
        .get("/events", move |request| {
            let user = request.query("user").unwrap_or_default();
            let role = if ADMINS.contains(&&*user) {
                "admin"
            } else {
                "member"
            };
            Subscription::new(&stream).metadata(json!({"user": user, "role": role}))
        })
        .post("/all", move |request| {
            answer(all.broadcast(memo("all", request)?)?.clients)
        })
        // A filter is any predicate over a client's id and metadata.
        .post("/admins", move |request| {
            let is_admin = |role: &Value| role == "admin";
            let memo = memo("the admins", request)?;
            answer(
                admins
                    .broadcast_to(|client| is_admin(&client.metadata["role"]), memo)?
                    .clients,
            )
        })
        // A condition compares a field with a value. This field is indexed: the cost
        // grows with the matching clients, not with all clients.
        .post("/users/{user}", move |request| {
            let user = request.param("user").unwrap_or_default();
            let memo = memo(user, request)?;
            answer(
                one.broadcast_where(&[Condition::new("user", user)], memo)?
                    .clients,
            )
        });
    let engine = shared::bind(engine);
    engine.run()?;
    Ok(())
}

/// Returns the event for a request's body.
fn memo(to: &str, request: &Request) -> Result<Event<'static>, Response> {
    let memo = json!({"to": to, "text": request.text()?});
    Ok(Event::new("memo", memo.to_string()))
}

fn answer(sent: usize) -> Result<Value, Response> {
    Ok(json!({"sent": sent}))
}
