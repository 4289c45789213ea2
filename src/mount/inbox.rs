//! What waits for the reactor of a mount: requests, and reports of its pipes. The reactor
//! sleeps here.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::reactor::net::Readiness;

/// Requests for which an empty buffer is kept.
pub(super) const KEPT_MAX: usize = 64;

/// See the [module](self). `A` is a request with the pipe for its response.
pub(super) struct Inbox<A> {
    state: Mutex<State<A>>,
    news: Condvar,
}

struct State<A> {
    /// At most two for each pipe: that it has room, and that its reader has gone.
    reports: Vec<Readiness>,
    arrivals: VecDeque<A>,
    is_woken: bool,
    /// Whether the reactor has ended.
    is_over: bool,
}

impl<A> Inbox<A> {
    pub(super) fn new() -> Inbox<A> {
        Inbox {
            state: Mutex::new(State {
                reports: Vec::new(),
                arrivals: VecDeque::new(),
                is_woken: false,
                is_over: false,
            }),
            news: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings a request. A reactor that has ended drops it.
    pub(super) fn bring(&self, arrival: A) {
        let mut state = self.lock();
        if !state.is_over {
            state.arrivals.push_back(arrival);
            self.wake_from(state);
        }
    }

    /// Reports what a pipe is ready for.
    pub(super) fn report(&self, readiness: Readiness) {
        let mut state = self.lock();
        if !state.is_over {
            state.reports.push(readiness);
            self.wake_from(state);
        }
    }

    /// Wakes the reactor.
    pub(super) fn wake(&self) {
        self.wake_from(self.lock());
    }

    fn wake_from(&self, mut state: MutexGuard<'_, State<A>>) {
        let was_woken = std::mem::replace(&mut state.is_woken, true);
        drop(state);
        if !was_woken {
            self.news.notify_one();
        }
    }

    /// Sleeps until there is something, or the time is up (`None`: never). Appends the
    /// requests to `arrived`, and the reports to `ready`.
    ///
    /// Keeps a small buffer for the requests that come next. If each needed its own, it would
    /// lie for a moment where the program's server then places the buffers of its next
    /// connection, and they would take up more memory.
    pub(super) fn wait(
        &self,
        timeout: Option<Duration>,
        ready: &mut Vec<Readiness>,
        arrived: &mut VecDeque<A>,
    ) {
        let is_asleep = |state: &mut State<A>| !state.is_woken;
        let mut state = match timeout {
            Some(Duration::ZERO) => self.lock(),
            Some(timeout) => {
                let waited = self
                    .news
                    .wait_timeout_while(self.lock(), timeout, is_asleep);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.news.wait_while(self.lock(), is_asleep);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        state.is_woken = false;
        ready.append(&mut state.reports);
        arrived.append(&mut state.arrivals);
        state.arrivals.shrink_to(KEPT_MAX);
    }

    /// Accepts nothing any more. Returns the requests that are left.
    pub(super) fn close(&self) -> VecDeque<A> {
        let mut state = self.lock();
        state.is_over = true;
        state.reports = Vec::new();
        std::mem::take(&mut state.arrivals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_buffer_is_kept_for_the_next_requests() {
        let inbox = Inbox::new();
        let mut arrived = VecDeque::new();
        for count in [1, 10 * KEPT_MAX] {
            (0..count).for_each(|n| inbox.bring(n));
            inbox.wait(None, &mut Vec::new(), &mut arrived);
            assert!(arrived.drain(..).eq(0..count), "in order");
            let kept = inbox.lock().arrivals.capacity();
            assert!((1..=KEPT_MAX).contains(&kept), "{kept} for {count}");
        }
    }
}
