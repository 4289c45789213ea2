//! [`Keys`]: the names of all keys. They have the name of the cluster in braces, so a server
//! of a Redis Cluster has all of them.

use pushwheel::cluster::SnapshotName;

/// The longest name of a cluster, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    prefix: String,
    /// A stream: each entry is a block.
    pub(crate) log: String,
    /// A hash: what the log says of itself, and the newest block of each writer.
    pub(crate) meta: String,
    /// A hash: the name of the newest complete snapshot.
    pub(crate) snapshot: String,
}

impl Keys {
    /// Returns the keys of a cluster, or `None` if it cannot have this name.
    pub(crate) fn of(name: &str) -> Option<Keys> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_part);
        let prefix = format!("{{{name}}}");
        is_name.then(|| Keys {
            log: format!("{prefix}:log"),
            meta: format!("{prefix}:meta"),
            snapshot: format!("{prefix}:snapshot"),
            prefix,
        })
    }

    /// Returns keys for a trial, in the same slot.
    pub(crate) fn trial(&self, token: &str) -> Keys {
        let part = |name| format!("{}:trial:{token}:{name}", self.prefix);
        Keys {
            log: part("log"),
            meta: part("meta"),
            snapshot: part("snapshot"),
            prefix: self.prefix.clone(),
        }
    }

    /// A string: the writer that has the lease.
    pub(crate) fn lease(&self, name: &str) -> String {
        format!("{}:lease:{name}", self.prefix)
    }

    /// A hash: the chunks of a snapshot.
    pub(crate) fn chunks(&self, name: &SnapshotName) -> String {
        let writer = hex(name.writer);
        format!("{}:chunks:{}:{writer}", self.prefix, name.at)
    }

    /// A string: a value that is taken once.
    pub(crate) fn value(&self, key: &[u8]) -> Vec<u8> {
        let prefix = format!("{}:value:", self.prefix);
        [prefix.as_bytes(), key].concat()
    }

    /// The field of a writer in `meta`.
    pub(crate) fn writer(writer: u128) -> String {
        format!("w:{}", hex(writer))
    }
}

/// Writes the number of a process.
pub(crate) fn hex(writer: u128) -> String {
    format!("{writer:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_in_one_slot() {
        let keys = Keys::of("shop-1").unwrap();
        assert_eq!(keys.log, "{shop-1}:log");
        let name = SnapshotName { at: 7, writer: 1 };
        for key in [
            &keys.meta,
            &keys.snapshot,
            &keys.lease("keeper"),
            &keys.chunks(&name),
            &keys.trial("x").log,
        ] {
            assert!(key.starts_with("{shop-1}:"), "{key}");
        }
        assert!(keys.value(b"\xff").starts_with(b"{shop-1}:value:\xff"));
        for wrong in ["", "a{b", "a}b", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(Keys::of(wrong), None, "{wrong}");
        }
    }
}
