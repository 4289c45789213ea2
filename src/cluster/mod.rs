//! Clusters: several processes, the *nodes*, that share one log of changes.
//!
//! ```text
//!  publisher ─► node A ── append ──► ┌────────────┐ ── read ──► node A ─► its clients
//!                                    │ the shared │
//!                                    │    log     │ ── read ──► node B ─► its clients
//!  publisher ─► node C ── append ──► └────────────┘ ── read ──► node C ─► its clients
//! ```
//!
//! The log orders *blocks* of changes and keeps them for a while. Each node appends what is
//! published to it, reads all blocks, and applies them to its channels. So the channels of
//! all nodes have the same events in the same order with the same ids, and a client that
//! comes to another node with its `Last-Event-ID` misses nothing.
//!
//! A [`SharedLog`] connects to what keeps the log, the *broker*. A program passes one to
//! [`ChannelManagerBuilder::join_cluster`](crate::ChannelManagerBuilder). The package
//! `pushwheel-redis` has one for Redis and Valkey.
//!
//! # Rules for a log
//!
//! - A block is appended whole or not at all. Its first number is the next of the log, so
//!   blocks have their numbers in the order in which they are read.
//! - A block is named by its writer and `n`. A log appends each name once, also if it is
//!   asked to a second time because the answer to the first one was lost.
//! - A log that may have lost its newest blocks (the broker was started again, or another
//!   server has taken over) begins a new [`Term`]: its numbers jump beyond all that were
//!   ever given. So no number is given twice.
//! - After an error a session is not used again: what it sent may be carried out late.

pub(crate) mod branches;
mod error;
mod log;
mod options;
mod status;

pub use error::BrokerError;
pub use log::{
    Appended, BlockRead, Hello, LogReader, LogWriter, Memory, NewBlock, SNAPSHOT_CHUNK_BYTES,
    SharedLog, SnapshotName, StoredSnapshot, TERMS_MAX, Term, WRITERS_MAX, Welcome, WriterEnd,
};
pub use options::ClusterOptions;
pub use status::{ClusterStatus, NodeStatus};
