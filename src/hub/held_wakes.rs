//! Wake-ups that wait until a thread has done all that it has to do at once.
//!
//! A wake-up is a system call, and the thread that wakes finds only what is there by then.
//! So the turn of a reactor wakes the journal once for all publishes of its requests, and
//! the journal wakes a reactor once for the outcomes of many.
//!
//! The invariant to remember: *a wake-up that is held comes when the thread is done, and
//! after [`HELD_MAX`] more at the latest*.

use std::cell::RefCell;
use std::ptr::addr_eq;
use std::sync::Arc;

/// Wake-ups after which they are held no longer. So what sleeps works beside a thread that
/// has much to do.
const HELD_MAX: usize = 32;

/// Wake-ups after which a reactor releases them between two connections. So it appends in short
/// writes, and the thread of the journal sleeps.
const MANY: usize = 16;

/// What sleeps, and is woken when there is something for it.
pub(crate) trait Sleeper: Send + Sync + 'static {
    fn kind(&self) -> Kind;

    fn wake(&self);

    /// Does what it would be woken for on the current thread, which is done with all else.
    /// Returns false if it is to be woken.
    fn work_here(&self) -> bool;
}

/// What a thread wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Journal,
    Reactor,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

#[derive(Default)]
struct Held {
    /// The kinds that the current thread holds.
    kinds: &'static [Kind],
    sleepers: Vec<Arc<dyn Sleeper>>,
    /// The wake-ups.
    count: usize,
}

/// Holds the wake-ups of the current thread until this is dropped.
pub(crate) struct HeldWakes {
    /// What it held before.
    before: &'static [Kind],
}

impl HeldWakes {
    pub(crate) fn begin(kinds: &'static [Kind]) -> HeldWakes {
        let before = HELD.with_borrow_mut(|held| std::mem::replace(&mut held.kinds, kinds));
        HeldWakes { before }
    }
}

impl Drop for HeldWakes {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| held.kinds = self.before);
        take_all().iter().for_each(|sleeper| sleeper.wake());
    }
}

/// Wakes a sleeper, at once or with the others that are held.
pub(crate) fn wake<S: Sleeper>(sleeper: &Arc<S>) {
    // Without the thread's memory, which ends before the thread, nothing is held.
    let held = HELD.try_with(|held| {
        let mut held = held.borrow_mut();
        if !held.kinds.contains(&sleeper.kind()) {
            return 0;
        }
        let is_same = |known: &Arc<dyn Sleeper>| addr_eq(Arc::as_ptr(known), Arc::as_ptr(sleeper));
        if !held.sleepers.iter().any(is_same) {
            held.sleepers.push(sleeper.clone());
        }
        held.count += 1;
        held.count
    });
    match held {
        Ok(0) | Err(_) => sleeper.wake(),
        Ok(count) if count < HELD_MAX => {}
        Ok(_) => take_all().iter().for_each(|sleeper| sleeper.wake()),
    }
}

/// Wakes all that the current thread holds, or does its work. Returns whether there was
/// something.
#[inline]
pub(crate) fn release() -> bool {
    let are_some = HELD.with_borrow(|held| held.count > 0);
    if are_some {
        release_some();
    }
    are_some
}

/// Does the same if they are many. The caller is not inside a function of the program: the
/// work may call one.
#[inline]
pub(crate) fn release_many() {
    if HELD.with_borrow(|held| held.count >= MANY) {
        release_some();
    }
}

#[cold]
fn release_some() {
    for sleeper in take_all() {
        if !sleeper.work_here() {
            sleeper.wake();
        }
    }
}

fn take_all() -> Vec<Arc<dyn Sleeper>> {
    HELD.with_borrow_mut(|held| {
        held.count = 0;
        std::mem::take(&mut held.sleepers)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[derive(Default)]
    struct Journal(AtomicUsize);

    impl Sleeper for Journal {
        fn kind(&self) -> Kind {
            Kind::Journal
        }

        fn wake(&self) {
            self.0.fetch_add(1, Relaxed);
        }

        fn work_here(&self) -> bool {
            false
        }
    }

    #[test]
    fn wake_ups_of_a_kind_that_is_held_come_together_at_the_end() {
        let [one, other] = [(); 2].map(|()| Arc::new(Journal::default()));
        let woken = || [&one, &other].map(|journal| journal.0.load(Relaxed));
        wake(&one);
        assert_eq!(woken(), [1, 0]);
        let held = HeldWakes::begin(&[Kind::Journal]);
        for journal in [&one, &other, &one] {
            wake(journal);
        }
        assert_eq!(woken(), [1, 0]);
        release();
        release();
        assert_eq!(woken(), [2, 1]);
        wake(&other);
        drop(held);
        assert_eq!(woken(), [2, 2]);
    }

    #[test]
    fn what_is_held_within_is_woken_at_its_end_and_the_rest_is_held_on() {
        let journal = Arc::new(Journal::default());
        let woken = || journal.0.load(Relaxed);
        let outer = HeldWakes::begin(&[Kind::Journal]);
        let inner = HeldWakes::begin(&[Kind::Reactor]);
        wake(&journal);
        assert_eq!(woken(), 1, "it is of another kind");
        drop(inner);
        wake(&journal);
        assert_eq!(woken(), 1);
        drop(outer);
        assert_eq!(woken(), 2);
    }

    #[test]
    fn a_thread_that_has_much_to_do_wakes_in_between() {
        let journal = Arc::new(Journal::default());
        let _held = HeldWakes::begin(&[Kind::Journal]);
        for _ in 1..HELD_MAX {
            wake(&journal);
        }
        assert_eq!(journal.0.load(Relaxed), 0);
        wake(&journal);
        assert_eq!(journal.0.load(Relaxed), 1);
    }
}
