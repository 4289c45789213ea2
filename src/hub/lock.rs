//! The hub's one lock.
//!
//! A locked section is short: it looks at a bounded number of things
//! ([`looks`](super::looks)), encodes nothing, drops nothing that is large and calls
//! no code of a user. A call that has more to do takes the lock again and again,
//! and [gives way](Lock::give_way) between two sections: a mutex is not fair, and the
//! thread that has just unlocked it usually has it again before the thread that
//! waits for it is awake.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use super::looks::Section;

/// How often a thread lets others run before it takes the lock again all the same.
const YIELDS_MAX: usize = 64;

/// See the [module](self).
pub(crate) struct Lock<T> {
    value: Mutex<T>,
    /// Threads that wait for the lock.
    waiting: AtomicUsize,
}

/// The value, as long as the lock is held.
pub(crate) struct Locked<'a, T> {
    value: MutexGuard<'a, T>,
    section: Section,
}

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Lock<T> {
        Lock {
            value: Mutex::new(value),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes the lock. A panic while it was held is a bug of ours, but no reason to
    /// fail for every client: the sections keep the value whole.
    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_, T> {
        let value = match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => self.wait(),
        };
        let section = Section::begin();
        Locked { value, section }
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, T> {
        self.waiting.fetch_add(1, Relaxed);
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Relaxed);
        value
    }

    /// Returns the value.
    pub(crate) fn into_inner(self) -> T {
        let value = self.value.into_inner();
        value.unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets threads that wait for the lock have it, before the caller takes it for
    /// the next section of one call.
    pub(crate) fn give_way(&self) {
        for _ in 0..YIELDS_MAX {
            if self.waiting.load(Relaxed) == 0 {
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl<T> Locked<'_, T> {
    /// Notes the number of events that the section publishes: they cannot be sliced.
    pub(crate) fn allow_batch(&mut self, events: usize) {
        self.section.allow_batch(events);
    }

    /// Opens the lock until `changed` is notified, or for `timeout` at most.
    pub(crate) fn wait(self, changed: &Condvar, timeout: Option<Duration>) -> Self {
        let Locked { value, section } = self;
        drop(section);
        let value = match timeout {
            None => changed.wait(value).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = changed.wait_timeout(value, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let section = Section::begin();
        Locked { value, section }
    }
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_thread_that_waits_has_the_lock_between_two_sections_of_another() {
        let (lock, has_had_it) = (Lock::new(()), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let first = lock.lock();
            scope.spawn(|| {
                drop(lock.lock());
                has_had_it.store(true, Relaxed);
            });
            while lock.waiting.load(Relaxed) == 0 {
                std::thread::yield_now();
            }
            drop(first);
            while !has_had_it.load(Relaxed) {
                lock.give_way();
                drop(lock.lock());
            }
        });
        assert_eq!(lock.waiting.load(Relaxed), 0);
    }

    #[test]
    #[should_panic(expected = "a locked section looked at 4097 things")]
    #[cfg(debug_assertions)]
    fn a_section_that_looks_at_too_much_is_found() {
        let lock = Lock::new(());
        let locked = lock.lock();
        crate::hub::looks::looked_at(4 * crate::hub::looks::LOOKS_MAX + 1);
        drop(locked);
    }

    #[test]
    fn a_value_whose_section_panicked_is_there_for_the_others() {
        let lock = Lock::new(1);
        let panicked = std::thread::scope(|scope| {
            let section = || {
                let _locked = lock.lock();
                panic!("as the test wants it");
            };
            scope.spawn(section).join().is_err()
        });
        assert!(panicked);
        assert_eq!(*lock.lock(), 1);
    }
}
