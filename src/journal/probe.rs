//! [`Probe`]: what a node of a cluster says of itself in the log, each second.

use super::bytes::{Damaged, Input, put_number, put_text};

/// The most bytes of a name and of a version.
pub(crate) const TEXT_BYTES_MAX: usize = 255;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) name: String,
    /// The version of its program.
    pub(crate) version: String,
    /// The newest number that it had applied.
    pub(crate) applied: u64,
    pub(crate) clients: u64,
    pub(crate) channels: u64,
    /// A number that is the same on nodes whose channels have the same options.
    pub(crate) options_digest: u64,
    pub(crate) is_draining: bool,
}

impl Probe {
    /// Returns at least the bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.name.len() + self.version.len() + 64
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_text(out, &self.name);
        put_text(out, &self.version);
        for number in [
            self.applied,
            self.clients,
            self.channels,
            self.options_digest,
        ] {
            put_number(out, number);
        }
        out.push(u8::from(self.is_draining));
    }

    /// Reads a probe. What a later release has added is skipped.
    pub(super) fn read(input: &mut Input<'_>) -> Result<Probe, Damaged> {
        let probe = Probe {
            name: input.text()?.to_owned(),
            version: input.text()?.to_owned(),
            applied: input.number()?,
            clients: input.number()?,
            channels: input.number()?,
            options_digest: input.number()?,
            is_draining: input.flag()?,
        };
        input.some(input.len())?;
        Ok(probe)
    }
}
