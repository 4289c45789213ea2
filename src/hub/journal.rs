//! Opening a journal: the channels as the log says they are, and the threads that go on
//! with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::applying::BlockTime;
use super::clock::Clock;
use super::for_all::NAME_OF_ALL;
use super::id::Epoch;
use super::ids::Ids;
use super::journaling::Journaling;
use super::manager::{ChannelManager, ChannelManagerBuilder};
use super::numbering::Numbering;
use super::proposals::{JournalStatus, Proposals};
use super::published::ChangeLog;
use super::saved::{Origin, RestoreError, Restored};
use super::state::{State, Totals};
use super::{Hub, Randomness};
use crate::journal::block::Sealed;
use crate::journal::blocks::Blocks;
use crate::journal::disk::{Directory, Disk};
use crate::journal::error::JournalError;
use crate::journal::follower::{Arrived, Follower};
use crate::journal::record::{Change, Record};
use crate::journal::segment::Stored;
use crate::journal::snapshots::snapshot_name;
use crate::journal::store::{Opening, Recovery, Store, StoreOptions};

/// When the writes of a journal are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalSync {
    /// Before a publish returns. What was published survives the machine.
    Always,
    /// Within this time. What was published survives the process; the machine may lose the
    /// events of this time, and then clients receive a `pushwheel.gap` event with the reason
    /// `lost`.
    Every(Duration),
}

/// The options of a journal; see [`ChannelManagerBuilder::open_journal`].
#[derive(Clone, Debug)]
pub struct JournalOptions {
    sync: JournalSync,
    bytes_max: u64,
    publish_timeout: Duration,
    segment_bytes: Option<u64>,
}

impl Default for JournalOptions {
    fn default() -> Self {
        JournalOptions::new()
    }
}

impl JournalOptions {
    /// Returns the defaults, which the methods document.
    #[must_use]
    pub fn new() -> JournalOptions {
        JournalOptions {
            sync: JournalSync::Every(Duration::from_secs(1)),
            bytes_max: 1 << 30,
            publish_timeout: Duration::from_secs(5),
            segment_bytes: None,
        }
    }

    /// Sets when writes are on the disk. Default: within a second.
    #[must_use]
    pub fn sync(mut self, sync: JournalSync) -> Self {
        self.sync = sync;
        self
    }

    /// Sets the maximum size of all files, in bytes. The journal needs at most about three
    /// times the histories and 128 MiB. At the limit a publish fails with
    /// [`PublishError::Unavailable`](crate::PublishError::Unavailable). Default: 1 GiB.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Sets the maximum time for which a publish waits for the journal. Default: 5 s.
    #[must_use]
    pub fn publish_timeout(mut self, time: Duration) -> Self {
        self.publish_timeout = time;
        self
    }

    /// Sets the size of a file after which the next one begins.
    #[cfg(any(test, feature = "internals"))]
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    fn of_store(&self, identity: Vec<u8>) -> StoreOptions {
        let mut options = StoreOptions::new(identity);
        options.syncs_always = self.sync == JournalSync::Always;
        options.bytes_max = self.bytes_max;
        options.segment_bytes = self.segment_bytes.unwrap_or(options.segment_bytes);
        options
    }
}

impl ChannelManagerBuilder {
    /// Makes the manager with the channels that a journal has, and writes all further events
    /// to it. The directory is made if there is none; one process uses it at a time.
    ///
    /// With a journal, an event is published when it is written, and no client receives it
    /// before. What [`Channel::publish`](crate::Channel::publish) has accepted survives the
    /// end of the process however it ends: after the next `open_journal` ids go on, and
    /// clients resume without a gap. [`JournalSync`] decides what the end of the machine can
    /// take. A finished channel keeps its time
    /// ([`ChannelOptions::finished_for`](crate::ChannelOptions::finished_for)).
    ///
    /// Methods that change channels (`publish` and its variants, `finish`, `close`,
    /// `remove`) wait until the journal has the change. On the engine's own threads, in
    /// callbacks and handlers, they never wait: the change is queued in order and has no id
    /// yet. [`Channel::publish_then`](crate::Channel::publish_then) reports its outcome.
    /// [`Sink`](crate::Sink)s are not in the journal. Neither are options: channels get those
    /// of [`defaults`](Self::defaults) or [`options_by_name`](Self::options_by_name). A history
    /// that only
    /// [`get_or_create_with`](ChannelManager::get_or_create_with) or
    /// [`set_options`](crate::Channel::set_options) allow is gone after a restart.
    ///
    /// ```
    /// use pushwheel::{ChannelManager, ChannelOptions, Event, History, JournalOptions};
    ///
    /// # let dir = std::env::temp_dir().join(format!("pushwheel-doc-{}", std::process::id()));
    /// let options = ChannelOptions::new().history(History::events(100));
    /// let open = || {
    ///     let builder = ChannelManager::builder().defaults(options.clone());
    ///     builder.open_journal(&dir, JournalOptions::new())
    /// };
    /// let before = open()?;
    /// let news = before.get_or_create("news")?;
    /// let id = news.broadcast(Event::message("hello"))?.id;
    /// drop((before, news));
    ///
    /// let after = open()?;
    /// assert_eq!(after.stats().channel_stats[0].newest, id);
    /// # after.close_journal()?;
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the directory cannot be used, another process uses it, or a file in it is
    /// damaged or of a newer release. A damaged journal is left as it is. What a crash has
    /// left incomplete at the end is not damage: it was never accepted, and is cut off.
    ///
    /// # Panics
    /// When the options of a name do.
    pub fn open_journal(
        self,
        directory: impl AsRef<Path>,
        options: JournalOptions,
    ) -> Result<ChannelManager, JournalError> {
        let directory = directory.as_ref();
        let disk = Directory::lock(directory)?;
        self.open_journal_on(disk, options)
    }

