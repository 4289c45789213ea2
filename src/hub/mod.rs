//! What threads share: the channels with their logs and members, and the
//! sequence that orders them all.
//!
//! There is one lock. It is held while an entry is appended or a few are
//! copied out; never across a system call, never while user code runs, never
//! while an event is encoded. Locked sections answer *whom to wake*, and the
//! waking is done after.
//!
//! ```text
//!  publisher ── encode ──► lock: sequence, stamp, append, mark dirty ──► wake a sleeping reactor
//!  reactor   ◄─ take_work ── gather / read ── report ──► (trims the logs, wakes waiting sinks)
//! ```

pub(crate) mod audience;
pub(crate) mod batch;
#[cfg(test)]
#[cfg(feature = "internals")]
mod bounded_tests;
pub(crate) mod bounds;
mod changing;
pub(crate) mod channel;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod finish_on_drop;
pub(crate) mod gap;
pub(crate) mod id;
pub(crate) mod keyed;
mod lists;
mod lock;
pub(crate) mod log;
pub(crate) mod looks;
pub(crate) mod manager;
mod measuring;
pub(crate) mod members;
pub(crate) mod merge;
pub(crate) mod numbering;
pub(crate) mod options;
pub(crate) mod private;
pub(crate) mod publish;
pub(crate) mod rate;
pub(crate) mod reader;
mod reading;
pub(crate) mod remembered;
pub(crate) mod saved;
mod selection;
mod serving;
mod state;
mod subscribe;
pub(crate) mod target;

use std::fmt;
use std::sync::{Arc, RwLock};
#[cfg(feature = "internals")]
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use client::{ClientId, ClientInfo, DisconnectHook, DisconnectReason};
use clock::Clock;
use id::{Epoch, EventId, Parsed};
use lock::{Lock, Locked};
use looks::LOOKS_MAX;
use numbering::Numbering;
use options::OptionsByName;
use serving::Engines;
use state::{ChannelState, State};

pub(crate) use reading::{Gathered, Lag, Position, Read, Recipients, Report, Source, Span};
pub(crate) use serving::{Attachment, EngineState, Waker};
pub(crate) use state::{ChannelReader, MemberKey};
pub(crate) use subscribe::{Join, JoinError, Joined};
pub use subscribe::{LAST_MAX, Start};

/// The most reactors that one hub may serve: they are the bits of a mask.
pub(crate) const REACTORS_MAX: usize = 64;

/// Names one channel for as long as the hub lives: a slot, and which of the
/// slot's tenants is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelKey {
    pub(crate) slot: u32,
    pub(crate) tenant: u32,
}

/// A client that the hub has taken out of a channel, and whose connection its
/// reactor now has to end.
pub(crate) struct Departure {
    pub(crate) token: u64,
    pub(crate) reason: DisconnectReason,
    pub(crate) disconnect_call: Option<DisconnectCall>,
}

/// Whom to tell that a client is gone. Whoever owns it tells, so it is told
/// exactly once.
pub(crate) struct DisconnectCall {
    pub(crate) info: ClientInfo,
    pub(crate) hook: DisconnectHook,
}

/// What a reactor finds when it looks for work.
#[derive(Default)]
pub(crate) struct Work {
    /// Channels that have new entries for its members, and since when, in
    /// microseconds.
    pub(crate) dirty: Vec<(ChannelKey, u64)>,
    pub(crate) departures: Vec<Departure>,
    /// Channels that were given other options.
    pub(crate) changed: Vec<ChannelKey>,
}

/// The reactors that a locked section found asleep, and has to wake when the
/// lock is open again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a reactor that is not woken sleeps over its work"]
pub(crate) struct Wake(u64);

impl Wake {
    fn add(&mut self, reactor: usize) {
        self.0 |= 1 << reactor;
    }

    fn merge(&mut self, other: Wake) {
        self.0 |= other.0;
    }
}

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
                    let mut z = *state;
                    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                    u128::from(z ^ (z >> 31))
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
    pub(crate) epoch: Epoch,
    numbering: Numbering,
    /// `<epoch>-`: what every id begins with.
    id_prefix: Box<str>,
    /// Own ids of publishers that are given before may be repetitions of events
    /// from before a restart, of which this hub knows nothing.
    in_doubt_until_ms: u64,
    /// What a channel is made with when nobody says otherwise.
    options_by_name: RwLock<OptionsByName>,
    engines: RwLock<Engines>,
    state: Lock<State>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(
        clock: Clock,
        randomness: Randomness,
        settings: state::Settings,
        options_by_name: OptionsByName,
    ) -> Arc<Hub> {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "any 32 of the bits will do"
        )]
        let epoch = Epoch::from_random(randomness.bits() as u32);
        let window_ms = u64::try_from(settings.republish_window.as_millis()).unwrap_or(u64::MAX);
        let in_doubt_until_ms = clock.now_ms().saturating_add(window_ms);
        let key = settings.opaque_ids.then(|| randomness.bits());
        Hub::of_epoch(
            epoch,
            Numbering::new(key),
            in_doubt_until_ms,
            clock,
            randomness,
            State::new(settings),
            options_by_name,
        )
    }

    /// A hub that goes on where another one ended.
    fn of_epoch(
        epoch: Epoch,
        numbering: Numbering,
        in_doubt_until_ms: u64,
        clock: Clock,
        randomness: Randomness,
        state: State,
        options_by_name: OptionsByName,
    ) -> Arc<Hub> {
        Arc::new(Hub {
            clock,
            randomness,
            id_prefix: format!("{}-", epoch.as_str()).into(),
            epoch,
            numbering,
            in_doubt_until_ms,
            options_by_name: RwLock::new(options_by_name),
            engines: RwLock::default(),
            state: Lock::new(state),
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
            let end = state.channels_capacity();
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

    /// Wakes a reactor that sleeps.
    pub(crate) fn wake_reactor(&self, reactor: u16) {
        let wake = self.lock().wake_reactor(usize::from(reactor));
        self.wake(wake);
    }

    pub(crate) fn new_client_id(&self) -> ClientId {
        let uuid = uuid::Builder::from_random_bytes(self.randomness.bits().to_be_bytes());
        ClientId::from_uuid(uuid.into_uuid())
    }

    pub(crate) fn id_of(&self, sequence: u64) -> EventId {
        EventId::new(self.epoch, self.numbering.written(sequence))
    }

    /// Reads an id that a client or a publisher has sent.
    fn parse_id(&self, text: &str) -> Parsed {
        match id::parse(text, &self.epoch) {
            Parsed::Ours(number) => Parsed::Ours(self.numbering.read(number)),
            other => other,
        }
    }

    /// Returns the id under which clients see an entry.
    fn id_of_entry(&self, entry: &log::Entry) -> EventId {
        let own_id = entry.rare.as_ref().and_then(|rare| rare.own_id.as_ref());
        match own_id {
            Some(own_id) => own_id.event_id(),
            None => self.id_of(entry.sequence),
        }
    }

    /// The sequence number that was given last.
    pub(crate) fn newest_sequence(&self) -> u64 {
        self.lock().sequence
    }

    /// A number below `range`, for jitter.
    #[allow(clippy::cast_possible_truncation, reason = "smaller than range")]
    pub(crate) fn random_below(&self, range: u64) -> u64 {
        (self.randomness.bits() % u128::from(range.max(1))) as u64
    }
}

pub(crate) use state::Settings;
