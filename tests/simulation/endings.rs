//! How streams end by time in a simulation: what a seed draws of it.
//!
//! It is drawn from a generator of its own, and not at all for the seeds that
//! found something before it was there.

use std::time::Duration;

use fastrand::Rng;
use pushwheel::{EngineBuilder, Shutdown};

/// See the [module](self).
pub struct Endings {
    rng: Rng,
    /// Whether all channels are closed right before a shutdown that ends at once.
    pub closes_last: bool,
    /// How old a stream may become.
    pub age_ms: Option<u64>,
    /// How many subscriptions in a thousand come with credentials that run
    /// out, and after how long at the most.
    expiring: u32,
    expires_ms_max: u64,
}

impl Endings {
    pub fn draw(seed: u64, is_none: bool) -> Endings {
        let mut rng = Rng::with_seed(!seed);
        let mut is_there = || !is_none && rng.bool();
        let (has_ages, has_expiries) = (is_there(), is_there());
        Endings {
            age_ms: has_ages.then(|| rng.u64(1..8_000)),
            expiring: if has_expiries { rng.u32(1..=1_000) } else { 0 },
            expires_ms_max: rng.u64(1..6_000),
            closes_last: !is_none && Rng::with_seed(seed ^ 0x1a57).u32(0..8) == 0,
            rng,
        }
    }

    pub fn apply(&self, engine: EngineBuilder) -> EngineBuilder {
        match self.age_ms {
            Some(ms) => engine.stream_age_max(Duration::from_millis(ms)),
            None => engine,
        }
    }

    /// When the credentials of a subscription run out.
    pub fn draw_expiry(&mut self) -> Option<u64> {
        let expires = self.expiring > 0 && self.rng.u32(0..1_000) < self.expiring;
        expires.then(|| self.rng.u64(0..=self.expires_ms_max))
    }

    /// A shutdown, and after how long it is to end at once, if it is.
    pub fn draw_shutdown(&mut self, deadline_ms: u64) -> (Shutdown, Option<u64>) {
        let rng = &mut self.rng;
        let mut part = || match rng.u32(0..3) {
            0 => 0,
            _ => rng.u64(0..=deadline_ms),
        };
        let [delay, window] = [part() / 2, part()].map(Duration::from_millis);
        let shutdown = Shutdown::within(Duration::from_millis(deadline_ms))
            .delay(delay)
            .window(window);
        let is_cut_short = rng.u32(0..4) == 0;
        (shutdown, is_cut_short.then(|| rng.u64(0..=deadline_ms)))
    }
}
