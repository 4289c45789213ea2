//! Idempotency keys: a publish that its publisher repeats with the same key is done once.
//!
//! A key leads to a digest of what was published and to the first result, for as long as the
//! [table](super::table) knows it. Keys of a channel, and those of publishes to all
//! channels, are apart from each other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::audience::Audience;
use super::ids::Ids;
use super::numbering::mixed;
use super::published::{PublishError, Published};
use super::ready::Ready;
use super::remembered::OwnId;
use super::table::{Bounds, Record, Table};

/// How long keys are known.
const BOUNDS: Bounds = Bounds {
    entries_max: 131_072,
    bytes_max: 131_072 * KEY_BYTES,
    age_max: Duration::from_secs(24 * 3_600),
};

/// Bytes of a key: its record, and a slot of the table of places when that is largest.
const KEY_BYTES: u32 = 82;

/// A key with which a publish may be repeated; see
/// [`PublishOptions::idempotency_key`](crate::PublishOptions::idempotency_key).
///
/// ```
/// use pushwheel::IdempotencyKey;
///
/// assert_eq!(IdempotencyKey::new("order-17"), IdempotencyKey::new("order-17"));
/// assert_ne!(IdempotencyKey::new("order-17"), IdempotencyKey::new("order-18"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(u128);

impl IdempotencyKey {
    /// Returns the key of a text. Only a hash of the text is kept, which does not resist an
    /// attacker that chooses the text: use [`from_digest`](Self::from_digest) for keys of
    /// publishers that must not interfere with each other.
    #[must_use]
    pub fn new(text: &str) -> IdempotencyKey {
        IdempotencyKey(wide_digest([1, 2], text))
    }

    /// Returns the key that is the first half of a cryptographic digest, such as SHA-256 of
    /// a publisher's name and the text that it has sent.
    #[must_use]
    pub fn from_digest(digest: [u8; 16]) -> IdempotencyKey {
        IdempotencyKey(u128::from_le_bytes(digest))
    }

    /// Returns the key in its scope, the name of a channel. Two keys of one scope stay apart.
    fn in_scope(self, scope: &str) -> KeyId {
        const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let mixed = (self.0 ^ wide_digest([3, 4], scope)).wrapping_mul(ODD);
        KeyId(mixed.to_le_bytes())
    }
}

/// A key in its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyId(pub(crate) [u8; 16]);

/// The key of a publish, and the digest of what is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keyed {
    pub(crate) id: KeyId,
    pub(crate) digest: u64,
}

impl Keyed {
    /// Returns the key of a publish of `events` to `audience`, which may end its channel.
    pub(super) fn of(
        key: IdempotencyKey,
        scope: &str,
        events: &[Ready],
        audience: Option<&Audience>,
        finishes: bool,
    ) -> Keyed {
        let mut digest = u64::from(finishes);
        for ready in events {
            let removal: &[u8] = if ready.removes { b"removal" } else { b"" };
            let key = ready.key().unwrap_or_default();
            digest = word_digest(digest, [ready.frame.as_bytes(), key.as_bytes(), removal]);
        }
        if let Some(audience) = audience {
            let parts = audience.parts();
            digest = word_digest(digest, parts.iter().map(|part| &**part));
        }
        let id = key.in_scope(scope);
        Keyed { id, digest }
    }
}

/// What is remembered of a key: the first result, with a digest of what was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    /// The number of the last event, or one that was given to the publish alone.
    pub(crate) sequence: u64,
    pub(crate) at_ms: u64,
    pub(crate) digest: u64,
    pub(crate) events: u32,
    pub(crate) clients: u32,
}

impl Record<KeyId> for KeyRecord {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn at_ms(&self) -> u64 {
        self.at_ms
    }

    fn set_at_ms(&mut self, at_ms: u64) {
        self.at_ms = at_ms;
    }

    fn reduce(&mut self, _: &KeyId) -> usize {
        KEY_BYTES as usize
    }
}

/// The keys that are remembered, of all channels.
pub(super) type Keys = Table<KeyId, KeyRecord>;

/// Returns an empty table of keys.
pub(super) fn no_keys() -> Keys {
    Table::new(BOUNDS)
}

