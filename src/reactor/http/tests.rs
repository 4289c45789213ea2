//! Requests and responses over a network in memory, without streams.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::limits::Limits;
use crate::metrics::Meters;
use crate::proxies::Proxies;
use crate::reactor::budgets::Budgets;
use crate::reactor::io::Io;
use crate::reactor::io::counts::ConnectionCounts;
use crate::reactor::io::memory::{Memory, Wire};
use crate::reactor::turn::Turn;

/// Answers each request with its path.
struct Echo;

impl Service for Echo {
    fn call(&self, request: &mut Request) -> Response {
        Response::text(request.path().to_owned())
    }

    fn admit(&self, _: &mut Request) -> Option<Response> {
        None
    }

    fn finish(&self, _: &Request, _: &mut Response) {}

    fn on_refusal(&self, _: &Rejection<'_>) {}
}

struct Server {
    io: Io<Memory>,
    http: Http,
    key: u32,
    wire: Rc<RefCell<Wire>>,
}

/// A server with one connection, whose socket has so much room.
fn server(budgets: Budgets, room: usize) -> Server {
    let channels = ChannelManager::new();
    let reactor: (crate::hub::Waker, Meters) = (Box::new(|| {}), Meters::new(&[]));
    let attachment = Arc::new(
        channels
            .hub()
            .attach(crate::hub::Place::Engine, [reactor])
            .unwrap(),
    );
    let turn = Turn::new(budgets, 0);
    let counts = Arc::new(ConnectionCounts::new(usize::MAX));
    let meters = attachment.engine().meters(0).clone();
    let mut io = Io::new(Memory, 0, Limits::default(), meters, counts, turn);
    let (command_queue, _) = CommandQueue::new(&attachment, 0);
    let http = Http::new(
        Arc::new(Echo),
        channels,
        attachment,
        InFlight::default(),
        Headers::new(),
        Proxies::default(),
        command_queue,
    );
    let wire = Wire::new(room);
    let peer = ([127, 0, 0, 1], 1).into();
    let key = io.insert(wire.clone(), peer, None).unwrap();
    Server {
        io,
        http,
        key,
        wire,
    }
}

impl Server {
    fn send(&self, text: &str) {
        self.wire.borrow_mut().sent.push_back(text.into());
    }

    fn serve(&mut self) {
        let opening = self.http.serve(&mut self.io, self.key);
        assert!(opening.is_none(), "no request opens a stream here");
    }

    /// The bodies that were received since the last call.
    fn bodies(&self) -> Vec<String> {
        let text = self.wire.borrow_mut().take_text();
        let heads = text.split("HTTP/1.1 200 OK\r\n").skip(1);
        let body = |response: &str| response.split("\r\n\r\n").nth(1).map(str::to_owned);
        heads.filter_map(body).collect()
    }
}

const HOST: &str = " HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn requests_that_come_together_are_answered_in_order_and_in_slices() {
    let mut server = server(
        Budgets {
            requests_a_slice: 2,
            reads_a_turn: 1,
            ..Budgets::default()
        },
        usize::MAX,
    );
    server.send(
        &["/a", "/b", "/c"]
            .map(|path| format!("GET {path}{HOST}"))
            .concat(),
    );
    server.serve();
    assert_eq!(server.bodies(), ["/a", "/b"]);
    assert_eq!(server.http.next_queued(&mut server.io), Some(server.key));
    server.serve();
    assert_eq!(server.bodies(), ["/c"]);
}

#[test]
fn a_response_that_does_not_fit_goes_on_before_the_next_request_is_read() {
    let mut server = server(Budgets::default(), 20);
    server.send(&format!("GET /a{HOST}"));
    server.serve();
    server.send(&format!("GET /b{HOST}"));
    server.serve();
    assert_eq!(server.wire.borrow().received.len(), 20);
    assert_eq!(server.wire.borrow().sent.len(), 1, "the next one waits");
    server.wire.borrow_mut().room = usize::MAX;
    server.http.on_writable(&mut server.io, server.key);
    assert_eq!(server.http.next_queued(&mut server.io), Some(server.key));
    server.serve();
    assert_eq!(server.bodies(), ["/a", "/b"]);
}

#[test]
fn a_malformed_request_is_the_last_one() {
    let mut server = server(Budgets::default(), usize::MAX);
    server.send(&format!("GET / HTTP/9.9\r\n\r\nGET /b{HOST}"));
    server.serve();
    let text = server.wire.borrow_mut().take_text();
    assert!(text.starts_with("HTTP/1.1 505 "), "{text}");
    assert!(!text.contains("/b"), "{text}");
    server.send("");
    server.serve();
    assert!(server.wire.borrow().is_closed);
}