    pub(super) fn open_journal_on<D: Disk>(
        self,
        disk: D,
        options: JournalOptions,
    ) -> Result<ChannelManager, JournalError> {
        let root = disk.path("");
        let opened = self.open_log(disk, &options, &Clock::system(), Randomness::System)?;
        let OpenedLog {
            manager,
            proposals,
            store,
            ..
        } = opened;
        let syncer = store.syncer();
        let journaling = Journaling {
            log: Box::new(store),
            take_snapshot: Hub::write_snapshot,
            sync: match options.sync {
                JournalSync::Always => None,
                JournalSync::Every(time) => Some((Box::new(move || syncer.sync()), time)),
            },
        };
        journaling
            .start(&proposals)
            .map_err(|error| JournalError::Io {
                doing: "start a thread for",
                path: root,
                error,
            })?;
        Ok(manager)
    }

    /// Makes the manager with the channels that a log has. Nothing goes on with the log yet.
    /// `clock` is any clock of the source that the manager's is to have.
    pub(super) fn open_log<D: Disk>(
        self,
        disk: D,
        options: &JournalOptions,
        clock: &Clock,
        randomness: Randomness,
    ) -> Result<OpenedLog<D>, JournalError> {
        let root = disk.path("");
        let identity = identity_of(&self.new_ids(&randomness));
        let mut of_store = options.of_store(identity);
        of_store.salt = randomness.bits().to_le_bytes();
        let (opening, recovery) = Opening::examine(disk, of_store)?;
        let tear = recovery.tear.clone();
        let writer = randomness.bits();
        let recovered = self.recover(&root, recovery, clock)?;
        if recovered.state.sequence >= opening.next() {
            let what = "its snapshot has events that its log does not have";
            return Err(JournalError::damaged(&root, 0, what));
        }
        let Recovered {
            ids,
            clock,
            state,
            mut blocks,
            first,
            applied,
            newest,
            may_have_lost,
        } = recovered;
        let proposals = Proposals::new(
            writer,
            clock.clone(),
            options.publish_timeout,
            ChangeLog::Journal,
        );
        let proposals = Arc::new(proposals);
        let hub = Hub::with_ids(
            ids,
            // It knows the ids from before.
            0,
            clock,
            randomness,
            state,
            self.options_by_name,
            Some(proposals.clone()),
        );
        hub.replay(applied, first, &mut blocks)?;
        drop(blocks);
        // From here on files change: what could not be read was reported.
        let mut store = opening.begin()?;
        if let Some(tear) = tear {
            let path = root.join(&tear.name);
            let (offset, bytes, what) = (tear.offset, tear.bytes, tear.what);
            ::log::warn!(
                "the end of the journal was incomplete and was cut off: {bytes} bytes from byte \
                 {offset} of {} on ({what})",
                path.display()
            );
        }
        let lost = match may_have_lost {
            true => Some((hub.begin_term(&mut store, newest)?, newest)),
            false => None,
        };
        hub.lock().totals = Totals::default();
        let handles = Some(proposals.first_handle());
        Ok(OpenedLog {
            manager: ChannelManager {
                _handles: handles,
                hub,
            },
            proposals,
            store,
            lost,
        })
    }

