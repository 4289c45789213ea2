//! Joining a cluster, and leaving it.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::base::{Base, Making};
use super::calls::{Call, SharedValues};
use super::keeper::Keeper;
use super::pulse::Pulse;
use super::reader::{Begun, PATIENCE_MS, Reader};
use super::session::Session;
use super::shared::{CALL_TIMEOUT, Cluster, Next, Pauses};
use super::values::Values;
use super::writer::Writer;
use crate::cluster::{BrokerError, ClusterOptions, ClusterStatus, SharedLog, Welcome};
use crate::hub::clock::{Clock, as_ms};
use crate::hub::engine_thread::EngineThread;
use crate::hub::journal::{identity_of, ids_of};
use crate::hub::manager::{ChannelManager, ChannelManagerBuilder};
use crate::hub::proposals::Proposals;
use crate::hub::published::ChangeLog;
use crate::hub::state::Totals;
use crate::hub::{Hub, Randomness};

/// The time for which a node without memory leaves an empty broker to those that remember.
const BEGIN_AFTER_MS: u64 = 3_000;

/// The age of the oldest event whose age is known: 30 days.
const AGE_MS: u64 = 30 * 24 * 3_600_000;

/// The most steps of a node that joins without threads.
#[cfg(feature = "internals")]
const STEPS_MAX: usize = 1_000;

/// How long a read waits for blocks.
const READ_WAIT: Duration = Duration::from_secs(1);

impl ChannelManagerBuilder {
    /// Makes the manager with the channels of a cluster, as one of its nodes. All nodes share
    /// a log: an event that one of them publishes is delivered to the clients of all, in the
    /// same order and under the same id, and a client resumes on any node.
    ///
    /// It returns when everything that is in the log was applied. From then on methods that
    /// change channels behave as with a
    /// [journal](crate::ChannelManagerBuilder::open_journal): they wait until the log has
    /// returned the change, except on the engine's own threads. While the broker is lost,
    /// streams and replays go on, and changes fail with
    /// [`PublishError::Unavailable`](crate::PublishError::Unavailable) or
    /// [`PublishError::Unconfirmed`](crate::PublishError::Unconfirmed).
    ///
    /// The options of channels are not in the log, so all nodes need the same
    /// ([`defaults`](Self::defaults), [`options_by_name`](Self::options_by_name)). Counts and
    /// lists of clients are those of this node. [`Sink`](crate::Sink)s are not in the log.
    ///
    /// A broker that loses events says so to the nodes, and clients receive a
    /// `pushwheel.gap` event with the reason `lost` in the channels concerned.
    ///
    /// # Errors
    /// When the broker refuses the node, or cannot be used for
    /// [`join_timeout`](ClusterOptions::join_timeout), and when the log is damaged or of a
    /// newer release.
    ///
    /// # Panics
    /// When the options of a name do.
    pub fn join_cluster(
        self,
        log: impl SharedLog,
        options: ClusterOptions,
    ) -> Result<ChannelManager, BrokerError> {
        let clock = Clock::system().begun_ago(AGE_MS);
        let due_ms = clock.now_ms().saturating_add(as_ms(options.join_timeout));
        let log: Box<dyn SharedLog> = Box::new(log);
        let mut joining = Joining::new(self, log, options, clock, Randomness::System);
        loop {
            let now_ms = joining.clock.now_ms();
            match joining.step(READ_WAIT) {
                Ok(Some(node)) => return node.start(),
                Ok(None) if now_ms < due_ms => {}
                Ok(None) => {
                    let why = "the log could not be read in time".to_owned();
                    return Err(BrokerError::Unreachable { why });
                }
                Err(error @ (BrokerError::Refused { .. } | BrokerError::Damaged { .. })) => {
                    return Err(error);
                }
                Err(error) if now_ms >= due_ms => return Err(error),
                Err(error) => {
                    joining.pauses.failed(now_ms, joining.cluster.random());
                    ::log::debug!("the cluster cannot be joined yet: {error}");
                }
            }
            let until_ms = joining.pauses.wait(now_ms).max(joining.next_at_ms);
            if until_ms.is_some() {
                joining.proposals.wait_for_news(until_ms);
            }
        }
    }

