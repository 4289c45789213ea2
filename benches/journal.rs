//! What a journal costs: the replay of a million events at the start, in processor time, its
//! size on the disk while much is published, and publishes beside those without a journal and
//! beside the disk's own sync.
//!
//! ```text
//! cargo bench --bench journal --features internals
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench needs a clock")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use pushwheel::{
    ChannelManager, ChannelManagerBuilder, ChannelOptions, Event, History, JournalOptions,
    JournalSync, Target,
};

const EVENTS: usize = 1_000_000;

/// Publishes of one publisher, each of which waits.
const SINGLE: usize = 2_000;

/// The bytes of data that are published to fill the disk: far more than the histories have.
const PUBLISHED_BYTES: u64 = 2 << 30;

/// The histories of all channels meanwhile, in bytes.
const HISTORIES_BYTES: usize = 32 << 20;

const MIB: f64 = 1_048_576.0;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A directory that is removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Temporary {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Relaxed);
        let name = format!("pushwheel-bench-{}-{n}", std::process::id());
        Temporary(std::env::temp_dir().join(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn main() -> Outcome<()> {
    let mut out = std::io::stdout();
    for (name, batch) in [("one block for 100 events", 100), ("one block for each", 1)] {
        let directory = Temporary::new();
        let (took, events) = replay(&directory.0, batch)?;
        writeln!(
            out,
            "replay {EVENTS} events, {name:<26} {took:>10.2?} of CPU, {events} kept"
        )?;
    }
    let directory = Temporary::new();
    let (most, histories) = fill(&directory.0)?;
    let bound = 3.0 * histories + 128.0;
    writeln!(
        out,
        "publish 2 GiB to histories of {histories:.1} MiB: at most {most:.1} MiB on the disk, \
         goal {bound:.1}"
    )?;
    let directory = Temporary::new();
    fs::create_dir(&directory.0)?;
    writeln!(
        out,
        "{:<46} {:>10.1?}",
        "write 200 bytes and sync, p50",
        sync(&directory.0)?
    )?;
    let none = builder().build();
    writeln!(
        out,
        "{:<46} {:>10.1?}",
        "publish without a journal, p50",
        publish(&none)?
    )?;
    let second = JournalSync::Every(Duration::from_secs(1));
    for (name, sync) in [
        ("sync within 1 s", second),
        ("sync always", JournalSync::Always),
    ] {
        let directory = Temporary::new();
        let options = JournalOptions::new().sync(sync);
        let manager = builder().open_journal(&directory.0, options)?;
        let name = format!("publish with a journal, {name}, p50");
        writeln!(out, "{name:<46} {:>10.1?}", publish(&manager)?)?;
        manager.close_journal()?;
    }
    Ok(())
}

fn builder() -> ChannelManagerBuilder {
    let history = History::events(10_000).bytes_max(64 << 20);
    ChannelManager::builder().defaults(ChannelOptions::new().history(history))
}

fn event() -> Event<'static> {
    Event::new("price", "x".repeat(128))
}

/// Returns the processor time of opening a journal with so many events, and what the
/// histories hold then.
fn replay(directory: &Path, batch: usize) -> Outcome<(Duration, usize)> {
    // One file, and so no snapshot: there is something to replay.
    let options = || {
        let options = JournalOptions::new().bytes_max(4 << 30);
        options.segment_bytes(4 << 30)
    };
    let manager = builder().open_journal(directory, options())?;
    let channels: Result<Vec<_>, _> = (0..100)
        .map(|n| manager.get_or_create(&format!("channel {n}")))
        .collect();
    let channels = channels?;
    for n in 0..EVENTS / batch {
        let events = std::iter::repeat_n(event(), batch);
        match channels[n % channels.len()].publish(events, Target::All) {
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
    drop(channels);
    drop(manager);
    let before = cpu()?;
    let manager = builder().open_journal(directory, options())?;
    let took = cpu()?.saturating_sub(before);
    let stats = manager.stats().channel_stats;
    let kept = stats.iter().map(|stats| stats.history_events).sum();
    Ok((took, kept))
}

/// Publishes much more than the histories hold. Returns the largest size of the files
/// meanwhile, and that of the histories at the end, in MiB.
fn fill(directory: &Path) -> Outcome<(f64, f64)> {
    const CHANNELS: usize = 8;
    const BATCH: usize = 64;
    let bytes_max = HISTORIES_BYTES / CHANNELS;
    let history = History::events(usize::MAX).bytes_max(bytes_max);
    let builder = ChannelManager::builder().defaults(ChannelOptions::new().history(history));
    let manager = builder.open_journal(directory, JournalOptions::new())?;
    let channels: Result<Vec<_>, _> = (0..CHANNELS)
        .map(|n| manager.get_or_create(&format!("channel {n}")))
        .collect();
    let (channels, data) = (channels?, "x".repeat(1_024));
    let batches = PUBLISHED_BYTES / (BATCH * data.len()) as u64;
    let mut most = 0;
    for channel in channels.iter().cycle().take(usize::try_from(batches)?) {
        let events = std::iter::repeat_n(Event::message(data.as_str()), BATCH);
        channel.publish(events, Target::All)?;
        most = most.max(bytes_of(directory)?);
    }
    let stats = manager.stats().channel_stats;
    let histories: usize = stats.iter().map(|stats| stats.history_bytes).sum();
    drop(channels);
    manager.close_journal()?;
    Ok((most as f64 / MIB, histories as f64 / MIB))
}

/// Returns the size of the files of a directory, some of which may be removed meanwhile.
fn bytes_of(directory: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(directory)? {
        bytes += file?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}

/// Returns the processor time of this process.
fn cpu() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let times = [usage.user_time(), usage.system_time()];
    let us = times.map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Ok(Duration::from_micros(us.iter().sum::<i64>().try_into()?))
}

/// Returns the median of a publish.
fn publish(manager: &ChannelManager) -> Outcome<Duration> {
    let news = manager.get_or_create("news")?;
    let mut times = Vec::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        let began = Instant::now();
        news.broadcast(event())?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}

/// Returns the median of what the disk takes for a small write with a sync.
fn sync(directory: &Path) -> Outcome<Duration> {
    let mut file = File::create(directory.join("file"))?;
    let mut times = Vec::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        let began = Instant::now();
        file.write_all(&[0; 200])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