/// Returns the first result of a publish that is repeated, or `None` if its key is not known.
///
/// # Errors
/// When the key is that of another publish.
pub(super) fn repeated(
    keys: &Keys,
    keyed: Keyed,
    now_ms: u64,
    events: &[Ready],
    ids: &Ids,
) -> Result<Option<Published>, PublishError> {
    let Some(record) = keys.known(&keyed.id, now_ms) else {
        return Ok(None);
    };
    if record.digest != keyed.digest {
        return Err(PublishError::KeyReused);
    }
    let own_id = events.last().and_then(Ready::own_id).map(OwnId::event_id);
    Ok(Some(Published {
        id: Some(own_id.unwrap_or_else(|| ids.id_of(record.sequence))),
        events: record.events as usize,
        clients: record.clients as usize,
        duplicates: events.len().saturating_sub(record.events as usize),
        is_repeated: true,
    }))
}

/// Returns the record of a publish whose last number is `sequence`.
pub(super) fn record_of(
    keyed: Keyed,
    sequence: u64,
    at_ms: u64,
    events: usize,
    clients: usize,
) -> KeyRecord {
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    KeyRecord {
        sequence,
        at_ms,
        digest: keyed.digest,
        events: small(events),
        clients: small(clients),
    }
}

/// The keys of publishes that wait for the journal.
#[derive(Clone, Debug, Default)]
pub(super) struct KeysInFlight(Arc<Mutex<HashSet<KeyId>>>);

impl KeysInFlight {
    /// Adds a key until what is returned is dropped. Returns `None` if it is there.
    pub(super) fn enter(&self, id: KeyId) -> Option<KeyInFlight> {
        let is_new = self.lock().insert(id);
        is_new.then(|| KeyInFlight {
            keys: self.clone(),
            id,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<KeyId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that is in flight until this is dropped.
#[derive(Debug)]
pub(super) struct KeyInFlight {
    keys: KeysInFlight,
    id: KeyId,
}

impl Drop for KeyInFlight {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.id);
    }
}

/// Returns two hashes of a text as one number.
fn wide_digest(seeds: [u64; 2], text: &str) -> u128 {
    let [high, low] = word_digests(seeds, [text.as_bytes()]);
    u128::from(high) << 64 | u128::from(low)
}

/// Returns a hash of `parts`, each with its length, in steps of eight bytes. It is the same in
/// every build, because logs and saved states have it.
fn word_digest<'a>(seed: u64, parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let [digest] = word_digests([seed], parts);
    digest
}

/// Returns such a hash for each seed.
fn word_digests<'a, const N: usize>(
    seeds: [u64; N],
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> [u64; N] {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hashes = seeds.map(|seed| mixed(seed.wrapping_add(ODD)));
    let mut add = |word: u64| {
        for hash in &mut hashes {
            *hash = (hash.rotate_left(29) ^ word).wrapping_mul(ODD);
        }
    };
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            add(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        add(u64::from_le_bytes(last));
        add(part.len() as u64);
    }
    hashes.map(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_one_scope() {
        let ids = ["a", "b"]
            .map(|text| ["x", "y", ""].map(|scope| IdempotencyKey::new(text).in_scope(scope)));
        let mut all: Vec<KeyId> = ids.into_iter().flatten().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
        let [one, other] = ["x/y", "y/x"].map(|text| {
            let (key, scope) = text.split_once('/').unwrap();
            IdempotencyKey::new(key).in_scope(scope)
        });
        assert_ne!(one, other);
    }

    #[test]
    fn a_digest_depends_on_each_part_and_on_nothing_else() {
        let of = |parts: &[&str]| word_digest(0, parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        for other in [
            &["a", "bc"][..],
            &["abc"],
            &["ab", "c", ""],
            &["ab", "c\0"],
            &["ab", "d"],
            &["c", "ab"],
            &[],
        ] {
            assert_ne!(of(&["ab", "c"]), of(other), "{other:?}");
        }
        // Logs have digests: the function must not change.
        assert_eq!(of(&["the digest of a text"]), DIGEST_OF_A_TEXT);
        let key = IdempotencyKey::new("order-17").in_scope("news");
        assert_eq!(key, KEY_OF_A_TEXT);
    }

    const DIGEST_OF_A_TEXT: u64 = 3_840_479_206_936_456_083;
    const KEY_OF_A_TEXT: KeyId = KeyId([
        213, 17, 189, 5, 11, 76, 67, 51, 47, 90, 161, 252, 172, 59, 21, 132,
    ]);

    #[test]
    fn a_key_takes_what_is_counted_for_it() {
        let slot = size_of::<u32>() + 1;
        // A table doubles when seven eighths of its slots are taken; the list grows by a
        // quarter.
        let of_table = (slot * 16).div_ceil(7);
        let of_list = (size_of::<KeyId>() + size_of::<KeyRecord>() + 8) * 5 / 4;
        assert_eq!(KEY_BYTES as usize, of_table + of_list);
    }
}
