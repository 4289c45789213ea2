//! The limit on open file descriptors.
//!
//! Each connection needs one, and the usual soft limit is about a thousand. The limit is
//! raised to the hard limit, and the engine gets what is left for connections. The engine
//! keeps some free, to respond to connections over the limit.

use pushwheel::EngineBuilder;

/// For files that are open briefly: the configuration during a reload, the state, and the
/// files that /metrics reads.
const SPARE: u64 = 16;
/// For each thread of the engine, besides its listeners: see
/// [`EngineBuilder::descriptors_max`].
const PER_THREAD: u64 = 3;

/// Sets how many descriptors the engine's connections may use.
pub(super) fn apply(engine: EngineBuilder, threads: u16, listeners: usize) -> EngineBuilder {
    let Some(limit) = raised() else {
        return engine;
    };
    let others = open() + SPARE + (PER_THREAD + listeners as u64) * u64::from(threads);
    let left = usize::try_from(limit.saturating_sub(others)).unwrap_or(usize::MAX);
    log::debug!("the limit on open files is {limit}, of which {left} are for connections");
    engine.descriptors_max(left)
}

/// Raises the limit on open files to the hard limit, and returns it; `None` if there is
/// no limit.
fn raised() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

    let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let mut limit = before;
    if before < hard {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => {
                log::debug!("raised the limit on open files from {before} to {hard}");
                limit = hard;
            }
            // Some systems have a lower limit of their own.
            Err(error) => log::debug!("cannot raise the limit on open files ({error})"),
        }
    }
    (limit != RLIM_INFINITY).then_some(limit)
}

/// Returns the number of open files, inherited ones included.
fn open() -> u64 {
    std::fs::read_dir("/dev/fd").map_or(3, |files| files.count() as u64)
}
