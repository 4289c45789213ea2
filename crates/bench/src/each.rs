//! `bench each`: many channels with one client each, which receive their own events: answers
//! that are streamed to the browsers that have asked.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::client::{Client, Expected};
use super::figure::{Case, LAST_MEDIAN, LAST_P99, PUBLISH_CPU, RATE, counted};
use super::histogram::Histogram;
use super::load::{TIMEOUT, subscription};
use super::options::{EVENT_BYTES_MIN, Each};
use super::publisher::{PUBLISHER, Publisher, connect, source};
use super::run::Run;
use super::server::Url;
use super::{Fault, Result, fault};

/// Publishes events to one channel after the other.
pub(crate) fn measure(run: &mut Run<'_>, options: &Each, channels: usize) -> Result<()> {
    let Some(base) = run.server.channels.clone() else {
        return fault("bench each needs servers that the bench starts. Omit --url");
    };
    run.say(format!("connecting {}", counted(channels, "client")));
    let mut load = Load::new(&base, channels, options.publishers)?;
    // Each channel and connection once: the first use of both costs more.
    let warm = Pace {
        events: channels.max(options.publishers) * WARM_EVENTS,
        bytes: EVENT_BYTES_MIN,
        interval: None,
    };
    load.publish(&warm)?;
    let case = Case {
        clients: channels,
        event_bytes: options.bytes,
        together: 0,
        publications: options.events,
    };
    run.say(case.name());
    let pace = Pace {
        events: options.events,
        bytes: options.bytes,
        interval: options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
    };
    let before_ns = run.settled_cpu_ns()?;
    let began = Instant::now();
    let latencies = load.publish(&pace)?;
    let seconds = began.elapsed().as_secs_f64();
    let spent_ns = run.settled_cpu_ns_since(before_ns)?;
    let figures = vec![
        (PUBLISH_CPU, spent_ns as f64 / options.events as f64 / 1e3),
        (RATE, options.events as f64 / seconds),
        (LAST_MEDIAN, latencies.quantile_ms(0.5)),
        (LAST_P99, latencies.quantile_ms(0.99)),
    ];
    run.add(case, figures, latencies);
    Ok(())
}

/// The events of a run.
struct Pace {
    events: usize,
    bytes: usize,
    /// The time between two events. `None`: the next one when a publisher has its response
    /// and the client its event.
    interval: Option<Duration>,
}

/// A client of each channel, and publishers of all.
struct Load {
    poll: Poll,
    ready: Events,
    buffer: Vec<u8>,
    channels: Vec<Channel>,
    publishers: Vec<Publisher>,
    published: usize,
}

struct Channel {
    path: String,
    client: Client,
    expected: Expected,
    /// When the events were due that the client does not have, oldest first.
    due: VecDeque<Instant>,
}

impl Load {
    /// Connects the clients, and waits for the head of each.
    fn new(base: &Url, channels: usize, publishers: usize) -> Result<Load> {
        let publisher = |number| Publisher::with_token(base, Token(PUBLISHER.0 - number));
        let mut load = Load {
            poll: Poll::new()?,
            ready: Events::with_capacity(EVENTS_A_TURN),
            buffer: vec![0; 64 << 10],
            channels: Vec::with_capacity(channels),
            publishers: (0..publishers).map(publisher).collect(),
            published: 0,
        };
        while load.channels.len() < channels {
            let batch = CONNECT_BATCH.min(channels - load.channels.len());
            for _ in 0..batch {
                load.connect(base)?;
            }
            let (begun, mut heads) = (Instant::now(), 0);
            while heads < batch {
                heads += load.turn(TURN, |_| {})?;
                if begun.elapsed() > TIMEOUT {
                    return fault(format!(
                        "not all clients received a head within {TIMEOUT:?}"
                    ));
                }
            }
        }
        Ok(load)
    }

