//! The engines and mounts that serve a hub: one engine at a time, and beside it any
//! number of mounts, with at most 64 reactors in all.
//!
//! An [`Attachment`] is the right to serve. Each reactor of an engine holds it, and it
//! ends with the last of them. The figures of an engine that has ended stay with the
//! hub, so counters only rise.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use super::Hub;
use super::engines::{EngineState, Engines, Place, Waker};
use super::reactors::Wake;
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
        self.engine.add_to(&mut engines.past);
        engines.past.close_all();
        let others = engines
            .serving
            .iter()
            .filter(|engine| !Arc::ptr_eq(engine, &self.engine));
        engines.serving = others.cloned().collect();
        let reactors = &mut self.hub.lock().reactors;
        reactors.detach(self.engine.first, self.engine.wakers.len());
    }
}

/// A hub that another engine serves, or that has as many reactors as it may have.
#[derive(Debug)]
pub(crate) struct AlreadyAttached;

impl Hub {
    /// Lets an engine or a mount serve the hub, with a waker and counters for each of its
    /// reactors.
    ///
    /// # Errors
    /// When another engine serves it, or when there is no room for more reactors.
    pub(crate) fn attach(
        self: &Arc<Self>,
        place: Place,
        reactors: impl IntoIterator<Item = (Waker, Meters)>,
    ) -> Result<Attachment, AlreadyAttached> {
        let mut engines = self.engines_mut();
        let is_engine = |place| place == Place::Engine;
        if is_engine(place) && engines.serving.iter().any(|other| is_engine(other.place)) {
            return Err(AlreadyAttached);
        }
        let (wakers, meters): (Vec<Waker>, Vec<_>) = reactors.into_iter().unzip();
        let first = self.lock().reactors.attach(wakers.len());
        let first = first.ok_or(AlreadyAttached)?;
        let engine = Arc::new(EngineState::new(place, first, wakers, meters));
        let all = engines.serving.iter().cloned().chain([engine.clone()]);
        engines.serving = all.collect();
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
        let serving = self.engines().serving.clone();
        for engine in &*serving {
            for (reactor, waker) in (usize::from(engine.first)..).zip(&engine.wakers) {
                if wake.contains(reactor) {
                    waker();
                }
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
        std::mem::forget(self.attach(Place::Engine, [reactor]).unwrap());
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
        let first = hub
            .attach(Place::Engine, [reactor("one"), reactor("one")])
            .unwrap();
        assert!(
            hub.attach(Place::Engine, [reactor("two")]).is_err(),
            "it is served"
        );
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

        let second = hub.attach(Place::Engine, [reactor("two")]).unwrap();
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
    fn mounts_serve_beside_an_engine_with_reactors_of_their_own() {
        let manager = ChannelManager::new();
        let hub = manager.hub();
        let woken = Arc::new([AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)]);
        let reactor = |place: usize| -> (Waker, Meters) {
            let woken = woken.clone();
            let waker = Box::new(move || _ = woken[place].fetch_add(1, Relaxed));
            (waker, Meters::new(&[]))
        };
        let first = hub.attach(Place::Mount, [reactor(0)]).unwrap();
        let engine = hub.attach(Place::Engine, [reactor(1), reactor(1)]).unwrap();
        assert!(
            hub.attach(Place::Engine, [reactor(1)]).is_err(),
            "it is served"
        );
        let second = hub.attach(Place::Mount, [reactor(2)]).unwrap();
        let firsts = [&first, &engine, &second].map(|attached| attached.engine().first);
        assert_eq!(firsts, [0, 1, 3]);
        for reactor in 0..4 {
            hub.wake_reactor(reactor);
        }
        let counts = || [0, 1, 2].map(|place: usize| woken[place].load(Relaxed));
        assert_eq!(counts(), [1, 2, 1]);
        engine.engine().meters(2).connections_accepted.add(3);
        drop(engine);
        assert_eq!(hub.metrics().connections_accepted, 3);
        assert_eq!(hub.metrics().connections, 0);
        // What is free is used again, and only one place is woken by its number.
        let other = hub.attach(Place::Engine, [reactor(0)]).unwrap();
        assert_eq!(other.engine().first, 1);
        hub.wake_reactor(1);
        hub.wake_reactor(2);
        assert_eq!(counts(), [2, 2, 1]);
        let all = (0..61).map(|_| hub.attach(Place::Mount, [reactor(2)]).unwrap());
        let all: Vec<Attachment> = all.collect();
        assert!(
            hub.attach(Place::Mount, [reactor(2)]).is_err(),
            "64 reactors serve it"
        );
        drop((all, first, second, other));
        assert_eq!(
            hub.attach(Place::Engine, [reactor(0)])
                .unwrap()
                .engine()
                .first,
            0
        );
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
        let first = hub
            .attach(Place::Engine, [(waker(0), Meters::new(&[]))])
            .unwrap();
        hub.wake_reactor(0);
        drop(first);
        hub.wake_reactor(0);
        let _second = hub
            .attach(Place::Engine, [(waker(1), Meters::new(&[]))])
            .unwrap();
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
            let _attachment = hub
                .attach(Place::Engine, [(waker, Meters::new(&[]))])
                .unwrap();
            assert!(hub.may_sleep(0));
            hub.join(Join::of(&[news.key()], 1, &Start::Live)).unwrap();
            news.broadcast(Event::message("x")).unwrap();
            assert_eq!(woken.load(Relaxed), 1, "engine {engine}");
            // It ends before it has looked at its work.
            hub.leave_all(0, DisconnectReason::Failed, drop);
        }
    }
}
