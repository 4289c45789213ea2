//! What threads share: the channels with their logs and members, and the
//! sequence that orders them all.
//!
//! There is one lock. It is held while an entry is appended or a few are copied; never
//! across a system call, while user code runs or while an event is encoded. A locked
//! section returns the reactors to wake, which are woken when the lock is open, and
//! looks at a bounded number of things ([`looks`]).
//!
//! The parts know each other in one direction:
//!
//! ```text
//!  channel, manager, saved, reader           handles and what programs call
//!  publish, reading, joining, removal …      the hub's calls, each a few locked sections
//!  state: sweep, bounds                      what the lock protects, and its steps
//!  channel_state, reactors, memory, …        parts of it that own their fields
//!  log, members, merge, keyed, lists …       pure data structures
//! ```
//!
//! ```text
//!  publisher ── encode ──► lock: sequence, stamp, append, mark dirty ──► wake a sleeping reactor
//!  reactor   ◄─ take_work ── gather / read ── report ──► (trims the logs, wakes waiting sinks)
//! ```

mod applying;
pub(crate) mod audience;
pub(crate) mod batch;
mod beginning;
#[cfg(test)]
#[cfg(feature = "internals")]
mod bounded_tests;
pub(crate) mod bounds;
#[cfg(test)]
mod bounds_tests;
mod changing;
pub(crate) mod channel;
mod channel_state;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod dropped;
mod ends;
pub(crate) mod engine_thread;
mod engines;
pub(crate) mod entry;
mod finding;
pub(crate) mod finish_on_drop;
mod for_all;
pub(crate) mod gap;
mod heads;
mod held_ids;
pub(crate) mod held_wakes;
pub(crate) mod id;
pub(crate) mod idempotency;
pub(crate) mod ids;
mod importing;
mod join;
mod joining;
pub(crate) mod journal;
#[cfg(test)]
mod journal_tests;
pub(crate) mod journaling;
mod key;
pub(crate) mod keyed;
mod lists;
mod lock;
pub(crate) mod log;
pub(crate) mod looks;
mod losses;
pub(crate) mod manager;
mod measuring;
pub(crate) mod members;
mod memory;
pub(crate) mod merge;
mod merged;
pub(crate) mod names;
pub(crate) mod numbering;
pub(crate) mod options;
mod own_ids;
pub(crate) mod page;
pub(crate) mod private;
pub(crate) mod proposals;
mod proposing;
pub(crate) mod publish;
pub(crate) mod publish_options;
pub(crate) mod published;
pub(crate) mod rate;
mod reactors;
pub(crate) mod reader;
mod reading;
pub(crate) mod ready;
pub(crate) mod remembered;
mod removal;
pub(crate) mod retention;
pub(crate) mod saved;
mod seeding;
mod selection;
mod served;
mod serving;
pub(crate) mod several;
pub(crate) mod sink_signal;
mod spreading;
mod state;
pub(crate) mod stats;
mod sweep;
mod table;
pub(crate) mod target;
#[cfg(test)]
mod turn_tests;
#[cfg(test)]
#[cfg(feature = "internals")]
mod two_hubs_tests;
mod unpublished;

use std::any::Any;
use std::fmt;
#[cfg(feature = "internals")]
use std::sync::PoisonError;
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

use uuid::Uuid;

use channel_state::ChannelState;
use client::ClientId;
use clock::{Clock, as_ms};
use cluster::shared::Cluster;
use engines::Engines;
use id::{Epoch, EventId};
use idempotency::KeysInFlight;
use ids::Ids;
use lock::{Lock, Locked};
pub(crate) use looks::LOOKS_MAX;
use numbering::Numbering;
use options::OptionsByName;
use proposals::Proposals;
use state::State;

pub(crate) use cluster::joins::{Awaited, Released, Waited};
pub(crate) use engines::{EngineState, Place, Waker};
pub(crate) use join::{Join, JoinError, Joined};
pub use join::{LAST_MAX, Start};
pub(crate) use key::{ChannelKey, MemberKey};
pub(crate) use measuring::Pressure;
pub(crate) use merged::{ChannelReader, Lag};
pub(crate) use page::{Asking, Page};
pub(crate) use reactors::{Departure, DisconnectCall, REACTORS_MAX, Work};
pub(crate) use reading::{
    Form, Gathered, Position, Read, Recipients, Report, Search, Source, Span,
};
pub(crate) use serving::Attachment;
pub(crate) use state::Settings;

/// Where ids and jitter come from.
#[derive(Debug)]
pub(crate) enum Randomness {
    System,
    /// The same in every run of a simulation.
    #[cfg(feature = "internals")]
    Seeded(Mutex<u64>),
}

