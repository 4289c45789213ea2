//! A load: clients and publishers, from the first event of each channel to the last.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastrand::Rng;

use crate::accepted::{Answer, Published, Publisher, post};
use crate::clients::{BEGIN, Clients, END, Plan};
use crate::common::eventually;
use crate::oracle::Outcome;
use crate::setting::number_of;

/// How long a publisher waits for a response: longer than a node does.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// The pause before a publisher connects again.
const CONNECTS_AFTER: Duration = Duration::from_millis(10);

/// The longest time until the clients have received all, after the last fault.
const RECEIVED_WITHIN: Duration = Duration::from_secs(120);

/// The id of the last event of each channel.
const OWN_ID_OF_END: &str = "own.end";

/// What runs.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    pub(crate) channels: usize,
    pub(crate) clients: usize,
    pub(crate) publishers: usize,
    /// The longest pause of a publisher between two requests, in µs.
    pub(crate) pause_us: u64,
    /// Whether the publishers of the last channel set the ids of their events.
    pub(crate) has_own_ids: bool,
    /// A stream without a byte for this long is closed by its client.
    pub(crate) silence_max: Duration,
}

impl Default for Size {
    fn default() -> Size {
        Size {
            channels: 4,
            clients: 200,
            publishers: 8,
            pause_us: 60_000,
            has_own_ids: true,
            silence_max: Duration::from_secs(5),
        }
    }
}

impl Size {
    /// Many clients, or `PUSHWHEEL_CLIENTS`, with fewer events for each.
    pub(crate) fn of_many(clients: u64) -> Size {
        let clients = usize::try_from(number_of("PUSHWHEEL_CLIENTS").unwrap_or(clients)).unwrap();
        let size = Size::default();
        Size {
            clients,
            // 20,000 deliveries in a second.
            pause_us: size.pause_us.max(clients as u64 * 200),
            ..size
        }
    }
}

/// A running load.
pub(crate) struct Load {
    pub(crate) clients: Clients,
    channels: Vec<String>,
    publishers: Vec<JoinHandle<Published>>,
    shared: Arc<Shared>,
}

struct Shared {
    is_over: AtomicBool,
    requests: AtomicUsize,
    /// Where the publishers connect.
    targets: Mutex<Vec<SocketAddr>>,
}

impl Load {
    /// Starts clients of some servers, then publishers to others, each drawn for a
    /// connection.
    pub(crate) fn start(
        size: &Size,
        rng: &mut Rng,
        subscribe: &[SocketAddr],
        publish: &[SocketAddr],
    ) -> Load {
        let channels: Vec<String> = (0..size.channels).map(|n| format!("cluster-{n}")).collect();
        let shared = Arc::new(Shared {
            is_over: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            targets: Mutex::new(publish.to_vec()),
        });
        let begins = channels
            .iter()
            .map(|channel| (channel.clone(), shared.mark(channel, BEGIN, None)));
        let plan = Plan {
            addresses: subscribe.to_vec(),
            channels: begins.collect(),
            clients: size.clients,
            silence_max: size.silence_max,
            seed: rng.u64(..),
        };
        let clients = Clients::start(plan);
        eventually("all clients have a stream", || clients.are_all_streaming());
        let publisher = |name: usize| {
            let channel = name % channels.len();
            let has_own_ids = size.has_own_ids && channel + 1 == channels.len();
            let rng = Rng::with_seed(rng.u64(..));
            let publisher = Publisher::new(name, channels[channel].clone(), has_own_ids, rng);
            let (shared, pause_us) = (shared.clone(), size.pause_us);
            thread::spawn(move || shared.publish(publisher, pause_us))
        };
        let publishers = (0..size.publishers).map(publisher).collect();
        Load {
            clients,
            channels,
            publishers,
            shared,
        }
    }

    /// Waits until so many more requests have an answer, and as many events are received.
    pub(crate) fn wait_for(&self, requests: usize) {
        let answered = || self.shared.requests.load(Ordering::SeqCst);
        let (asked, received) = (answered(), self.clients.received());
        eventually("publishers are answered, and clients receive", || {
            answered() >= asked + requests && self.clients.received() >= received + requests
        });
    }

    /// Waits until so many more requests have an answer, whatever it is.
    pub(crate) fn wait_for_requests(&self, requests: usize) {
        let answered = || self.shared.requests.load(Ordering::SeqCst);
        let asked = answered();
        eventually("publishers are answered", || answered() >= asked + requests);
    }

    /// Ends the publishers, waits until each client has received the last event, and returns
    /// what there is to check.
    pub(crate) fn finish(self) -> Outcome {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let published = self
            .publishers
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        for channel in &self.channels {
            self.shared.mark(channel, END, Some(OWN_ID_OF_END));
        }
        Outcome {
            channels: self.channels,
            received: self.clients.finish(RECEIVED_WITHIN),
            published,
        }
    }
}

impl Shared {
    fn connect(&self, draw: usize) -> Option<TcpStream> {
        let address = {
            let targets = self.targets.lock().unwrap();
            targets[draw % targets.len()]
        };
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(ANSWERED_WITHIN)).unwrap();
        Some(stream)
    }

    fn publish(&self, mut publisher: Publisher, pause_us: u64) -> Published {
        let mut draws = Rng::with_seed(publisher.draw(u64::MAX));
        while !self.is_over.load(Ordering::SeqCst) {
            publisher.publish(|| {
                loop {
                    let stream = self.connect(draws.usize(..));
                    if stream.is_some() || self.is_over.load(Ordering::SeqCst) {
                        return stream;
                    }
                    thread::park_timeout(CONNECTS_AFTER);
                }
            });
            self.requests.fetch_add(1, Ordering::SeqCst);
            thread::park_timeout(Duration::from_micros(publisher.draw(pause_us)));
        }
        publisher.into_published()
    }

    /// Publishes an event that no publisher has, and returns its id. With an own id it is
    /// published again if it is not known whether it is there.
    fn mark(&self, channel: &str, mark: &str, own_id: Option<&str>) -> String {
        let mut id = None;
        let mut draw = 0;
        eventually("the mark is accepted", || {
            draw += 1;
            let Some(mut stream) = self.connect(draw) else {
                return false;
            };
            match post(&mut stream, channel, mark, own_id, None) {
                Ok(Answer::Accepted(answer)) => id = answer["id"].as_str().map(str::to_owned),
                Ok(Answer::Refused(_)) => {}
                other => assert!(own_id.is_some(), "{mark}: {other:?}"),
            }
            id.is_some()
        });
        id.expect("it was accepted")
    }
}
