//! Compares the engine with the machine's limit: runs `pushwheel bench fanout --against
//! bare`, which measures the server and a bare loop of `send()` in pairs.
//!
//! ```text
//! cargo bench --bench fanout                          about a minute
//! cargo bench --bench fanout -- --clients 18000       further options: see
//!                                                     pushwheel bench fanout --help
//! ```

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = arguments.len();
    arguments.retain(|argument| argument != "--bench");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushwheel"));
    command.args(["bench", "fanout", "--against", "bare"]);
    if arguments.len() < given {
        command.args(arguments);
    } else {
        // For `cargo test`: a tiny run checks that the program works.
        command.args(["--clients=50", "--events=3", "--rounds=1"]);
    }
    let status = command.status().expect("cargo has built pushwheel");
    ExitCode::from(u8::from(!status.success()))
}
