//! The keys of tokens that the program fetches, and the counts of the fetches.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::token_keys::TokenKeys;

/// All clones share the keys and the counts, which outlive a reload.
#[derive(Clone, Debug, Default)]
pub(crate) struct FetchedKeys {
    keys: Arc<Mutex<TokenKeys>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    /// The time of the last fetch that was done, in seconds since 1970.
    done_at_s: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyFetches {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) done_at_s: u64,
}

impl FetchedKeys {
    pub(super) fn keys(&self) -> TokenKeys {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    pub(super) fn set(&self, keys: TokenKeys) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds since 1970"
    )]
    pub(crate) fn count(&self, is_done: bool, now_s: f64) {
        let counts = &self.counts;
        let count = if is_done {
            &counts.done
        } else {
            &counts.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
        if is_done {
            counts.done_at_s.store(now_s as u64, Ordering::Relaxed);
        }
    }

    /// Returns the counts; `None` if the program fetches no keys.
    pub(crate) fn fetches(&self) -> Option<KeyFetches> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let fetches = KeyFetches {
            done: load(&self.counts.done),
            failed: load(&self.counts.failed),
            done_at_s: load(&self.counts.done_at_s),
        };
        (fetches.done + fetches.failed > 0).then_some(fetches)
    }
}
