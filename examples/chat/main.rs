//! Chat rooms: a channel for each room, which its first visitor creates. It is removed when
//! it has no clients and no history.
//!
//! `cargo run --example chat` prints the address to open.

#[path = "../shared/mod.rs"]
mod shared;

use std::error::Error;

use pushwheel::{
    Channel, ChannelManager, ChannelOptions, ClientId, ClientInfo, Engine, Event, History,
    PublishError, Request, Response, Subscription, Welcome,
};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    // A client that loses its connection for a moment misses no message.
    let options = ChannelOptions::new().history(History::events(100));
    let channels = ChannelManager::builder().defaults(options).build();
    let engine = Engine::builder()
        .channels(&channels)
        .get("/", |_| Response::html(include_str!("page.html")))
        .get("/style.css", shared::style)
        .get("/rooms/{room}/events", enter)
        .post("/rooms/{room}/messages", say);
    let engine = shared::bind(engine);
    engine.run()?;
    Ok(())
}

/// The room in the path.
fn room(request: &Request) -> Result<Channel, Response> {
    let name = request.param("room").unwrap_or_default();
    Ok(request.channels().get_or_create(name)?)
}

/// `GET /rooms/{room}/events?name=…&id=…` enters the room, and leaves it when the stream
/// ends, for whatever reason. The page chooses the id and keeps it when it reconnects, so it
/// never receives an event for all other pages.
fn enter(request: &Request) -> Result<Subscription, Response> {
    let room = room(request)?;
    let name = request.query("name").unwrap_or("guest".into());
    let (entered, left) = (room.clone(), room.clone());
    let subscription = match request.query("id").map(|id| ClientId::new(&id)) {
        Some(Ok(id)) => Subscription::new(&room).client_id(id),
        Some(Err(error)) => {
            return Err(Response::error(
                400,
                "client_id_invalid",
                &error.to_string(),
            ));
        }
        None => Subscription::new(&room),
    };
    // A publish fails only when the room is closed. Then it has no clients.
    Ok(subscription
        .metadata(json!({"name": name}))
        .on_connect(move |client, welcome| {
            let _ = announce(&entered, client, welcome);
        })
        .on_disconnect(move |gone, _reason| {
            let _ = left.broadcast(Event::new("user-left", gone.metadata.to_string()));
        }))
}

/// Sends a new client the names in the room, and its name to all others.
fn announce(
    room: &Channel,
    client: &ClientInfo,
    welcome: &mut Welcome,
) -> Result<(), PublishError> {
    let clients = room.clients();
    let names = clients.iter().map(|client| &client.metadata["name"]);
    let here = json!({"here": names.collect::<Vec<&Value>>()});
    welcome.send(Event::new("welcome", here.to_string()))?;

    let joined = Event::new("user-joined", client.metadata.to_string());
    room.broadcast_except(&client.id, joined)?;
    Ok(())
}

/// `POST /rooms/{room}/messages` with `{"name": …, "text": …}`.
fn say(request: &Request) -> Result<Value, Response> {
    let message: Value = request.json()?;
    room(request)?.broadcast(Event::new("message", message.to_string()))?;
    Ok(json!({"ok": true}))
}
