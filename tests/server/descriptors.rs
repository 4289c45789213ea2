//! The server when its descriptors run out.

use std::process::Command;

use super::commands::{Running, pushwheel};
use super::{TEXT, ask_over};
use crate::common::{Connection, Subscriber};

const LIMIT: usize = 200;
const CLIENTS: usize = 300;

#[test]
fn without_descriptors_the_server_stays_up_says_so_once_and_goes_on_later() {
    let serve = pushwheel(&["serve", "--listen", "127.0.0.1:0"]);
    let mut command = Command::new("bash");
    let script = format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(serve.get_program());
    command.args(serve.get_args());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stderr(std::process::Stdio::piped());
    let mut server = Running::spawn(&mut command);
    let address = server.address();

    // One that it has already, to publish over.
    let mut publisher = Connection::open(address);
    let answer = ask_over(&mut publisher, "GET", "/health", &[], "");
    assert_eq!(answer.status, 200);

    // All of them connect, for the kernel does that, and ask.
    let ask = |_| {
        let mut connection = Connection::open(address);
        connection.send("GET /channels/a HTTP/1.1\r\nHost: test\r\n\r\n");
        connection
    };
    let mut waiting = (0..CLIENTS).map(ask);
    let mut served: Vec<Subscriber> = waiting.by_ref().take(100).map(Subscriber::begun).collect();
    let mut others: Vec<Connection> = waiting.collect();

    // Those who are in are served, and whoever publishes is answered.
    for round in 0..3 {
        let body = format!("round {round}");
        let answer = ask_over(&mut publisher, "POST", "/channels/a", &[TEXT], &body);
        assert_eq!(answer.status, 200);
        for stream in &mut served {
            assert_eq!(stream.next().data, body);
        }
    }

    // As they leave, those who wait get in, in their order.
    drop(served);
    let rest = others.split_off(CLIENTS - 100 - 100);
    for connection in others {
        let _stream = Subscriber::begun(connection);
    }
    for connection in rest {
        let _stream = Subscriber::begun(connection);
    }

    server.signal("TERM");
    drop(publisher);
    let told = server.complaints();
    assert_eq!(server.exit_code(), Some(0), "{told}");
    assert_eq!(
        told.matches("no connection can be accepted").count(),
        1,
        "{told}"
    );
}