impl Randomness {
    /// 128 random bits.
    pub(crate) fn bits(&self) -> u128 {
        match self {
            Randomness::System => Uuid::new_v4().as_u128(),
            #[cfg(feature = "internals")]
            Randomness::Seeded(state) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let mut next = || {
                    // SplitMix64: one multiply-and-shift generator is plenty here.
                    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    u128::from(numbering::mixed(*state))
                };
                (next() << 64) | next()
            }
        }
    }
}

/// See the [module](self).
pub(crate) struct Hub {
    pub(crate) clock: Clock,
    pub(crate) randomness: Randomness,
    pub(crate) ids: Ids,
    /// Own ids of publishers that are set before may be repetitions of events from before
    /// a restart, which this hub does not know.
    in_doubt_until_ms: u64,
    /// The default options of channels.
    options_by_name: RwLock<OptionsByName>,
    engines: RwLock<Engines>,
    /// What all of the program's own readers of channels share, while there are any.
    pub(crate) readers: Mutex<Weak<dyn Any + Send + Sync>>,
    state: Lock<State>,
    /// What waits for the journal or the log of a cluster, if there is one.
    proposals: Option<Arc<Proposals<Hub>>>,
    keys_in_flight: KeysInFlight,
    /// The cluster of which this is a node.
    cluster: OnceLock<Arc<Cluster>>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("epoch", &self.ids.epoch())
            .finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(
        clock: Clock,
        randomness: Randomness,
        settings: Settings,
        options_by_name: OptionsByName,
    ) -> Arc<Hub> {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "any 32 of the bits will do"
        )]
        let epoch = Epoch::from_random(randomness.bits() as u32);
        let window_ms = as_ms(settings.republish_window);
        let in_doubt_until_ms = clock.now_ms().saturating_add(window_ms);
        let key = settings.opaque_ids.then(|| randomness.bits());
        Hub::with_ids(
            Ids::new(epoch, Numbering::new(key)),
            in_doubt_until_ms,
            clock,
            randomness,
            State::new(settings),
            options_by_name,
            None,
        )
    }

    /// Returns a hub that goes on where another one ended.
    fn with_ids(
        ids: Ids,
        in_doubt_until_ms: u64,
        clock: Clock,
        randomness: Randomness,
        mut state: State,
        options_by_name: OptionsByName,
        proposals: Option<Arc<Proposals<Hub>>>,
    ) -> Arc<Hub> {
        if proposals.is_some() {
            state.remembered.follow_log();
            state.keys.follow_log();
        }
        Arc::new(Hub {
            clock,
            randomness,
            ids,
            in_doubt_until_ms,
            options_by_name: RwLock::new(options_by_name),
            engines: RwLock::default(),
            readers: Mutex::new(Weak::<()>::new()),
            state: Lock::new(state),
            proposals,
            keys_in_flight: KeysInFlight::default(),
            cluster: OnceLock::new(),
        })
    }

    #[inline]
    fn lock(&self) -> Locked<'_, State> {
        self.state.lock()
    }

    /// Lets threads that wait for the lock have it, between two sections of one call.
    fn give_way(&self) {
        self.state.give_way();
    }

    /// Visits all channels, some of them under each lock. One that is made or removed
    /// meanwhile may be missed.
    fn for_each_channel(&self, mut visit: impl FnMut(ChannelKey, &ChannelState)) {
        let mut from = 0;
        loop {
            let state = self.lock();
            let end = state.slots_end();
            let slots = from..end.min(from + LOOKS_MAX);
            from = slots.end;
            for slot in slots {
                if let Some((key, channel)) = state.at(slot) {
                    visit(key, channel);
                }
            }
            drop(state);
            if from >= end {
                return;
            }
            self.give_way();
        }
    }

    pub(crate) fn new_client_id(&self) -> ClientId {
        let uuid = uuid::Builder::from_random_bytes(self.randomness.bits().to_be_bytes());
        ClientId::from_uuid(uuid.into_uuid())
    }

    pub(crate) fn id_of(&self, sequence: u64) -> EventId {
        self.ids.id_of(sequence)
    }

    /// Returns the newest sequence number.
    pub(crate) fn newest_sequence(&self) -> u64 {
        self.lock().sequence
    }

    /// Returns a number below `range`, for jitter.
    #[allow(clippy::cast_possible_truncation, reason = "smaller than range")]
    pub(crate) fn random_below(&self, range: u64) -> u64 {
        (self.randomness.bits() % u128::from(range.max(1))) as u64
    }
}
