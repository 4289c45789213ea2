//! Times of the parts that need no sockets.
//!
//! ```text
//! cargo bench --bench pure --features internals
//! ```

mod parts;

use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

#[divan::bench(args = [128, 1024])]
fn encode(bencher: Bencher, bytes: usize) {
    bencher.bench_local(parts::encode(bytes));
}

#[divan::bench]
fn parse_head(bencher: Bencher) {
    bencher.bench_local(parts::parse_head());
}

#[divan::bench(args = [0, 1000])]
fn publish(bencher: Bencher, history: usize) {
    bencher.bench_local(parts::publish(history));
}

/// A change of one key of so many.
#[divan::bench(args = [100, 10_000, 100_000])]
fn publish_keyed(bencher: Bencher, keys: usize) {
    bencher.bench_local(parts::publish_keyed(keys));
}

/// Events from several threads at once into one channel.
#[divan::bench(args = [1, 2, 4], sample_count = 20)]
fn publish_from_threads(bencher: Bencher, threads: usize) {
    const EVENTS: usize = 200_000;
    let bencher = bencher.counter(ItemsCount::new(EVENTS));
    let channel = parts::channel(&pushwheel::ChannelManager::new(), 1000);
    bencher.bench_local(|| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let data = "x".repeat(128);
                    for _ in 0..EVENTS / threads {
                        let event = pushwheel::Event::new("news", &data[..]);
                        channel.broadcast(event).expect("nothing forbids it");
                    }
                });
            }
        });
    });
}

/// What the loop adds to the system's writes: items are deliveries.
#[divan::bench(args = [1, 100, 10_000])]
fn deliver(bencher: Bencher, clients: usize) {
    let bencher = bencher.counter(ItemsCount::new(clients));
    bencher.bench_local(parts::deliver(clients, 1));
}

#[divan::bench(args = [1, 100, 10_000])]
fn deliver_32_together(bencher: Bencher, clients: usize) {
    let bencher = bencher.counter(ItemsCount::new(32 * clients));
    bencher.bench_local(parts::deliver(clients, 32));
}

/// What a client costs that reads the history of so many channels as one stream:
/// items are its events.
#[divan::bench(args = [1, 8, 64], sample_count = 10, sample_size = 1)]
fn replay(bencher: Bencher, channels: usize) {
    let bencher = bencher.counter(ItemsCount::new(parts::REPLAYED));
    bencher.bench_local(parts::replay(channels));
}

#[divan::bench]
fn visit(bencher: Bencher) {
    bencher.bench_local(parts::visit());
}

#[divan::bench(args = [1_000, 100_000])]
fn move_timer(bencher: Bencher, timers: u32) {
    bencher.bench_local(parts::move_timer(timers));
}
