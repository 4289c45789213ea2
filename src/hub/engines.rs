//! The engines that serve a hub, one after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::metrics::{Meters, Metrics};

/// Wakes a sleeping reactor.
pub(crate) type Waker = Box<dyn Fn() + Send + Sync>;

/// The parts of an engine that the hub and other threads use.
pub(crate) struct EngineState {
    pub(super) wakers: Box<[Waker]>,
    meters: Box<[Arc<Meters>]>,
    is_draining: AtomicBool,
}

impl EngineState {
    pub(super) fn new(wakers: Vec<Waker>, meters: Vec<Meters>) -> EngineState {
        EngineState {
            wakers: wakers.into(),
            meters: meters.into_iter().map(Arc::new).collect(),
            is_draining: AtomicBool::new(false),
        }
    }

    /// Returns the counters of one reactor.
    pub(crate) fn meters(&self, reactor: u16) -> &Arc<Meters> {
        &self.meters[usize::from(reactor)]
    }

    /// Notes that the engine has begun to shut down.
    pub(crate) fn start_draining(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// Returns whether the engine has begun to shut down.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }
}

/// The engines of a hub, as its figures need them.
#[derive(Default)]
pub(super) struct Engines {
    pub(super) serving: Option<Arc<EngineState>>,
    /// The figures of engines that have ended.
    pub(super) past: Metrics,
}

impl Engines {
    /// Returns the sum of the figures of all reactors.
    pub(super) fn figures(&self) -> Metrics {
        let mut sum = self.past.clone();
        for meters in self.serving.iter().flat_map(|engine| &engine.meters) {
            meters.add_to(&mut sum);
        }
        sum
    }
}
