//! The keyed part of a conflating channel's log: the newest event of each key.
//! Pure.
//!
//! An entry here is state, not history: it holds until a newer event of its key
//! replaces it, the key is removed, or the bounds ([`KeyedState`]) evict it. Only
//! the last is a loss, and the oldest change goes first. A snapshot without an
//! evicted key is not complete, and a new client has to hear of it; so the part
//! remembers which keys it has evicted until they are published again or removed.
//!
//! Every step costs at most the logarithm of the number of keys.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::audience::{Audience, Choice, Condition};
use super::client::ClientId;
use super::entry::{Entry, audience_bytes_beside};
use super::looks::looked_at;

/// Maximum number of evicted keys that are remembered. When there are more, the snapshot counts
/// as incomplete for as long as the channel lives.
const MISSING_KEYS_MAX: usize = 1024;

/// What remembering an evicted key costs beyond its bytes, in the log's
/// accounting.
const MISSING_OVERHEAD_BYTES: usize = 64;

/// The bounds of the keyed state of a conflating channel
/// ([`LagPolicy::Conflate`](crate::LagPolicy::Conflate)): the newest event of each
/// key.
///
/// The bounds of the [`History`](crate::History) do not apply to it. All three
/// bounds hold at once; beyond them the key that has not changed for the longest
/// time is evicted. From then on, a new client gets a `pushwheel.gap` event with
/// the reason `evicted` in front of its snapshot, until the missing keys are
/// published again or removed.
///
/// ```
/// use pushwheel::{ChannelOptions, KeyedState, LagPolicy};
///
/// let options = ChannelOptions::new()
///     .lag_policy(LagPolicy::Conflate)
///     .keyed_state(KeyedState::keys(100_000).bytes_max(64 << 20));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedState {
    /// Maximum number of keys.
    pub keys_max: usize,
    /// Maximum bytes of their events, bookkeeping included.
    pub bytes_max: usize,
    /// Maximum time without a change.
    pub age_max: Duration,
}

impl KeyedState {
    /// At most `keys_max` keys, whose events have at most 8 MiB together and may
    /// be of any age.
    #[must_use]
    pub const fn keys(keys_max: usize) -> KeyedState {
        KeyedState {
            keys_max,
            bytes_max: 8 << 20,
            age_max: Duration::MAX,
        }
    }

    /// The same with another bound on bytes.
    #[must_use]
    pub const fn bytes_max(mut self, bytes: usize) -> KeyedState {
        self.bytes_max = bytes;
        self
    }

    /// The same with a bound on age: a key that has not changed for longer is
    /// evicted.
    #[must_use]
    pub const fn age_max(mut self, age: Duration) -> KeyedState {
        self.age_max = age;
        self
    }
}

impl Default for KeyedState {
    /// 10,000 keys, 8 MiB, any age.
    fn default() -> KeyedState {
        KeyedState::keys(10_000)
    }
}

/// What an entry is about. A newer entry replaces an older one only if both have
/// the same key and are for the same clients; otherwise a client could lose an
/// event that nothing replaces for it. The clients have to be chosen in the same
/// way, too: a filter may have meant a client that comes back under another id,
/// and an event for named clients does not.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    key: Arc<str>,
    audience: Option<Arc<Audience>>,
    /// How the clients of the audience were chosen.
    choice: Option<Choice>,
}

impl PartialEq for Subject {
    fn eq(&self, other: &Subject) -> bool {
        self.key == other.key
            && self.choice == other.choice
            && self.clients_meant() == other.clients_meant()
    }
}

impl Eq for Subject {}

impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
        self.choice.hash(state);
        self.clients_meant().hash(state);
    }
}

impl Subject {
    fn new(key: Arc<str>, audience: Option<Arc<Audience>>) -> Subject {
        let choice = audience.as_ref().and_then(|audience| audience.choice());
        Subject {
            key,
            audience,
            choice,
        }
    }

