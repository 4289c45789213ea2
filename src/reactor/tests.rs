//! Turns over a network in memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::io::memory::{Memory, Wire};
use super::*;
use crate::exchange::{Request, Response, Subscription};
use crate::hub::{Place, Waker};
use crate::metrics::Meters;
use crate::{Channel, ChannelOptions, Event, History, Rejection, Start};

/// The events of a page that is 64 requests more work than a request.
const EVENTS: usize = 1024;

/// Answers each request with a page of a channel, or leaves that to another thread.
struct Pages {
    channel: Channel,
    defers: bool,
}

impl Service for Pages {
    fn call(&self, _: &mut Request) -> Response {
        let subscription = Subscription::new(&self.channel).start(Start::Earliest);
        let page: Response = subscription.answer_once(Duration::ZERO).into();
        match self.defers {
            true => Response::deferred(|responder| responder.respond(page)),
            false => page,
        }
    }

    fn admit(&self, _: &mut Request) -> Option<Response> {
        None
    }

    fn finish(&self, _: &Request, _: &mut Response) {}

    fn on_refusal(&self, _: &Rejection<'_>) {}
}

/// A reactor that answers with pages, and the other ends of so many connections to it, each
/// of which has sent a request.
fn asked(connections: u16, defers: bool) -> (Reactor<Memory>, Vec<Rc<RefCell<Wire>>>) {
    let channels = ChannelManager::new();
    let options = || ChannelOptions::new().history(History::events(EVENTS));
    let channel = channels.get_or_create_with("news", options).unwrap();
    channel
        .broadcast_batch(vec![Event::message("x"); EVENTS])
        .unwrap();
    let reactor: (Waker, Meters) = (Box::new(|| {}), Meters::new(&[]));
    let attachment = channels.hub().attach(Place::Engine, [reactor]).unwrap();
    let setup = Setup {
        index: 0,
        attachment: Arc::new(attachment),
        channels,
        service: Arc::new(Pages { channel, defers }),
        limits: Limits::default(),
        counts: Arc::new(ConnectionCounts::new(usize::MAX)),
        in_flight: InFlight::default(),
        budgets: Budgets::default(),
        headers: Headers::new(),
        proxies: Proxies::default(),
    };
    let mut reactor = Reactor::new(Memory, setup);
    let wires = (0..connections).map(|port| {
        let wire = Wire::new(usize::MAX);
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        wire.borrow_mut().sent.push_back(request);
        let peer = ([127, 0, 0, 1], port).into();
        reactor.io.insert(wire.clone(), peer, None).unwrap();
        wire
    });
    let wires = wires.collect();
    (reactor, wires)
}

fn answered(wires: &[Rc<RefCell<Wire>>]) -> usize {
    let answered = wires
        .iter()
        .filter(|wire| !wire.borrow().received.is_empty());
    answered.count()
}

#[test]
fn answers_with_pages_are_as_much_work_as_many_commands() {
    let (mut reactor, wires) = asked(5, true);
    for key in 0..5 {
        assert!(reactor.http.serve(&mut reactor.io, key).is_none());
    }
    for expected in [2, 4, 5] {
        reactor.io.turn.begin(0, [false; 3]);
        reactor.run_commands();
        assert_eq!(answered(&wires), expected);
        assert_eq!(reactor.io.turn.spent.requests, 0, "requests have theirs");
    }
}

#[test]
fn pages_that_timers_read_beyond_the_budget_are_as_much_work_as_many_timers() {
    let (mut reactor, wires) = asked(9, false);
    let late_us = 1000 * as_us(Limits::default().idle_timeout);
    for expected in [4, 8, 9] {
        reactor.io.turn.begin(late_us, [false; 3]);
        reactor.io.turn.spent.requests = Budgets::default().requests_a_turn;
        reactor.fire_timers();
        assert_eq!(answered(&wires), expected);
    }
}

fn as_us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap()
}
