//! What the examples share: where they listen, and how their pages look.

use pushwheel::{Request, Response};

/// Where to listen: `--listen ADDRESS`, else `$PUSHWHEEL_LISTEN`, else port
/// 3000 of this machine alone.
pub(crate) fn listen_address() -> String {
    let argument = std::env::args()
        .skip_while(|word| word != "--listen")
        .nth(1);
    argument
        .or_else(|| std::env::var("PUSHWHEEL_LISTEN").ok())
        .unwrap_or_else(|| "127.0.0.1:3000".to_owned())
}

/// `GET /style.css`: the style sheet of all pages.
pub(crate) fn style(_: &Request) -> Response {
    Response::text(include_str!("style.css"))
        .with_header("Content-Type", "text/css; charset=utf-8")
        .expect("this is a header")
}
