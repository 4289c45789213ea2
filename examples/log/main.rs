//! A live log for admins only: other requests are answered 403 before the stream begins. The
//! log is that of the requests to this server.
//!
//! `cargo run --example log` prints the address to open.

#[path = "../shared/mod.rs"]
mod shared;

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Engine, Event, HeaderError, History, Method, Request,
    Response,
};
use serde_json::json;

/// The admins. A real program has sessions and asks for a password.
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
        .guard(Method::Get, "/log", only_admins)
        .get("/log", move |_| Response::subscribe(&stream))
        .get("/hello", |_| "hello")
        .get("/broken", broken)
        .after(move |request, response| write_line(&log, request, response));
    let engine = shared::bind(engine);
    engine.run()?;
    Ok(())
}

/// The user of a request, for the handler and the log.
struct User(String);

/// An `EventSource` cannot send headers that the page chooses, but it sends the cookies of
/// its origin.
fn only_admins(request: &mut Request) -> Option<Response> {
    let cookies = request.header("cookie").unwrap_or_default();
    let mut cookies = cookies.split("; ");
    let user = cookies.find_map(|cookie| cookie.strip_prefix("user="));
    let Some(user) = user.filter(|user| ADMINS.contains(user)) else {
        let message = "the log is for admins. Sign in as one";
        return Some(Response::error(403, "forbidden", message));
    };
    let user = User(user.to_owned());
    request.extensions_mut().insert(user);
    None
}

fn sign_in(request: &Request) -> Result<Response, HeaderError> {
    let user = request.param("user").unwrap_or_default();
    let cookie = format!("user={user}; Path=/; HttpOnly; SameSite=Strict");
    Response::status(204).with_header("Set-Cookie", cookie)
}

/// It affects no other request, and is logged.
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
        "user": request.extensions().get().map(|User(name)| name),
    });
    // The channel is never closed and a line is small, so this cannot fail.
    let _ = log.broadcast(Event::new("line", line.to_string()));
}
