//! Seeds that once found a bug, and the era of each: what seeds drew at that time.

use std::sync::LazyLock;

/// Seeds that find a bug again if it returns. A change to what seeds draw would make them
/// other runs, so each of them draws what was drawn in its era.
pub const REGRESSIONS: &[(u64, Era, &str)] = &[
    (
        4,
        Era::First,
        "a keyed event replaces one for other clients",
    ),
    (9, Era::First, "a new client catches up before its welcome"),
    (
        11,
        Era::First,
        "a feed that closes leaves what it was kept for in the log",
    ),
    (
        146,
        Era::First,
        "a new client of a finished channel waits for ever",
    ),
    (
        2687,
        Era::First,
        "a client that was sent away reads as the next client of its slot",
    ),
    (
        7689,
        Era::First,
        "a client that was sent away is sent what comes after",
    ),
    (
        14_722_002_067_549,
        Era::First,
        "a new client joins the current clients too early",
    ),
    (
        39,
        Era::Endings,
        "what is published during a batch waits for the next event",
    ),
    (
        860,
        Era::Endings,
        "a client that was sent away is sent what comes after, of several channels",
    ),
    (
        221,
        Era::Endings,
        "a client that takes nothing of its answer has twice the time for that",
    ),
    (
        430,
        Era::Endings,
        "the loop ends before all disconnects are reported",
    ),
    (
        226_769_063_598_207,
        Era::Repeats,
        "a stream behind an unread response has twice the time for that",
    ),
    (
        276_546_373_981_849,
        Era::Loops,
        "a log is kept for a loop whose last client was sent away",
    ),
    (
        4_000_307,
        Era::Finishes,
        "a stream that an answer opens misses the room in its socket",
    ),
    (
        7_009_149,
        Era::Finishes,
        "a write that finds no room, right after the clock jumped, is a stall",
    ),
    (
        8_000_592,
        Era::Finishes,
        "an event for a named client replaces one that a filter chose it for",
    ),
    (
        9_000_186,
        Era::Finishes,
        "a slow client is sent events from before it joined again",
    ),
    (
        20_001_985,
        Era::Finishes,
        "the loop sleeps from when a client is blocked until long after",
    ),
    (
        8_011_766,
        Era::Finishes,
        "the last of a log with state are of both its parts",
    ),
    (
        126,
        Era::Journals,
        "a channel lacks an event for all from before its first record, without a gap",
    ),
    (
        133,
        Era::Keys,
        "a stream of now begins with a state that is not whole, behind a loss",
    ),
    (
        427,
        Era::Keys,
        "a client that has left its channels waits for a page when the engine ends",
    ),
    (
        434,
        Era::Keys,
        "a channel begins where one began that had its name, and lacks what was never its",
    ),
    (
        556,
        Era::Journals,
        "a channel has own ids of the one that had its name, after a start",
    ),
    (
        629,
        Era::Keys,
        "a page is more work than the rest of a turn's requests",
    ),
    (
        664,
        Era::Journals,
        "a stream begins without an id for an own id of another channel",
    ),
    (
        973,
        Era::Keys,
        "a stream from the earliest begins with a state, behind a loss whose gap is evicted",
    ),
    (
        1232,
        Era::Keys,
        "a slow client receives its page when its credentials have run out",
    ),
    (
        1_000_000_000_000_000_118,
        Era::Keys,
        "a node without the past of the log calls lost what it does not know",
    ),
    (
        1_000_000_000_000_000_191,
        Era::Keys,
        "an event that a node has confirmed while it was building is lost without a gap",
    ),
    (
        1_000_000_000_000_000_610,
        Era::Keys,
        "a loss is said in a channel whose events the log has again",
    ),
    (
        1_000_000_000_000_000_740,
        Era::Keys,
        "a node has read of a term in its snapshot alone",
    ),
    (
        1_000_000_000_000_001_187,
        Era::Keys,
        "a loss is said under a term that lacks other events of the node",
    ),
    (
        1_000_000_000_000_002_241,
        Era::Keys,
        "what a node has built beside is dropped without a gap when a read fails",
    ),
    (
        1_000_000_000_000_002_628,
        Era::Keys,
        "a node that cannot join takes another step",
    ),
    (
        1_000_000_000_001_000_463,
        Era::Keys,
        "a node guesses what became of a publish that it has from a snapshot",
    ),
];

/// What seeds draw: the situations that an era is named after, and those of all eras before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Era {
    First,
    /// Streams end by time, and rare_faults come.
    Endings,
    /// Publishers give an id twice.
    Repeats,
    /// Engines have two loops, and room in a socket is reported only once there
    /// is much.
    Loops,
    /// Some clients ask for no id to begin with, and machines are stopped.
    Pauses,
    /// Publishers repeat events exactly, also from before a restart, and publish
    /// to all clients but some.
    Repetitions,
    /// Keyed state has bounds and a pace, and keys are removed.
    Keyed,
    /// Channels finish often and are soon over, with large last events; signals
    /// interrupt writes; and the poller fails.
    Finishes,
    /// One engine after another serves the channels.
    Restarts,
    /// A slice looks at few clients, feeds or channels.
    Slices,
    /// Some clients ask for their position in heartbeats.
    Positions,
    /// Events for all channels are kept for channels that are made later, and may have own
    /// ids.
    Everywhere,
    /// What is published goes through a journal, and processes end.
    Journals,
    /// What many clients are written at once goes out in any order, and for some of them it
    /// is torn, finds no room, or fails.
    Batches,
    /// Publishers repeat requests with their keys, to one channel or to several, and some
    /// clients read pages.
    Keys,
}

impl Era {
    pub const NOW: Era = Era::Keys;

    const ALL: [Era; 15] = [
        Era::First,
        Era::Endings,
        Era::Repeats,
        Era::Loops,
        Era::Pauses,
        Era::Repetitions,
        Era::Keyed,
        Era::Finishes,
        Era::Restarts,
        Era::Slices,
        Era::Positions,
        Era::Everywhere,
        Era::Journals,
        Era::Batches,
        Era::Keys,
    ];

    /// Returns the era of a seed: the one that `PUSHWHEEL_ERA` names, for seeds that were
    /// recorded in it.
    pub fn of(seed: u64) -> Era {
        static NAMED: LazyLock<Option<Era>> = LazyLock::new(|| {
            let name = std::env::var("PUSHWHEEL_ERA").ok()?;
            let mut all = Era::ALL.into_iter();
            let era = all.find(|era| format!("{era:?}") == name);
            Some(era.unwrap_or_else(|| panic!("there is no era {name}")))
        });
        if let Some(era) = *NAMED {
            return era;
        }
        let mut known = REGRESSIONS.iter();
        known
            .find(|(known, ..)| *known == seed)
            .map_or(Era::NOW, |(_, era, _)| *era)
    }
}
