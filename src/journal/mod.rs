//! The log of what changes the channels, as it is kept outside of the process.
//!
//! A change is *proposed* as a [`Record`](record::Record), waits in the queue of the
//! [`Appender`](appender::Appender), is appended to the log in a block with others, and
//! only then *applied*. What is proposed depends on this process: its clock, its limits,
//! its clients. What is applied depends on the log alone.
//!
//! ```text
//!  record, event, probe  what a record says, as bytes
//!  block            records that are appended together, whole or not at all
//!  appender         decides what is appended, and who has waited for how long
//!  follower, terms  decides which block is applied next
//!
//!  disk                files, of the system or simulated
//!  segment, examining  the log as bytes in files, and where it ends
//!  snapshots           what makes old segments unnecessary
//!  syncing, store      blocks on the disk, in order, with numbers
//!  report              what is on the disk, for an operator
//!  log                 what a hub asks of the store
//! ```
//!
//! Only `disk` asks the system for something, and no part reads a clock.

pub(crate) mod appender;
pub(crate) mod block;
pub(crate) mod blocks;
pub(crate) mod bytes;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod event;
mod examining;
pub(crate) mod follower;
pub(crate) mod log;
pub(crate) mod probe;
pub(crate) mod record;
pub(crate) mod report;
pub(crate) mod segment;
pub(crate) mod snapshots;
pub(crate) mod store;
pub(crate) mod syncing;
pub(crate) mod terms;

#[cfg(test)]
pub(crate) mod generated;
#[cfg(any(test, feature = "internals"))]
#[allow(clippy::unwrap_used, reason = "it is for tests")]
#[cfg_attr(
    not(all(test, feature = "internals")),
    allow(dead_code, reason = "some of it is for the tests beside it")
)]
pub(crate) mod simulated_disk;
#[cfg(test)]
mod store_tests;
