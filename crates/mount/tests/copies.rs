//! Per client, nothing: the bytes that an event copies do not depend on its clients.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::alloc::System;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use futures_core::Stream;
use pushwheel::{ChannelManager, Event, Subscription};
use pushwheel_mount::{Body, Mount, StreamRequest};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const EVENTS: usize = 50;
const DATA_BYTES: usize = 4_000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Returns the result of a poll, and waits for it without an allocation.
fn wait<T>(waker: &Waker, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    loop {
        match poll(&mut Context::from_waker(waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Reads a body up to the end of the next event. Returns the place of its bytes.
fn read_event(waker: &Waker, body: &mut Body) -> *const u8 {
    loop {
        let bytes = wait(waker, |context| Pin::new(&mut *body).poll_next(context)).unwrap();
        if bytes.len() > DATA_BYTES {
            return bytes.as_ptr();
        }
    }
}

/// The bytes that are allocated for some events to so many clients.
fn allocated(clients: usize) -> usize {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let channels = ChannelManager::new();
    let news = channels.get_or_create("news").unwrap();
    let mount = Mount::new(&channels).unwrap();
    let (parts, ()) = http::Request::new(()).into_parts();
    let open = |_| {
        let request = StreamRequest::new(&parts);
        let mut response = pin!(mount.respond(request, Subscription::new(&news)));
        wait(&waker, |context| response.as_mut().poll(context)).into_body()
    };
    let mut bodies: Vec<Body> = (0..clients).map(open).collect();
    let data = "x".repeat(DATA_BYTES);
    let mut deliver = || {
        news.broadcast(Event::message(&data)).unwrap();
        let mut places = bodies.iter_mut().map(|body| read_event(&waker, body));
        let first = places.next();
        assert!(places.all(|place| Some(place) == first), "all share them");
    };
    // The loop's buffers have their size.
    (0..10).for_each(|_| deliver());
    let region = Region::new(ALLOCATOR);
    (0..EVENTS).for_each(|_| deliver());
    region.change().bytes_allocated
}

// One test: what others allocate at the same time would be counted, too.
#[test]
fn the_bytes_that_an_event_copies_do_not_grow_with_its_clients() {
    let [to_ten, to_many] = [10, 1_000].map(allocated);
    println!("{EVENTS} events: {to_ten} bytes for 10 clients, {to_many} for 1000");
    // The frame, and the piece that all pipes hold, each with what it is put together in.
    assert!(to_many <= EVENTS * 4 * DATA_BYTES, "{to_many}");
    assert!(to_ten >= EVENTS * 2 * DATA_BYTES, "{to_ten}");
}
