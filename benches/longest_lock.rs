//! The longest locked section of calls that have much to look at, in processor time.
//! A publisher of any other channel may wait that long.
//!
//! ```text
//! cargo bench --bench longest_lock --features internals
//! ```

mod parts;

use std::io::Write;
use std::time::Duration;

use parts::{Room, net};
use pushwheel::internals::lock::longest_section;
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, Condition, Engine, Event, History, Start, Subscription,
};

/// Entries, or clients.
const MANY: usize = 100_000;

/// Of so many runs the best counts: another process may have been in the way.
const RUNS: usize = 5;

/// A name, and a function that returns the longest locked section of one run.
type Case = (&'static str, fn() -> Duration);

const CASES: [Case; 6] = [
    ("evict 100,000 entries", evict),
    ("resume over 100,000 events for others", resume),
    ("find the last event among 100,000 for others", find_last),
    ("remove a channel with 100,000 clients", remove),
    ("publish by metadata to 100,000 clients", publish_where),
    ("save 100,000 entries", save),
];

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for (name, run) in CASES {
        let longest = (0..RUNS).map(|_| run()).min().unwrap_or_default();
        writeln!(out, "{name:<46} {:>8} µs", longest.as_micros())?;
    }
    Ok(())
}

fn large_channel(for_others: bool) -> (ChannelManager, Channel) {
    let channels = ChannelManager::new();
    let history = History::events(2 * MANY).bytes_max(1 << 30);
    let options = || ChannelOptions::new().history(history);
    let channel = channels
        .get_or_create_with("news", options)
        .expect("a valid name");
    for _ in 0..MANY {
        let event = Event::message("x");
        let published = match for_others {
            true => channel.send("another", event),
            false => channel.broadcast(event),
        };
        published.expect("nothing forbids it");
    }
    (channels, channel)
}

fn evict() -> Duration {
    let (_channels, channel) = large_channel(false);
    longest_section(|| channel.set_options(ChannelOptions::new()))
}

fn save() -> Duration {
    let (channels, _channel) = large_channel(false);
    longest_section(|| {
        let saved = channels.save(&mut std::io::sink());
        assert!(saved.is_ok_and(|saved| saved.events == MANY));
    })
}

fn resume() -> Duration {
    subscribe(Start::Earliest)
}

fn find_last() -> Duration {
    subscribe(Start::Last(1))
}

/// The longest section until a client has joined and has caught up.
fn subscribe(start: Start) -> Duration {
    let (channels, channel) = large_channel(true);
    let stream = channel.clone();
    let engine = Engine::builder().channels(&channels);
    let engine = engine.get("/stream", move |_| {
        Subscription::new(&stream).start(start.clone())
    });
    let mut engine = net::simulated(engine);
    engine.net().come(1);
    longest_section(|| {
        while channel.client_count() == 0 || channel.clients()[0].behind > 0 {
            engine.turn().expect("this network does not fail");
        }
    })
}

fn remove() -> Duration {
    let room = Room::new(MANY);
    longest_section(|| assert_eq!(room.channel.close(), MANY))
}

fn publish_where() -> Duration {
    let room = Room::new(MANY);
    let condition = [Condition::new("role", "admin")];
    longest_section(|| {
        let published = room
            .channel
            .broadcast_where(&condition, Event::message("x"));
        assert!(published.is_ok_and(|published| published.clients == 0));
    })
}