    fn clients_meant(&self) -> Option<(u8, &[ClientId], &[Condition])> {
        self.audience
            .as_ref()
            .map(|audience| audience.clients_meant())
    }

    /// Returns the subject of an entry with a key.
    pub(crate) fn of(entry: &Entry) -> Option<Subject> {
        Some(Subject::new(
            entry.key()?.clone(),
            entry.audience().cloned(),
        ))
    }

    /// Returns the subjects of this key and these clients, chosen in each way.
    pub(crate) fn of_each_choice(
        key: Arc<str>,
        audience: Option<Arc<Audience>>,
    ) -> impl Iterator<Item = Subject> {
        let subject = Subject::new(key, audience);
        let choices = match subject.choice {
            Some(_) => Choice::ALL.map(Some).to_vec(),
            None => vec![None],
        };
        choices.into_iter().map(move |choice| Subject {
            choice,
            ..subject.clone()
        })
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Keyed {
    /// By sequence number.
    entries: BTreeMap<u64, Entry>,
    /// The sequence number of each subject's entry.
    subjects: HashMap<Subject, u64>,
    bytes: usize,
    /// Keys of events for all clients that were evicted, and neither published
    /// again nor removed since then. At most [`MISSING_KEYS_MAX`].
    missing: BTreeSet<Arc<str>>,
    missing_bytes: usize,
    evicted_through: u64,
    /// Whether a key was evicted that is not remembered.
    has_forgotten: bool,
    /// Keys that were evicted since the log was made.
    evictions: u64,
}

impl Keyed {
    pub(super) fn new(evicted_through: u64) -> Keyed {
        Keyed {
            evicted_through,
            ..Keyed::default()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the entries, by the log's own accounting.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the keys that are missing.
    pub(super) fn missing_bytes(&self) -> usize {
        self.missing_bytes
    }

    /// The newest entry that was evicted.
    pub(super) fn evicted_through(&self) -> u64 {
        self.evicted_through
    }

    /// Returns the number of keys that were evicted since the log was made.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Whether the entries are the whole state: no key is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty() && !self.has_forgotten
    }

    /// The keys that were evicted and are remembered, in their order, and whether
    /// there are more.
    pub(crate) fn missing(&self) -> (Vec<Arc<str>>, bool) {
        (self.missing.iter().cloned().collect(), self.has_forgotten)
    }

    /// Notes keys that were evicted in an earlier life of the log, all entries of
    /// which are there by now.
    pub(crate) fn restore_missing(&mut self, keys: Vec<Arc<str>>, has_forgotten: bool) {
        self.has_forgotten |= has_forgotten;
        for key in keys {
            let subject = Subject::new(key, None);
            if !self.subjects.contains_key(&subject) {
                self.remember(subject);
            }
        }
    }

    #[cfg(feature = "internals")]
    pub(super) fn indexed(&self) -> usize {
        self.subjects.len() + self.missing.len()
    }

    pub(super) fn oldest(&self) -> Option<&Entry> {
        self.entries.first_key_value().map(|(_, entry)| entry)
    }

    pub(super) fn newest(&self) -> Option<&Entry> {
        self.entries.last_key_value().map(|(_, entry)| entry)
    }

    /// The entries after `sequence`, oldest first.
    pub(super) fn after(&self, sequence: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        let range = (Bound::Excluded(sequence), Bound::Unbounded);
        self.entries.range(range).map(|(_, entry)| entry)
    }

    /// The entries up to `sequence`, oldest first.
    pub(super) fn until(&self, sequence: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.range(..=sequence).map(|(_, entry)| entry)
    }

    /// Adds the newest entry of all, and returns the older one that it replaces.
    pub(super) fn insert(&mut self, subject: Subject, entry: Entry) -> Option<Entry> {
        self.find_missing(&subject);
        let older = match subject.audience {
            // The key in the map stays, and the number is replaced.
            None => self.subjects.insert(subject, entry.sequence),
            // Taken out and put in, so that the map has the audience of the
            // newest entry, and not an equal one beside it.
            Some(_) => {
                let older = self.subjects.remove(&subject);
                self.subjects.insert(subject, entry.sequence);
                older
            }
        };
        let replaced = older.and_then(|at| self.take(at));
        self.bytes += entry.bytes() + self.audience_bytes(&entry);
        self.entries.insert(entry.sequence, entry);
        replaced
    }

    /// Removes a key, whether it has an entry or is missing. Returns the entry.
    pub(super) fn remove(&mut self, subject: &Subject) -> Option<Entry> {
        self.find_missing(subject);
        let at = self.subjects.remove(subject)?;
        self.take(at)
    }

    /// Evicts the entry that has not changed for the longest time.
    pub(super) fn evict_oldest(&mut self) -> Option<Entry> {
        let (at, entry) = self.entries.pop_first()?;
        self.bytes -= entry.bytes() + self.audience_bytes(&entry);
        self.evicted_through = at;
        self.evictions += 1;
        let subject = Subject::of(&entry)?;
        self.subjects.remove(&subject);
        self.remember(subject);
        Some(entry)
    }

    /// Remembers that a key is missing, as far as there is room.
    fn remember(&mut self, subject: Subject) {
        if subject.audience.is_some() || self.missing.len() >= MISSING_KEYS_MAX {
            self.has_forgotten = true;
            return;
        }
        let bytes = subject.key.len() + MISSING_OVERHEAD_BYTES;
        if self.missing.insert(subject.key) {
            self.missing_bytes += bytes;
        }
    }

    /// Notes that a subject is published again or removed: its key is not missing
    /// any longer.
    fn find_missing(&mut self, subject: &Subject) {
        if subject.audience.is_none()
            && !self.missing.is_empty()
            && self.missing.remove(&subject.key)
        {
            self.missing_bytes -= subject.key.len() + MISSING_OVERHEAD_BYTES;
        }
    }

    /// Takes out an entry whose subject is taken out already.
    fn take(&mut self, at: u64) -> Option<Entry> {
        let entry = self.entries.remove(&at)?;
        self.bytes -= entry.bytes() + self.audience_bytes(&entry);
        Some(entry)
    }

    /// The bytes that the audience of an entry adds that is about to be inserted,
    /// or was just taken out.
    fn audience_bytes(&self, entry: &Entry) -> usize {
        let Some(audience) = entry.audience() else {
            return 0;
        };
        let before = self.entries.range(..entry.sequence).next_back();
        let behind = self.entries.range(entry.sequence..).next();
        audience_bytes_beside(audience, [before, behind].map(|e| Some(e?.1)))
    }
}

/// The two parts of a log, merged by their sequence numbers.
pub(super) struct InOrder<'a, H, K> {
    history: H,
    keyed: K,
    next_keyed: Option<&'a Entry>,
    is_newest_first: bool,
}

impl<'a, H, K: Iterator<Item = &'a Entry>> InOrder<'a, H, K> {
    pub(super) fn oldest_first(history: H, mut keyed: K) -> Self {
        InOrder {
            next_keyed: keyed.next(),
            history,
            keyed,
            is_newest_first: false,
        }
    }

    pub(super) fn newest_first(history: H, keyed: K) -> Self {
        InOrder {
            is_newest_first: true,
            ..InOrder::oldest_first(history, keyed)
        }
    }
}

impl<'a, H, K> Iterator for InOrder<'a, H, K>
where
    H: Iterator<Item = &'a Entry> + Clone,
    K: Iterator<Item = &'a Entry>,
{
    type Item = &'a Entry;

    fn next(&mut self) -> Option<&'a Entry> {
        looked_at(1);
        let Some(keyed) = self.next_keyed else {
            return self.history.next();
        };
        // A clone of such an iterator is a few words.
        if let Some(next) = self.history.clone().next()
            && (next.sequence < keyed.sequence) != self.is_newest_first
        {
            return self.history.next();
        }
        self.next_keyed = self.keyed.next();
        Some(keyed)
    }
}
