//! A TCP proxy between nodes and Redis that delays, cuts and swallows.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They arrive.
    Open,
    /// Connections are closed as soon as they are made.
    Closed,
    /// No byte arrives, in neither direction, until the way is open again.
    BlackHole,
    /// Requests arrive, replies do not until the way is open again.
    NoReplies,
}

/// Where a connection is cut, once, at the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    BeforeRequest,
    InRequest,
    BeforeReply,
    InReply,
}

impl Cut {
    pub(crate) const ALL: [Cut; 4] = [
        Cut::BeforeRequest,
        Cut::InRequest,
        Cut::BeforeReply,
        Cut::InReply,
    ];

    fn is_of_requests(self) -> bool {
        matches!(self, Cut::BeforeRequest | Cut::InRequest)
    }
}

/// A proxy, which ends with the test.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    way: Way,
    delay: Duration,
    cut: Option<Cut>,
    open: Vec<TcpStream>,
}

impl Relay {
    pub(crate) fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            target,
            way: Way::Open,
            delay: Duration::ZERO,
            cut: None,
            open: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let relay = Relay {
            address,
            shared: shared.clone(),
        };
        thread::spawn(move || {
            for from in listener.incoming() {
                shared.connect(from.unwrap());
            }
        });
        relay
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to another server.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.shared.state.lock().unwrap().target = target;
    }

    pub(crate) fn set(&self, way: Way) {
        self.shared.state.lock().unwrap().way = way;
        self.shared.changed.notify_all();
    }

    /// Delays what arrives in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.state.lock().unwrap().delay = delay;
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        for socket in self.shared.state.lock().unwrap().open.drain(..) {
            // It may be closed.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Closes the connection of the next append at this place.
    pub(crate) fn cut_the_next(&self, cut: Cut) {
        self.shared.state.lock().unwrap().cut = Some(cut);
    }

    /// Returns whether the connection was cut.
    pub(crate) fn has_cut(&self) -> bool {
        self.shared.state.lock().unwrap().cut.is_none()
    }
}

impl Shared {
    fn connect(self: &Arc<Shared>, client: TcpStream) {
        let (target, way) = {
            let state = self.state.lock().unwrap();
            (state.target, state.way)
        };
        if way == Way::Closed {
            return;
        }
        let Ok(server) = TcpStream::connect(target) else {
            return;
        };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        {
            let mut state = self.state.lock().unwrap();
            state
                .open
                .extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        }
        let appends = Arc::new(Mutex::new(false));
        let (to, from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let (shared, marks) = (self.clone(), appends.clone());
        thread::spawn(move || shared.forward(from, to, true, &marks));
        let shared = self.clone();
        thread::spawn(move || shared.forward(server, client, false, &appends));
    }

    /// Forwards until one side ends. `appends` is whether the last request was an append.
    fn forward(
        &self,
        mut from: TcpStream,
        mut to: TcpStream,
        is_of_requests: bool,
        appends: &Mutex<bool>,
    ) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..length];
            if is_of_requests {
                *appends.lock().unwrap() = memchr::memmem::find(bytes, b"EVALSHA").is_some();
            }
            let cut = self.pass(is_of_requests, *appends.lock().unwrap());
            let end = match cut {
                None => length,
                Some(Cut::BeforeRequest | Cut::BeforeReply) => 0,
                Some(Cut::InRequest | Cut::InReply) => length / 2,
            };
            if to.write_all(&bytes[..end]).is_err() || cut.is_some() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Waits until bytes may pass, and returns where they are cut.
    fn pass(&self, is_of_requests: bool, is_append: bool) -> Option<Cut> {
        let mut state = self.state.lock().unwrap();
        let delay = state.delay;
        if !delay.is_zero() {
            drop(state);
            thread::park_timeout(delay);
            state = self.state.lock().unwrap();
        }
        while state.way == Way::BlackHole || state.way == Way::NoReplies && !is_of_requests {
            state = self.changed.wait(state).unwrap();
        }
        let is_here = |cut: &mut Cut| is_append && cut.is_of_requests() == is_of_requests;
        state.cut.take_if(is_here)
    }
}
