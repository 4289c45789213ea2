//! The engines and mounts that serve a hub.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::metrics::{Meters, Metrics};

/// Wakes a sleeping reactor.
pub(crate) type Waker = Box<dyn Fn() + Send + Sync>;

/// What serves a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An engine, which is alone.
    Engine,
    /// A mount, beside an engine and other mounts.
    Mount,
}

/// The parts of an engine, or of a mount, that the hub and other threads use.
pub(crate) struct EngineState {
    pub(super) place: Place,
    /// The number of its first reactor. Those of the others follow.
    pub(crate) first: u16,
    pub(super) wakers: Box<[Waker]>,
    meters: Box<[Arc<Meters>]>,
    is_draining: AtomicBool,
}

impl EngineState {
    pub(super) fn new(
        place: Place,
        first: u16,
        wakers: Vec<Waker>,
        meters: Vec<Meters>,
    ) -> EngineState {
        EngineState {
            place,
            first,
            wakers: wakers.into(),
            meters: meters.into_iter().map(Arc::new).collect(),
            is_draining: AtomicBool::new(false),
        }
    }

    /// Returns the counters of one reactor.
    pub(crate) fn meters(&self, reactor: u16) -> &Arc<Meters> {
        &self.meters[usize::from(reactor - self.first)]
    }

    /// Adds the figures of its reactors.
    pub(super) fn add_to(&self, sum: &mut Metrics) {
        for meters in &self.meters {
            meters.add_to(sum);
        }
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
    pub(super) serving: Arc<[Arc<EngineState>]>,
    /// The figures of those that have ended.
    pub(super) past: Metrics,
}

impl Engines {
    /// Returns the sum of the figures of all reactors.
    pub(super) fn figures(&self) -> Metrics {
        let mut sum = self.past.clone();
        for engine in &*self.serving {
            engine.add_to(&mut sum);
        }
        sum
    }
}
