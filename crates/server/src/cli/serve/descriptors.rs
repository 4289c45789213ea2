//! The descriptors that the server may have.
//!
//! Each connection takes one, and a shell's usual limit is a thousand. So the
//! limit is raised as far as it goes without asking anybody, and the engine is
//! told how many there are: it keeps some free, to answer those for whom there
//! are none.

use pushwheel::EngineBuilder;

/// For what is opened for a moment: the configuration at a reload, the state at
/// the end, what /metrics reads of the process.
const SPARE: u64 = 16;
/// For each thread of the engine: see [`EngineBuilder::descriptors_max`].
const PER_THREAD: u64 = 4;

/// Tells the engine how many its connections may take.
pub(super) fn apply(engine: EngineBuilder, threads: u16) -> EngineBuilder {
    let Some(limit) = raised() else {
        return engine;
    };
    let others = open() + SPARE + PER_THREAD * u64::from(threads);
    let left = usize::try_from(limit.saturating_sub(others)).unwrap_or(usize::MAX);
    log::debug!("{limit} files may be open at once: {left} for connections");
    engine.descriptors_max(left)
}

/// How many files may be open at once, after that has been raised as far as it
/// may be; `None` if there is no limit.
fn raised() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

    let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let mut limit = before;
    if before < hard {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => {
                log::debug!("raised the limit on open files, which was {before}");
                limit = hard;
            }
            // Some systems have a limit of their own below this one.
            Err(error) => log::debug!("the limit on open files stays as it is: {error}"),
        }
    }
    (limit != RLIM_INFINITY).then_some(limit)
}

/// How many files are open by now, those that were handed down included.
fn open() -> u64 {
    std::fs::read_dir("/dev/fd").map_or(3, |files| files.count() as u64)
}