    /// Joins a cluster as a node without threads, whose steps a test takes. It begins the log
    /// if there is none and `may_begin`.
    ///
    /// # Errors
    /// When the node cannot join now.
    #[cfg(feature = "internals")]
    pub fn join_cluster_stepped(
        self,
        seed: (Clock, u64),
        log: Box<dyn SharedLog>,
        options: ClusterOptions,
        may_begin: bool,
    ) -> Result<(ChannelManager, SteppedNode), BrokerError> {
        let joining = self.begin_joining_stepped(seed, log, options);
        let mut joining = match may_begin {
            true => joining.at_once(),
            false => joining,
        };
        // Time stands still meanwhile: what has to wait for it does not come.
        for _ in 0..STEPS_MAX {
            if let Some(node) = joining.step()? {
                return Ok(node);
            }
        }
        let why = "the log cannot be read now".to_owned();
        Err(BrokerError::Unreachable { why })
    }

    /// Begins to join a cluster as such a node.
    #[cfg(feature = "internals")]
    pub fn begin_joining_stepped(
        self,
        (clock, seed): (Clock, u64),
        log: Box<dyn SharedLog>,
        options: ClusterOptions,
    ) -> SteppedJoining {
        let randomness = Randomness::Seeded(std::sync::Mutex::new(seed));
        SteppedJoining(Joining::new(self, log, options, clock, randomness))
    }
}

/// A node that joins, step by step, as a test takes them.
#[cfg(feature = "internals")]
pub struct SteppedJoining(Joining);

#[cfg(feature = "internals")]
impl std::fmt::Debug for SteppedJoining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SteppedJoining").finish_non_exhaustive()
    }
}

#[cfg(feature = "internals")]
impl SteppedJoining {
    /// Has it begin the log at once if there is none.
    #[must_use]
    pub fn at_once(mut self) -> SteppedJoining {
        self.0.begin_after_ms = 0;
        self
    }

    /// Takes a step. Returns the node when it has all of the log.
    ///
    /// # Errors
    /// When the step has failed. The node goes on with the next one.
    pub fn step(&mut self) -> Result<Option<(ChannelManager, SteppedNode)>, BrokerError> {
        let joined = self.0.step(Duration::ZERO)?;
        Ok(joined.map(Joined::stepped))
    }
}

/// A node that joins.
struct Joining {
    builder: ChannelManagerBuilder,
    clock: Clock,
    cluster: Arc<Cluster>,
    proposals: Arc<Proposals<Hub>>,
    randomness: Option<Randomness>,
    /// The identity of the log if this node begins it.
    identity: Vec<u8>,
    /// Since when there is no log.
    empty_since_ms: Option<u64>,
    begin_after_ms: u64,
    /// Since when the log lacks its beginning.
    headless_since_ms: Option<u64>,
    /// When the reader is to take its next step, if not at once.
    next_at_ms: Option<u64>,
    reader: Option<Reader>,
    pauses: Pauses,
}

impl Joining {
    fn new(
        builder: ChannelManagerBuilder,
        log: Box<dyn SharedLog>,
        options: ClusterOptions,
        clock: Clock,
        randomness: Randomness,
    ) -> Joining {
        let identity = identity_of(&builder.new_ids(&randomness));
        let writer = randomness.bits();
        let timeout = options.publish_timeout;
        let cluster = Arc::new(Cluster::new(log, options, writer, clock.now_ms()));
        let proposals = Arc::new(Proposals::new(
            writer,
            clock.clone(),
            timeout,
            ChangeLog::Broker,
        ));
        Joining {
            builder,
            clock,
            cluster,
            proposals,
            randomness: Some(randomness),
            identity,
            empty_since_ms: None,
            begin_after_ms: BEGIN_AFTER_MS,
            headless_since_ms: None,
            next_at_ms: None,
            reader: None,
            pauses: Pauses::default(),
        }
    }

    /// Takes a step. Returns the node when it has all of the log.
    fn step(&mut self, wait: Duration) -> Result<Option<Joined>, BrokerError> {
        let Some(mut reader) = self.reader.take() else {
            self.reader = self.begin(wait)?;
            return Ok(None);
        };
        // Its first session compares the terms.
        self.next_at_ms = match reader.step() {
            Next::At(until_ms) => Some(until_ms),
            Next::Again | Next::Ended => None,
        };
        if let Some(why) = self.cluster.status(self.clock.now_ms()).stopped {
            self.reader = Some(reader);
            return Err(BrokerError::Damaged { what: why });
        }
        if self.cluster.in_sync().is_none() {
            let error = self.cluster.take_error();
            self.reader = Some(reader);
            return error.map_or(Ok(None), Err);
        }
        let hub = reader.hub().clone();
        hub.lock().totals = Totals::default();
        self.cluster.note_joined(self.clock.now_ms());
        Ok(Some(Joined {
            cluster: self.cluster.clone(),
            proposals: self.proposals.clone(),
            reader,
            hub,
        }))
    }

