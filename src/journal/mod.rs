//! The log of what changes the channels, as it is kept outside of the process.
//!
//! A change is *proposed* as a [`Record`](record::Record), waits in the queue of the
//! [`Appender`](appender::Appender), is appended to the log in a block with others, and
//! only then *applied*. What is proposed depends on this process: its clock, its limits,
//! its clients. What is applied depends on the log alone.
//!
//! ```text
//!  record, event    what a record says, as bytes
//!  block            records that are appended together, whole or not at all
//!  appender         decides what is appended, and who has waited for how long
//!  follower, terms  decides which block is applied next
//! ```
//!
//! These parts do no I/O and read no clock.

pub(crate) mod appender;
pub(crate) mod block;
pub(crate) mod bytes;
pub(crate) mod event;
pub(crate) mod record;

#[cfg(test)]
mod generated;