    pub(super) fn new_ids(&self, randomness: &Randomness) -> Ids {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "any 32 of the bits will do"
        )]
        let epoch = Epoch::from_random(randomness.bits() as u32);
        let key = self.settings.opaque_ids.then(|| randomness.bits());
        Ids::new(epoch, Numbering::new(key))
    }

    /// Reads the snapshot, and looks at the first block behind it.
    fn recover<D: Disk>(
        &self,
        root: &Path,
        recovery: Recovery<D>,
        clock: &Clock,
    ) -> Result<Recovered<D>, JournalError> {
        let Recovery {
            identity,
            snapshot,
            mut blocks,
            newest,
            may_have_lost,
            ..
        } = recovery;
        let first = blocks.next().transpose()?;
        let first_ms = first.as_ref().map(|first| first.wall_ms);
        let (applied, ids, clock, state) = match snapshot {
            None => {
                let ids = ids_of(&identity).ok_or_else(|| {
                    let what = "no ids can be made from it".to_owned();
                    JournalError::Damaged {
                        path: root.to_owned(),
                        offset: 0,
                        what,
                    }
                })?;
                let clock = match first_ms {
                    Some(first_ms) => clock.of_history_since(first_ms),
                    None => clock.begun_ago(0),
                };
                (0, ids, clock, State::new(self.settings))
            }
            Some(snapshot) => {
                let at = snapshot.at;
                let options = |name: &str| self.options_by_name.of(name);
                let history = options(NAME_OF_ALL).history;
                let origin = Origin::Log { older_ms: first_ms };
                let settings = self.settings;
                let restored = Restored::read(snapshot, clock, settings, origin, history, options);
                let path = || root.join(snapshot_name(at));
                let restored = restored.map_err(|error| unrestored(error, path()))?;
                // The copy was begun when more was in the log.
                (restored.at, restored.ids, restored.clock, restored.state)
            }
        };
        Ok(Recovered {
            ids,
            clock,
            state,
            blocks,
            first,
            applied,
            newest,
            may_have_lost,
        })
    }
}

/// The channels that a log has, and the log, with which nothing goes on yet.
pub(super) struct OpenedLog<D: Disk> {
    pub(super) manager: ChannelManager,
    pub(super) proposals: Arc<Proposals<Hub>>,
    pub(super) store: Store<D>,
    /// The number of the record that says that events may be lost, if this start has made
    /// one, and the newest number before it.
    #[cfg_attr(
        not(feature = "internals"),
        allow(dead_code, reason = "only the simulator asks for it")
    )]
    pub(super) lost: Option<(u64, u64)>,
}

/// A log that was opened, and what its snapshot has.
struct Recovered<D: Disk> {
    ids: Ids,
    clock: Clock,
    state: State,
    /// The blocks behind the first one.
    blocks: Blocks<D>,
    first: Option<Stored>,
    /// The snapshot has everything up to this number.
    applied: u64,
    /// The newest number that there is.
    newest: u64,
    may_have_lost: bool,
}

impl Hub {
    /// Applies the blocks of a log.
    fn replay<D: Disk>(
        &self,
        applied: u64,
        first: Option<Stored>,
        blocks: &mut Blocks<D>,
    ) -> Result<(), JournalError> {
        let (wall_ms, now_ms) = (self.clock.read_wall_ms(), self.clock.now_ms());
        let mut follower = Follower::new(applied);
        let mut next = first;
        while let Some(stored) = next {
            let block = blocks.decode(&stored, self.ids.prefix())?;
            let arrived = follower.arrived(stored.first, block);
            match arrived.map_err(|error| blocks.damaged(error.to_string()))? {
                Arrived::Seen => {}
                Arrived::Apply { first, records } => {
                    let ago_ms = wall_ms.saturating_sub(stored.wall_ms);
                    let time = BlockTime {
                        wall_ms: stored.wall_ms,
                        at_ms: now_ms.saturating_sub(ago_ms),
                    };
                    // Each record may make a channel, and each of these may be looked at.
                    let looks = 2 * records.len();
                    let records = records.into_iter().map(|record| (record, ()));
                    self.apply(first, time, records, |(), _| {});
                    self.remove_unused(looks);
                }
                Arrived::Hole => return Err(blocks.damaged("blocks before it are missing")),
            }
            next = blocks.next().transpose()?;
        }
        self.remove_unused(self.channels_capacity());
        Ok(())
    }

    /// Looks at channels, and removes those that are not in use, if there are more than there
    /// may be. A replay also makes those that were removed before without a record.
    fn remove_unused(&self, looks: usize) {
        let mut left = looks;
        while left > 0 && self.has_too_many_channels() {
            left = self.sweep(left);
        }
    }

    fn has_too_many_channels(&self) -> bool {
        let state = self.lock();
        state.names.len() > state.settings.channels_max
    }