    /// Opens the first session, and reads what the log begins with.
    fn begin(&mut self, wait: Duration) -> Result<Option<Reader>, BrokerError> {
        let now_ms = self.clock.now_ms();
        let log = &self.cluster.log;
        let opened = self
            .cluster
            .hello(|hello| log.open_reader(hello, CALL_TIMEOUT));
        let (mut session, welcome) = match opened {
            Err(BrokerError::Empty) => {
                let since_ms = *self.empty_since_ms.get_or_insert(now_ms);
                if now_ms.saturating_sub(since_ms) < self.begin_after_ms {
                    return Err(BrokerError::Empty);
                }
                // From now on it has something to begin with.
                self.cluster.follow(&self.identity, &[], 0);
                return Ok(None);
            }
            opened => opened?,
        };
        let ids = ids_of(&welcome.identity).ok_or_else(|| BrokerError::Damaged {
            what: "no ids can be made from its identity".to_owned(),
        })?;
        let since_ms = self.headless_since_ms.unwrap_or(now_ms);
        let is_patient = now_ms.saturating_sub(since_ms) < PATIENCE_MS;
        let making = Making {
            settings: self.builder.settings,
            options_by_name: self.builder.options_by_name.clone(),
            clock: self.clock.clone(),
        };
        let base = match Base::read(&mut *session, &welcome, &making)? {
            Some(base) => base,
            None if is_patient => {
                self.headless_since_ms = Some(since_ms);
                return Err(no_base(&welcome));
            }
            None => Base::without_past(&welcome, &making),
        };
        let randomness = self.randomness.take();
        let begun = Begun {
            cluster: self.cluster.clone(),
            making,
            welcome,
            base,
        };
        let randomness = randomness.expect("a node begins once");
        let reader = Reader::begin(begun, ids, (randomness, &self.proposals), wait);
        Ok(Some(reader))
    }
}

fn no_base(welcome: &Welcome) -> BrokerError {
    let oldest = welcome.oldest;
    BrokerError::Unreachable {
        why: format!(
            "its log begins with {oldest:?}, and no node has made a snapshot of what was before"
        ),
    }
}

/// A node that has joined.
struct Joined {
    cluster: Arc<Cluster>,
    proposals: Arc<Proposals<Hub>>,
    reader: Reader,
    hub: Arc<Hub>,
}

/// A node whose steps are taken by a test.
#[cfg(feature = "internals")]
pub struct SteppedNode {
    writer: Writer,
    reader: Reader,
    keeper: Keeper,
    pulse: Pulse,
}

#[cfg(feature = "internals")]
impl std::fmt::Debug for SteppedNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SteppedNode").finish_non_exhaustive()
    }
}

#[cfg(feature = "internals")]
impl SteppedNode {
    /// Opens the session that appends, or appends a block.
    pub fn step_writer(&mut self) -> Next {
        self.writer.step()
    }

    /// Opens the session that reads, or reads and applies blocks.
    pub fn step_reader(&mut self) -> Next {
        self.reader.step()
    }

    /// Makes a snapshot or trims the log, if the node has the lease.
    pub fn step_keeper(&mut self) -> Next {
        self.keeper.step()
    }

    /// Says in the log that the node is there, and ends what has waited for too long.
    pub fn step_pulse(&mut self) -> Next {
        self.pulse.step()
    }
}

/// What the threads of a node do.
struct Parts {
    writer: Writer,
    keeper: Keeper,
    pulse: Pulse,
    calls: Receiver<Call>,
}

impl Joined {
    fn parts(&self) -> Parts {
        let (cluster, proposals, hub) = (&self.cluster, &self.proposals, &self.hub);
        let (values, calls) = SharedValues::new();
        cluster.set_values(values);
        let is_first = hub.cluster.set(cluster.clone()).is_ok();
        debug_assert!(is_first, "a hub is a node of one cluster");
        hub.lock().is_node = true;
        let shared = || (cluster.clone(), proposals.clone(), hub.clone());
        let ((a, b, c), (d, e, f)) = (shared(), shared());
        Parts {
            writer: Writer::new(cluster.clone(), proposals.clone()),
            keeper: Keeper::new(a, b, c),
            pulse: Pulse::new(d, e, f),
            calls,
        }
    }

    fn manager(&self) -> ChannelManager {
        ChannelManager {
            _handles: Some(self.proposals.first_handle()),
            hub: self.hub.clone(),
        }
    }

