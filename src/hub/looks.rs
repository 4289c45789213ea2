//! The bound on locked sections: each looks at a limited number of entries,
//! members, keys and channels, and returns where to continue.
//!
//! The parts count what they look at ([`looked_at`]). A debug build checks the
//! count at the end of each locked section ([`Section`]); a release build counts
//! nothing.

/// Entries, members, keys or channels that a locked section looks at for one
/// question. `cargo bench --bench longest_lock --features internals` measures the longest
/// sections.
pub(crate) const LOOKS_MAX: usize = 1024;

/// The same for slots, in the type of their numbers.
pub(crate) const SLOTS_MAX: u32 = 1024;

/// Questions that one locked section may ask: a client that joins asks what it has
/// missed, what it may have missed, and for the ends of what is there for it. One
/// more is for the looks that go one too far, at each log of its stream.
#[cfg(debug_assertions)]
const QUESTIONS_MAX: usize = 4;

/// What is left of the looks for one question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    left: usize,
}

impl Looks {
    pub(crate) fn new(max: usize) -> Looks {
        Looks { left: max }
    }

    pub(crate) fn is_left(&self) -> bool {
        self.left > 0
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left -= usize::from(is_left);
        is_left
    }
}

#[cfg(debug_assertions)]
thread_local! {
    /// What the locked section of this thread has looked at.
    static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts what a part looks at.
#[inline]
pub(crate) fn looked_at(count: usize) {
    #[cfg(debug_assertions)]
    LOOKED_AT.set(LOOKED_AT.get() + count);
    #[cfg(not(debug_assertions))]
    let _ = count;
}

/// One locked section, from its beginning until it is dropped.
pub(super) struct Section {
    /// A publish appends all events of its batch in one section.
    #[cfg(debug_assertions)]
    allowed: usize,
    #[cfg(feature = "internals")]
    began: Option<std::time::Duration>,
}

impl Section {
    pub(super) fn begin() -> Section {
        #[cfg(debug_assertions)]
        LOOKED_AT.set(0);
        Section {
            #[cfg(debug_assertions)]
            allowed: QUESTIONS_MAX * LOOKS_MAX,
            #[cfg(feature = "internals")]
            began: longest::now(),
        }
    }

    /// Allows as many looks more as a publish has events, and the one eviction
    /// that each may cause.
    pub(super) fn allow_batch(&mut self, events: usize) {
        #[cfg(debug_assertions)]
        {
            self.allowed += 4 * events;
        }
        #[cfg(not(debug_assertions))]
        let _ = events;
    }
}

#[cfg(any(debug_assertions, feature = "internals"))]
impl Drop for Section {
    #[inline]
    fn drop(&mut self) {
        #[cfg(feature = "internals")]
        longest::note(self.began);
        #[cfg(debug_assertions)]
        if !std::thread::panicking() {
            let (count, allowed) = (LOOKED_AT.get(), self.allowed);
            assert!(
                count <= allowed,
                "a locked section looked at {count} things"
            );
        }
    }
}

/// The longest locked section of all hubs, for benches.
#[cfg(feature = "internals")]
pub(crate) mod longest {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::time::Duration;

    use nix::time::{ClockId, clock_gettime};

    static IS_MEASURED: AtomicBool = AtomicBool::new(false);
    static LONGEST_NS: AtomicU64 = AtomicU64::new(0);

    /// Runs `code`. Returns the most processor time that a locked section took
    /// meanwhile.
    pub fn measure(code: impl FnOnce()) -> Duration {
        LONGEST_NS.store(0, Relaxed);
        IS_MEASURED.store(true, Relaxed);
        code();
        IS_MEASURED.store(false, Relaxed);
        Duration::from_nanos(LONGEST_NS.load(Relaxed))
    }

    #[inline]
    pub(super) fn now() -> Option<Duration> {
        IS_MEASURED.load(Relaxed).then(processor_time).flatten()
    }

    #[inline]
    pub(super) fn note(began: Option<Duration>) {
        if let Some(began) = began {
            note_since(began);
        }
    }

    #[cold]
    fn note_since(began: Duration) {
        if let Some(now) = now() {
            let taken = u64::try_from((now - began).as_nanos()).unwrap_or(u64::MAX);
            LONGEST_NS.fetch_max(taken, Relaxed);
        }
    }

    #[cold]
    fn processor_time() -> Option<Duration> {
        let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        Some(now.ok()?.into())
    }
}
