//! A hub as a node of a cluster: it appends its changes to a log that other nodes append to
//! as well, and applies what it reads there.
//!
//! It is the way of a [journal](super::journaling): propose, append, apply. The difference is
//! where an appended block comes back from. A journal's is applied as soon as it is written.
//! A node's comes back through its reader, in the order of the log, like those of the others.
//!
//! ```text
//!  shared           what the parts of a node know of each other
//!  nodes, waiting   the other nodes; requests that wait for the log
//!  joins            when a request waits
//!  session          a session with the broker, opened again after errors
//!  writer           appends the blocks of this node, again until they are read back
//!  reader           applies all blocks, and begins again where that is necessary
//!  base, replacing  the channels as a snapshot and the log have them; their way into the hub
//!  unconfirmed      outcomes of blocks that too few copies have yet
//!  keeper           snapshots and trims, by the node that has the lease
//!  pulse            probes, and what has waited for too long
//!  calls, values    single-use values
//!  node             joining, leaving, and the threads
//! ```
//!
//! Writer, reader, keeper and pulse take steps and wait for nothing but the broker. So the
//! simulator runs the same steps without threads.

mod base;
pub(crate) mod calls;
pub(crate) mod joins;
mod keeper;
#[cfg(test)]
#[cfg(feature = "internals")]
mod model;
pub(crate) mod node;
mod nodes;
mod pulse;
mod reader;
mod replacing;
mod session;
pub(crate) mod shared;
#[cfg(test)]
#[cfg(feature = "internals")]
mod tests;
mod unconfirmed;
mod values;
mod waiting;
mod writer;