    #[cfg(feature = "internals")]
    fn stepped(self) -> (ChannelManager, SteppedNode) {
        let Parts {
            writer,
            keeper,
            pulse,
            ..
        } = self.parts();
        let manager = self.manager();
        let node = SteppedNode {
            writer,
            reader: self.reader,
            keeper,
            pulse,
        };
        (manager, node)
    }

    /// Starts the threads. They end when the last handle of the manager does.
    fn start(self) -> Result<ChannelManager, BrokerError> {
        let Parts {
            mut writer,
            mut keeper,
            mut pulse,
            calls,
        } = self.parts();
        let manager = self.manager();
        let Joined {
            cluster,
            proposals,
            mut reader,
            ..
        } = self;
        let no_thread = |error: io::Error| BrokerError::Refused {
            why: format!("the system has no thread ({error})"),
        };
        // From here on closing waits for the thread that appends.
        let (begun, has_begun) = crossbeam_channel::bounded(1);
        let queue = proposals.clone();
        let write = move || {
            let _here = EngineThread::enter();
            let _end = queue.enter(0);
            let _ = begun.send(());
            run(&queue, || writer.step());
        };
        spawn("pushwheel-cluster-write", write).map_err(no_thread)?;
        let _ = has_begun.recv();
        let queue = proposals.clone();
        let read = move || {
            let _here = EngineThread::enter();
            pace(&queue, || reader.step());
        };
        spawn("pushwheel-cluster-read", read).map_err(no_thread)?;
        let queue = proposals.clone();
        spawn("pushwheel-cluster-keep", move || {
            pace(&queue, || keeper.step())
        })
        .map_err(no_thread)?;
        let queue = proposals.clone();
        let watch = move || {
            let _here = EngineThread::enter();
            pace(&queue, || pulse.step());
        };
        spawn("pushwheel-cluster-time", watch).map_err(no_thread)?;
        let values = Values {
            cluster,
            proposals,
            calls,
            session: Session::default(),
        };
        spawn("pushwheel-cluster-values", move || values.run()).map_err(no_thread)?;
        Ok(manager)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(run).map(drop)
}

/// Takes steps until the end, and waits for news between them.
fn run(proposals: &Proposals<Hub>, mut step: impl FnMut() -> Next) {
    loop {
        match step() {
            Next::Again => {}
            Next::At(until_ms) => proposals.wait_for_news(Some(until_ms)),
            Next::Ended => return,
        }
    }
}

/// Takes steps until the end, and waits for their times.
fn pace(proposals: &Proposals<Hub>, mut step: impl FnMut() -> Next) {
    loop {
        match step() {
            Next::Again => {}
            Next::At(until_ms) => proposals.wait_until(until_ms),
            Next::Ended => return,
        }
    }
}

impl ChannelManager {
    /// Leaves the cluster: waits until what is queued is published, at most for the
    /// [`publish_timeout`](ClusterOptions::publish_timeout). Later changes fail with
    /// [`PublishError::Unavailable`](crate::PublishError::Unavailable); streams go on, and
    /// receive nothing new.
    ///
    /// Dropping the last handle of the manager and its channels does the same. Do not call it
    /// in a callback: it waits for the broker.
    pub fn leave_cluster(&self) {
        if self.hub.cluster.get().is_some()
            && let Some(proposals) = &self.hub.proposals
        {
            // The end of a node's log has no error of its own.
            let _ = proposals.close();
        }
    }

    /// Returns the state of this node and its cluster, if it is a node of one.
    #[must_use]
    pub fn cluster_status(&self) -> Option<ClusterStatus> {
        let cluster = self.hub.cluster.get()?;
        let proposals = self.hub.proposals.as_ref()?;
        let queue = proposals.status();
        Some(ClusterStatus {
            queued: queue.queued,
            queued_bytes: queue.queued_bytes,
            refused: queue.refused,
            appends: queue.appends,
            ..cluster.status(self.hub.clock.now_ms())
        })
    }

    /// Returns values that all nodes of the cluster have, such as tickets for single use, if
    /// this is a node of one.
    #[must_use]
    pub fn shared_values(&self) -> Option<SharedValues> {
        self.hub.cluster.get()?.values()
    }

    /// Sets whether this node is about to end its streams. The other nodes see it within a
    /// second ([`NodeStatus::is_draining`](crate::cluster::NodeStatus::is_draining)).
    pub fn set_draining(&self, is_draining: bool) {
        if let Some(cluster) = self.hub.cluster.get() {
            cluster.set_draining(is_draining);
        }
    }
}