    /// Says in the log, and in the channels, that events may be lost. Returns when that is on
    /// the disk, with its number: numbers are given again if it is lost, too.
    fn begin_term<D: Disk>(&self, store: &mut Store<D>, after: u64) -> Result<u64, JournalError> {
        ::log::warn!("the newest events of the journal may be lost. Clients receive a gap");
        let record = Record {
            basis: after,
            change: Change::Lost { after },
        };
        let block = Sealed::new(self.randomness.bits(), 1, [&record].into_iter());
        let time = BlockTime {
            wall_ms: self.clock.read_wall_ms(),
            at_ms: self.clock.now_ms(),
        };
        let first = store.append(block.width, time.wall_ms, &block.bytes)?;
        store.sync()?;
        self.apply(first, time, [(record, ())], |(), _| {});
        Ok(first)
    }
}

impl ChannelManager {
    /// Closes the journal: waits until what is queued is published, and writes an end by
    /// which the next start knows that nothing is missing. Later publishes fail with
    /// [`PublishError::Unavailable`](crate::PublishError::Unavailable); streams go on.
    ///
    /// Dropping the last handle of the manager and its channels does the same; an engine has
    /// one until it ends. Call this to
    /// learn of an error. Do not call it in a callback: it waits for the disk.
    ///
    /// # Errors
    /// When the journal could not be written. The error is reported once.
    pub fn close_journal(&self) -> Result<(), JournalError> {
        match &self.hub.proposals {
            Some(proposals) => proposals.close(),
            None => Ok(()),
        }
    }

    /// Returns the state of the journal, if there is one.
    #[must_use]
    pub fn journal_status(&self) -> Option<JournalStatus> {
        let is_journal = self.hub.cluster.get().is_none();
        let proposals = self.hub.proposals.as_ref().filter(|_| is_journal)?;
        Some(proposals.status())
    }
}

/// Returns what the ids of a log are made from.
pub(super) fn identity_of(ids: &Ids) -> Vec<u8> {
    let mut identity = ids.epoch().as_str().as_bytes().to_vec();
    if let Some(key) = ids.numbering().key() {
        identity.extend_from_slice(&key.to_le_bytes());
    }
    identity
}

pub(super) fn ids_of(identity: &[u8]) -> Option<Ids> {
    let (epoch, key) = identity.split_at_checked(Epoch::BYTES)?;
    let epoch = Epoch::from_text(std::str::from_utf8(epoch).ok()?)?;
    let key = match key {
        [] => None,
        key => Some(u128::from_le_bytes(key.try_into().ok()?)),
    };
    Some(Ids::new(epoch, Numbering::new(key)))
}

/// Returns why a snapshot cannot be used.
fn unrestored(error: RestoreError, path: std::path::PathBuf) -> JournalError {
    match error {
        RestoreError::Read(error) => JournalError::Io {
            doing: "read",
            path,
            error,
        },
        RestoreError::Version { found, known } => JournalError::newer(&path, found, known),
        other => JournalError::Damaged {
            path,
            offset: 0,
            what: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_on_from_what_a_log_says() {
        for key in [None, Some(7)] {
            let ids = Ids::new(Epoch::from_random(17), Numbering::new(key));
            let identity = identity_of(&ids);
            let same = ids_of(&identity).unwrap();
            assert_eq!(same.id_of(3), ids.id_of(3));
            for cut in 1..identity.len() {
                let is_whole = key.is_some() && cut == Epoch::BYTES;
                assert_eq!(ids_of(&identity[..cut]).is_some(), is_whole, "{cut}");
            }
        }
        assert!(ids_of(b"k3x9q2!").is_none());
    }

    #[test]
    fn a_journal_of_a_newer_release_is_left_as_it_is() {
        let name = format!("pushwheel-newer-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let ids = Ids::new(Epoch::from_random(17), Numbering::new(None));
        let disk = Directory::lock(&directory).unwrap();
        let options = StoreOptions::new(identity_of(&ids));
        let (opening, _) = Opening::examine(disk, options).unwrap();
        let mut store = opening.begin().unwrap();
        let newer = [9; 100];
        store.append(1, 0, &newer).unwrap();
        store.append(1, 0, &newer).unwrap();
        drop(store);
        // The last write did not complete, and neither did a snapshot.
        let log = directory.join("00000000000000000001.log");
        let mut bytes = std::fs::read(&log).unwrap();
        bytes.pop();
        std::fs::write(&log, bytes).unwrap();
        std::fs::write(directory.join(snapshot_name(1) + ".tmp"), "a part").unwrap();
        let files = || {
            let files = std::fs::read_dir(&directory).unwrap();
            let paths = files.map(|file| file.unwrap().path());
            let mut files: Vec<_> = paths
                .map(|path| (std::fs::read(&path).unwrap(), path))
                .collect();
            files.sort();
            files
        };
        let before = files();
        let builder = ChannelManager::builder();
        let error = builder
            .open_journal(&directory, JournalOptions::new())
            .unwrap_err();
        assert!(matches!(error, JournalError::Newer { .. }), "{error}");
        assert!(files() == before, "{error}, and something has changed");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
