//! A server whose process was stopped and continued. The time in between does not count
//! against clients.

use super::commands::Running;
use crate::common::{Connection, eventually};

/// More events than one poll reports (1,024).
const CLIENTS: usize = 1_500;

/// Long enough for the clients to connect.
const SERVE: [&str; 5] = [
    "serve",
    "--listen=127.0.0.1:0",
    "--head-timeout=4",
    "--idle-timeout=4",
    "--body-timeout=4",
];

#[test]
fn what_arrives_while_the_process_is_stopped_is_answered_when_it_goes_on() {
    let mut server = Running::start(&SERVE);
    let address = server.address();
    let mut clock = Running::start(&SERVE);
    let mut clients: Vec<Connection> = (0..CLIENTS).map(|_| Connection::open(address)).collect();
    // A third is idle, a third has sent part of a head, a third part of a body.
    let get = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    let post = "POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
                Content-Length: 5\r\n\r\nhello"
        .to_owned();
    let requests = [(&get, 0), (&get, 20), (&post, post.len() - 3)];
    for (client, (request, sent)) in clients.iter_mut().zip(requests.iter().cycle()) {
        client.send(format!("{get}{}", &request[..*sent]));
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    server.signal("STOP");
    eventually("the server stops", || server.state() == Some('T'));
    for (client, (request, sent)) in clients.iter_mut().zip(requests.iter().cycle()) {
        client.send(&request[*sent..]);
    }
    // Another server with the same timeouts is the clock.
    let mut late = Connection::open(clock.address());
    late.send(&get[..20]);
    assert_eq!(late.answer().status, 408);
    server.signal("CONT");
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().status, 200, "client {number}");
    }
}
