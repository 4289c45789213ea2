//! The engines that serve a hub: one at a time, and any number one after another.
//!
//! An [`Attachment`] is the right to serve. Each reactor of an engine holds it, and it
//! ends with the last of them. The figures of an engine that has ended stay with the
//! hub, so counters only rise.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use super::Hub;
use super::engines::{EngineState, Engines, Waker};
use super::reactors::{REACTORS_MAX, Wake};
use crate::metrics::{Meters, Metrics};

/// The right of an engine to serve a hub. It ends when this is dropped.
pub(crate) struct Attachment {
    hub: Arc<Hub>,
    engine: Arc<EngineState>,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").finish_non_exhaustive()
    }
}

impl Attachment {
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(crate) fn engine(&self) -> &Arc<EngineState> {
        &self.engine
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut engines = self.hub.engines_mut();
        engines.past = engines.figures();
        engines.past.close_all();
        engines.serving = None;
    }
}

/// A hub that another engine serves.
#[derive(Debug)]
pub(crate) struct AlreadyAttached;

impl Hub {
    /// Lets an engine serve the hub, with a waker and counters for each of its
    /// reactors.
    ///
    /// # Errors
    /// When another engine serves it.
    pub(crate) fn attach(
        self: &Arc<Self>,
        reactors: impl IntoIterator<Item = (Waker, Meters)>,
    ) -> Result<Attachment, AlreadyAttached> {
        let mut engines = self.engines_mut();
        if engines.serving.is_some() {
            return Err(AlreadyAttached);
        }
        let (wakers, meters): (Vec<Waker>, Vec<_>) = reactors.into_iter().unzip();
        assert!(wakers.len() <= REACTORS_MAX, "at most 64 reactors");
        self.lock().reactors.attach(wakers.len());
        let engine = Arc::new(EngineState::new(wakers, meters));
        engines.serving = Some(engine.clone());
        Ok(Attachment {
            hub: self.clone(),
            engine,
        })
    }

    /// Wakes reactors that a locked section has found asleep.
    #[inline]
    pub(super) fn wake(&self, wake: Wake) {
        if !wake.is_empty() {
            self.wake_each(wake);
        }
    }

    fn wake_each(&self, wake: Wake) {
        // An engine that has ended meanwhile needs no waking.
        let Some(engine) = self.engines().serving.clone() else {
            return;
        };
        for (reactor, waker) in engine.wakers.iter().enumerate() {
            if wake.contains(reactor) {
                waker();
            }
        }
    }

    /// Wakes a reactor that sleeps.
    pub(crate) fn wake_reactor(&self, reactor: u16) {
        let wake = self.lock().reactors.wake(usize::from(reactor));
        self.wake(wake);
    }

    /// Returns the figures of all reactors that have ever served the hub.
    pub(super) fn engine_figures(&self) -> Metrics {
        self.engines().figures()
    }

    fn engines(&self) -> RwLockReadGuard<'_, Engines> {
        self.engines.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn engines_mut(&self) -> RwLockWriteGuard<'_, Engines> {
        self.engines.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Hub {
    /// Attaches, for good, a reactor that does nothing when it is woken.
    pub(super) fn attach_idle(self: &Arc<Self>) {
        let reactor: (Waker, Meters) = (Box::new(|| {}), Meters::new(&[]));
        std::mem::forget(self.attach([reactor]).unwrap());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::client::DisconnectReason;
    use crate::hub::{Join, Start};
    use crate::{ChannelManager, Event};
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    fn reactor(code: &'static str) -> (Waker, Meters) {
        (Box::new(|| {}), Meters::new(&[code]))
    }

    #[test]
    fn an_engine_can_serve_after_another_one_and_counters_only_rise() {
        let manager = ChannelManager::new();
        let hub = manager.hub();
        let first = hub.attach([reactor("one"), reactor("one")]).unwrap();
        assert!(hub.attach([reactor("two")]).is_err(), "it is served");
        let meters = first.engine().meters(1).clone();
        meters.connections_accepted.add(3);
        meters.streams_opened.add(2);
        meters.count_end(DisconnectReason::Gone);
        meters.count_refusal("one");
        meters.is_full.set(1);
        first.engine().start_draining();
        let metrics = hub.metrics();
        assert_eq!((metrics.connections, metrics.clients), (3, 1));
        drop(first);

        let metrics = hub.metrics();
        assert_eq!((metrics.connections, metrics.clients), (0, 0));
        assert!(!metrics.is_full);
        assert_eq!(
            (metrics.connections_accepted, metrics.streams_opened),
            (3, 2)
        );

        let second = hub.attach([reactor("two")]).unwrap();
        assert!(!second.engine().is_draining());
        let meters = second.engine().meters(0).clone();
        meters.connections_accepted.add(4);
        meters.count_refusal("two");
        meters.count_refusal("three");
        let metrics = hub.metrics();
        assert_eq!((metrics.connections, metrics.connections_accepted), (4, 7));
        let refusals = metrics.refusals.into_iter().filter(|(_, count)| *count > 0);
        let refusals: Vec<_> = refusals.collect();
        assert_eq!(refusals, [("one", 1), ("two", 1), ("other", 1)]);
    }

    #[test]
    fn only_the_engine_that_serves_is_woken() {
        let manager = ChannelManager::new();
        let hub = manager.hub();
        let woken = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let waker = |engine: usize| -> Waker {
            let woken = woken.clone();
            Box::new(move || _ = woken[engine].fetch_add(1, Relaxed))
        };
        let first = hub.attach([(waker(0), Meters::new(&[]))]).unwrap();
        hub.wake_reactor(0);
        drop(first);
        hub.wake_reactor(0);
        let _second = hub.attach([(waker(1), Meters::new(&[]))]).unwrap();
        hub.wake_reactor(0);
        // A reactor of an earlier engine, which had more of them.
        hub.wake_reactor(5);
        let counts = [0, 1].map(|engine: usize| woken[engine].load(Relaxed));
        assert_eq!(counts, [1, 1]);
    }

    #[test]
    fn a_channel_in_the_work_of_an_ended_engine_wakes_the_next_one() {
        let manager = ChannelManager::new();
        let (hub, news) = (manager.hub(), manager.get_or_create("news").unwrap());
        for engine in 0..3 {
            let woken = Arc::new(AtomicU32::new(0));
            let count = woken.clone();
            let waker: Waker = Box::new(move || _ = count.fetch_add(1, Relaxed));
            let _attachment = hub.attach([(waker, Meters::new(&[]))]).unwrap();
            assert!(hub.may_sleep(0));
            hub.join(Join::of(&[news.key()], 1, &Start::Live)).unwrap();
            news.broadcast(Event::message("x")).unwrap();
            assert_eq!(woken.load(Relaxed), 1, "engine {engine}");
            // It ends before it has looked at its work.
            hub.leave_all(0, DisconnectReason::Failed, drop);
        }
    }
}
