//! A log followed live, by admins only: anybody else is answered 403 before
//! the stream begins. The log is that of the requests to this very server.
//!
//! `cargo run --example log` prints the address to open.

#[path = "../shared/mod.rs"]
mod shared;

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Engine, Event, HeaderError, History, Request, Response,
};
use serde_json::json;

/// Who is an admin. A real program has sessions, and asks for a password.
const ADMINS: [&str; 1] = ["ann"];

fn main() -> Result<(), Box<dyn Error>> {
    let channels = ChannelManager::new();
    let options = || ChannelOptions::new().history(History::events(200));
    let log = channels.get_or_create_with("log", options)?;
    let stream = log.clone();
    let engine = Engine::builder()
        .channels(&channels)
        .get("/", |_| Response::html(include_str!("page.html")))
        .get("/style.css", shared::style)
        .post("/sign-in/{user}", sign_in)
        .get("/log", move |request| match is_admin(request) {
            true => Response::subscribe(&stream),
            false => Response::error(403, "forbidden", "the log is for admins: sign in as one"),
        })
        .get("/hello", |_| "hello")
        .get("/broken", broken)
        .after(move |request, response| write_line(&log, request, response));
    let engine = shared::bind(engine);
    engine.run()?;
    Ok(())
}

/// An `EventSource` sends no headers of the page's choice, but it does send
/// the cookies of its origin.
fn is_admin(request: &Request) -> bool {
    let cookies = request.header("cookie").unwrap_or_default();
    let user = cookies
        .split("; ")
        .find_map(|pair| pair.strip_prefix("user="));
    user.is_some_and(|user| ADMINS.contains(&user))
}

fn sign_in(request: &Request) -> Result<Response, HeaderError> {
    let user = request.param("user").unwrap_or_default();
    let cookie = format!("user={user}; Path=/; HttpOnly; SameSite=Strict");
    Response::status(204).with_header("Set-Cookie", cookie)
}

/// It costs nobody else anything, and gives a line in the log.
fn broken(_: &Request) -> Response {
    panic!("this handler is broken, for the sake of the example")
}

#[allow(clippy::disallowed_methods, reason = "a log has times")]
fn write_line(log: &Channel, request: &Request, response: &Response) {
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let line = json!({
        "at_s": at.as_secs_f64(),
        "status": response.status_code(),
        "request": format!("{} {}", request.method().as_str(), request.path()),
        "peer": request.client_address().to_string(),
    });
    // Nobody closes this channel, and a line is small: it cannot fail.
    let _ = log.broadcast(Event::new("line", line.to_string()));
}