    fn connect(&mut self, base: &Url) -> Result<()> {
        let number = self.channels.len();
        let channel = base.join(&format!("answer-{number}"));
        let mut stream = connect(channel.address, source(number))?;
        stream.write_all(&subscription(&channel))?;
        let registry = self.poll.registry();
        registry.register(&mut stream, Token(number), Interest::READABLE)?;
        self.channels.push(Channel {
            path: channel.path,
            client: Client::new(stream, 0),
            expected: Expected::default(),
            due: VecDeque::new(),
        });
        Ok(())
    }

    /// Publishes events, and returns the times from when each was due until its client had
    /// it.
    fn publish(&mut self, pace: &Pace) -> Result<Histogram> {
        let begun = Instant::now();
        let (mut published, mut received) = (0, 0);
        let mut latencies = Histogram::default();
        while received < pace.events || self.unanswered() > 0 {
            let under_way = (published - received).max(self.unanswered());
            let due = match pace.interval {
                _ if published == pace.events => None,
                Some(interval) => {
                    let event = u32::try_from(published).map_err(|_| Fault("too many".into()))?;
                    Some(begun + interval * event)
                }
                None => (under_way < self.publishers.len()).then(Instant::now),
            };
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            if let Some(due) = due.filter(|due| *due <= Instant::now())
                && under_way < UNDER_WAY_MAX
            {
                self.publish_one(pace.bytes, due)?;
                published += 1;
                // Those that are due together are sent without reading in between.
                continue;
            }
            let timeout = left.map_or(TURN, |left| left.saturating_sub(POLL_STEP));
            self.turn(timeout, |time| {
                received += 1;
                latencies.add(time, 1);
            })?;
            let oldest = self
                .channels
                .iter()
                .filter_map(|channel| channel.due.front());
            if published > received
                && begun.elapsed() > TIMEOUT
                && oldest.min().is_some_and(|due| due.elapsed() > TIMEOUT)
            {
                return fault(format!(
                    "a client has not received its event within {TIMEOUT:?}. Use a lower --rate"
                ));
            }
        }
        Ok(latencies)
    }

    fn publish_one(&mut self, bytes: usize, due: Instant) -> Result<()> {
        let (channels, publishers) = (self.channels.len(), self.publishers.len());
        let number = self.published % channels;
        let channel = &mut self.channels[number];
        // Always the same one for a channel, whose events would otherwise overtake each other.
        let publisher = &mut self.publishers[number % publishers];
        self.published += 1;
        let body = channel.expected.add(bytes);
        publisher.add(&channel.path, "text/plain", body);
        channel.due.push_back(due);
        publisher.send(self.poll.registry())
    }

    fn unanswered(&self) -> usize {
        self.publishers.iter().map(Publisher::unanswered).sum()
    }

    /// Reads what has arrived, calls `on_event` with the time of each event, and returns the
    /// number of heads.
    fn turn(&mut self, timeout: Duration, mut on_event: impl FnMut(Duration)) -> Result<usize> {
        match self.poll.poll(&mut self.ready, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(0),
            result => result?,
        }
        let mut heads = 0;
        for event in &self.ready {
            let number = event.token().0;
            let Some(channel) = self.channels.get_mut(number) else {
                let publisher = &mut self.publishers[PUBLISHER.0 - number];
                publisher.read(&mut self.buffer)?;
                if event.is_writable() {
                    publisher.send(self.poll.registry())?;
                }
                continue;
            };
            let progress = channel.client.read(&mut self.buffer, &channel.expected)?;
            heads += progress.heads;
            for due in channel.due.drain(..progress.events) {
                on_event(due.elapsed());
            }
        }
        Ok(heads)
    }
}

const CONNECT_BATCH: usize = 100;
const EVENTS_A_TURN: usize = 1024;
/// After some bytes a connection no longer acknowledges each segment at once.
const WARM_EVENTS: usize = 2;
const TURN: Duration = Duration::from_millis(100);
/// The kernel waits for whole milliseconds; the rest is polled.
const POLL_STEP: Duration = Duration::from_millis(1);
/// At most so many events are under way: a server that is too slow makes them late.
const UNDER_WAY_MAX: usize = 512;
