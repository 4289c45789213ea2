//! Parts of all examples: the address and the style of the pages.

use std::process;

use pushwheel::{Engine, EngineBuilder, Request, Response};

/// Binds an example's engine and prints the address to open. If it cannot listen, the program
/// ends and prints how to choose another address.
#[allow(clippy::print_stdout, reason = "it says where to look")]
pub(crate) fn bind(engine: EngineBuilder) -> Engine {
    let address = listen_address();
    match engine.bind(&*address) {
        Ok(engine) => {
            println!("open http://{}/", engine.local_addr());
            engine
        }
        Err(error) => {
            eprintln!(
                "cannot listen on {address}: {error}. Choose another port, as in \
                 `cargo run --example NAME -- --listen 127.0.0.1:3001`"
            );
            process::exit(1)
        }
    }
}

/// Returns the address: `--listen ADDRESS`, otherwise `$PUSHWHEEL_LISTEN`, otherwise port 3000
/// on loopback.
fn listen_address() -> String {
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
