//! The scripts: what a server does in one step.

/// A script. The server knows it by a hash that it returns when it loads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Opens a session.
    Hello,
    /// Appends a block.
    Append,
    /// Removes old blocks.
    Trim,
    /// Takes a lease.
    Lease,
    /// Completes a snapshot.
    Complete,
}

impl Script {
    /// All of them, in the order of their values.
    pub(crate) const ALL: [Script; 5] = [
        Script::Hello,
        Script::Append,
        Script::Trim,
        Script::Lease,
        Script::Complete,
    ];

    pub(crate) fn source(self) -> &'static str {
        match self {
            Script::Hello => include_str!("scripts/hello.lua"),
            Script::Append => include_str!("scripts/append.lua"),
            Script::Trim => include_str!("scripts/trim.lua"),
            Script::Lease => include_str!("scripts/lease.lua"),
            Script::Complete => include_str!("scripts/complete.lua"),
        }
    }
}
