//! What the examples share: where they listen, and how their pages look.

use std::process;

use pushwheel::{Engine, EngineBuilder, Request, Response};

/// Binds an example's engine and says which address to open. Where it cannot
/// listen the program ends, and says how to choose another address.
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

/// Where to listen: `--listen ADDRESS`, else `$PUSHWHEEL_LISTEN`, else port
/// 3000 of this machine alone.
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
