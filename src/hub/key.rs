//! The names by which channels and members are found.

/// Names one channel for as long as the hub lives: its slot, and the generation of the
/// slot, which another channel may have later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// One client's slot in one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberKey {
    pub(crate) channel: ChannelKey,
    pub(crate) slot: u32,
}
