//! What must have happened: a slow and simple model of what the engine promises. It
//! shares no code with the engine.
//!
//! It knows every event that was published, its audience and its place in the order, and
//! when and from which position each client subscribed, and compares what each client
//! reads with that. Mistakes go to [`Oracle::failures`], because some are found in
//! callbacks, where the engine would catch a panic.
//!
//! | file | has |
//! | --- | --- |
//! | `publishing` | what was published, and what the engine said to it |
//! | `proposing` | what was proposed to a log, and what the log says of it |
//! | `keys` | requests that are repeated with their keys |
//! | `pages` | pages that are read instead of a stream |
//! | `recovering` | what is left when a process has ended |
//! | `subscribing` | clients that subscribe and leave, and the events they are owed |
//! | `reading` | what clients read, against that |
//! | `ending` | how streams end by time |
//! | `checks` | what must hold at any time, and in the end |

mod checks;
mod ending;
mod keys;
mod pages;
mod proposing;
mod publishing;
mod reading;
mod recovering;
mod subscribing;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use pushwheel::{
    Channel, ChannelManager, ChannelOptions, DisconnectReason, Event, History, KeyedState,
    LagPolicy, Responder, Response, Sink,
};

use crate::endings::Endings;

pub use keys::Keys;
pub use proposing::Proposed;
pub use recovering::Recovered;

/// What an entry may cost beyond its data and those it names.
const OVERHEAD_BYTES_MAX: usize = 350;
/// How long an unused channel stays. After a jump of the clock, the next channel of the
/// name may have had its time as well
/// (`ChannelManagerBuilder::empty_after`).
const EMPTY_AFTER_MS: u64 = 60_000;
/// For how long a finished channel has its name.
pub const FINISHED_MS: u64 = 3_000;
/// For how long an own id is known.
const REMEMBERED_MS: u64 = 24 * 3_600_000;
/// The event with which a stream ends whose credentials have run out.
pub const REAUTH: &str = "pushwheel.reauth";
/// The event that reports that others are missed.
pub const GAP: &str = "pushwheel.gap";
/// How late things may be beyond what was promised: latency, late readiness,
/// the turns of small budgets.
pub const SLACK_MS: u64 = 500;
/// The same of heartbeats, which no budget holds up for long.
pub const BEAT_SLACK_MS: u64 = 150;
/// The engine's timers go by ticks of this.
pub const TICK_MS: u64 = 64;

/// The options of a topic, as drawn.
#[derive(Clone, Debug)]
pub struct Plan {
    pub history: History,
    pub heartbeat_ms: u64,
    pub backlog_bytes_max: usize,
    pub clients_max: usize,
    pub policy: LagPolicy,
    pub keyed: KeyedState,
    pub pace_ms: u64,
    /// For how long it has its name when it is finished.
    pub finished_ms: u64,
}

/// How channels finish in a run in which many do.
#[derive(Clone, Debug)]
pub struct Finishes {
    pub rng: Rng,
    /// A chance in a thousand, each time that a publisher acts.
    pub often: u32,
    pub last_bytes_max: usize,
    pub send_bytes_max: usize,
    pub finished_ms: u64,
}

impl Finishes {
    /// Whether a publisher finishes its channel now.
    pub fn happens(&mut self) -> bool {
        self.rng.u32(0..1000) < self.often
    }
}

impl Plan {
    pub fn options(&self) -> ChannelOptions {
        ChannelOptions::new()
            .history(self.history)
            .heartbeat(std::time::Duration::from_millis(self.heartbeat_ms))
            .backlog_bytes_max(self.backlog_bytes_max)
            .max_clients(self.clients_max)
            .lag_policy(self.policy)
            .keyed_state(self.keyed)
            .pace(std::time::Duration::from_millis(self.pace_ms))
            .finished_for(std::time::Duration::from_millis(self.finished_ms))
    }

    fn conflates(&self) -> bool {
        self.policy == LagPolicy::Conflate
    }

    /// What is kept: a conflating channel without a history has one anyway.
    fn kept(&self) -> History {
        if self.conflates() && self.history.is_none() {
            return History::events(1_000).age_max(std::time::Duration::MAX);
        }
        self.history
    }
}

/// One life of a channel.
pub struct Topic {
    pub name: String,
    pub plan: Plan,
    pub channel: Channel,
    /// What is before may be lost to it: a channel that comes back begins after its own
    /// past.
    since: u64,
    /// Events for all channels up to here may be lost to it, and clients learn of that: they
    /// were published before the first record of the channel, from which a process makes it
    /// again.
    unsure_through: u64,
    /// It has begun again behind this number: it had no event of its own when a process ended,
    /// so the journal does not know it.
    begun_again_at: u64,
    /// The removal behind which it may have begun: a record from before the removal made it.
    /// So it may have had events for all channels from there on, and clients learn of that.
    removed_at: Option<u64>,
    pub finished_at: Option<u64>,
    /// The numbers of the records that have finished and closed it, and from when on it may
    /// be over, where a log says these.
    finish: Option<u64>,
    closed: Option<u64>,
    over_from_ms: Option<u64>,
    /// A log has lost the record that made it.
    is_void: bool,
    /// When it was found to have lost its name, as a finished channel does when
    /// its time is over.
    pub over_at: Option<u64>,
    /// When a manager has closed it.
    closed_at: Option<u64>,
    /// When it last had as many clients as it may have, and then one less.
    full_at: Option<u64>,
    entries: Vec<usize>,
    /// The subscribers: the stream of each client id.
    pub members: BTreeMap<String, usize>,
}

/// The clients that receive an event.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Audience {
    All,
    Ids(BTreeSet<String>),
    Role(u8),
    NotRole(u8),
    AllBut(String),
}

/// An event that was published.
#[derive(Debug)]
struct Publication {
    topic: usize,
    draft: publishing::Draft,
    /// What its publisher asked for.
    to: To,
    /// Whether it may have been meant for a client that was away, or that comes
    /// back under another id.
    is_uncertain: bool,
    /// Whether it was published to all channels.
    is_for_all: bool,
    sequence: u64,
    at_ms: u64,
    id: String,
    name: String,
    data: String,
    audience: Audience,
    key: Option<String>,
    /// Whether it removes its key.
    removes: bool,
    bytes_max: usize,
}

impl Publication {
    /// How its clients were chosen: whether they are uncertain, and by a filter.
    fn choice(&self) -> (bool, bool) {
        (self.is_uncertain, matches!(self.to, To::Filter(_)))
    }
}

/// From where on each part of a topic is kept, whatever happens.
#[derive(Clone, Copy, Debug)]
pub struct Sure {
    history: u64,
    keyed: u64,
}

/// What a stream has a claim to since it began, or since its last gap.
#[derive(Clone, Debug)]
struct Claim {
    /// The sequence at that moment.
    sequence: u64,
    /// Up to here only keyed events were to come.
    state_through: u64,
    /// For each topic.
    sure_from: Vec<Sure>,
}

/// To which clients to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    All,
    One(String),
    AllBut(String),
    Role(u8),
    NotRole(u8),
    /// By a filter that looks at the role.
    Filter(u8),
}

/// Where a client asks its stream to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    Live,
    Earliest,
    Last(usize),
    After(String),
}

/// One subscription, from its request to its end.
pub struct Stream {
    pub want: Want,
    pub id: String,
    role: Option<u8>,
    pub topics: Vec<usize>,
    joined: Option<Joined>,
    claim: Option<Claim>,
    /// What a page makes of it: the newest event of each key that it was sent,
    /// by topic, key and audience.
    table: BTreeMap<(usize, String, String), u64>,
    /// It has read an event that was published.
    has_got_one: bool,
    /// It is said to begin after this key's event, of which a gap has to tell.
    lost_state: Option<String>,
    pub gone: Option<(DisconnectReason, u64)>,
    asked_at: u64,
    /// The shutdown during which it ended.
    shutdown: Option<(u64, u64)>,
    /// Everything for it up to here has come, or was reported lost.
    position: Option<u64>,
    /// It asked for everything, and begins after this.
    begins_after: Option<u64>,
    /// It has read something that says where it is.
    has_begun: bool,
    is_gap_reported: bool,
    /// The position behind which it has received at its beginning that events are lost.
    lost_after: Option<u64>,
    /// It is to receive this placed gap before later events.
    awaits_lost: Option<u64>,
    /// The client accepts blocks that hold only an id.
    pub accepts_ids: bool,
    /// Whether the client asks for its position in heartbeats.
    pub asks_for_positions: bool,
    /// Whether the client asks for a page, and not for a stream.
    pub asks_for_page: bool,
    /// The last event that it has read is from before it joined, with a doubtful
    /// own id, so that an id has to follow.
    ends_doubtfully: bool,
    /// It has received that it is slow: what it is sent again is not a replay.
    has_lagged: bool,
    welcomes_sent: usize,
    welcomes_got: usize,
    /// The client did something that may end the connection at any time.
    pub is_cut: bool,
    /// When the client, or the system for it, ends the connection.
    pub is_over_at: Option<u64>,
    /// Bytes that the client has sent without a reason.
    pub junk_bytes: usize,
    is_replaced: bool,
    is_kicked: bool,
    /// When the client last took something, as the network saw it.
    taken_at: u64,
    /// How long it took nothing, at the most.
    pause_ms_max: u64,
    /// The engine may be waiting until it can write.
    pub is_blocked: bool,
    pub sink: Option<SinkRecord>,
    /// After how long its credentials run out.
    pub expires_ms: Option<u64>,
    /// It has received that they have.
    is_reauth_reported: bool,
}

impl Stream {
    /// Whether the engine has opened it, though the client may not know yet.
    pub fn is_opened(&self) -> bool {
        self.has_joined() || self.sink.as_ref().is_some_and(|sink| sink.is_opened)
    }

    /// Whether the client has become a member of its channels.
    pub fn has_joined(&self) -> bool {
        self.joined.is_some()
    }
}

struct Joined {
    sequence: u64,
    at_ms: u64,
}

/// What was sent through a sink.
#[derive(Default)]
pub struct SinkRecord {
    pub heartbeat_ms: u64,
    pub handle: Option<Sink>,
    pub is_opened: bool,
    sent: Vec<String>,
    got: usize,
    is_over: bool,
    /// Its state at the end of its engine, which another one has followed.
    last: Option<LastOfSink>,
}

/// What was known of a sink when its engine had ended.
struct LastOfSink {
    /// Whether it had ended, and why; `None` if its holder has closed it.
    ended: Option<Option<DisconnectReason>>,
    /// Whether the deadline of the shutdown had passed.
    is_late: bool,
}

/// See the [module](self).
pub struct Oracle {
    clock: Arc<AtomicU64>,
    manager: ChannelManager,
    pub rng: Rng,
    epoch: String,
    pub sequence: u64,
    /// Events that sinks accepted: these take no number of the sequence.
    sent_to_sinks: u64,
    /// The sequence and the number of each event. One for all channels has an entry for
    /// each of them, with the same sequence.
    by_sequence: BTreeSet<(u64, usize)>,
    /// All events of an id: publishers may give one again.
    by_id: BTreeMap<String, Vec<usize>>,
    published: Vec<Publication>,
    pub plans: BTreeMap<String, Plan>,
    pub topics: Vec<Topic>,
    /// What was published to all channels.
    everywhere: Vec<publishing::Everywhere>,
    /// What of that is kept for channels that are made later.
    pub kept_for_all: History,
    /// Whether what is published to all channels may have an own id.
    pub has_own_ids_for_all: bool,
    current: BTreeMap<String, usize>,
    pub streams: Vec<Stream>,
    /// Streams that were sent away, some of which may be there still.
    sent_away: Vec<usize>,
    /// Requests whose answer comes later, with that answer.
    pub responders: Vec<(Responder, Response)>,
    /// The sequence at a shutdown of the engine, and its deadline.
    pub shutdown: Option<(u64, u64)>,
    /// When the engine began that runs.
    pub began_at: u64,
    pub endings: Endings,
    /// The poller has failed, and the engine ends.
    pub has_failed: bool,
    pub stall_ms: u64,
    /// Whether there are few places, and some are sent away for that.
    pub is_limited: bool,
    /// Since when the clock has gone evenly.
    pub jumped_at: u64,
    /// Whether clients come with ids of the engine's spelling that are none.
    pub forges: bool,
    /// Where publishers give ids again.
    pub repeats: Option<Rng>,
    /// Where publishers repeat events exactly, and exclude clients.
    pub repetitions: Option<Rng>,
    /// Where publishers remove keys.
    pub removals: Option<Rng>,
    /// Until when an own id may be one from before a restart.
    pub in_doubt_until_ms: u64,
    /// Where channels finish often.
    pub finishes: Option<Finishes>,
    /// Publishers that repeat requests with their keys.
    pub keys: Option<Keys>,
    /// What is proposed to the log, if there is one.
    pub proposed: Option<Proposed>,
    /// The newest number when what was written was last synced.
    pub synced: u64,
    /// The numbers with which terms of the log have begun.
    terms: Vec<u64>,
    /// Whether the log may lack room.
    pub may_lack_room: bool,
    /// The process has ended, and what it still calls reaches nothing.
    pub has_ended: bool,
    pub failures: Vec<String>,
    pub figures: BTreeMap<&'static str, u64>,
}

impl Topic {
    pub fn is_finished(&self) -> bool {
        self.finished_at.is_some()
    }

    /// Whether a client can join it.
    pub fn is_there(&self) -> bool {
        !self.is_closed() && self.over_at.is_none()
    }

    fn is_closed(&self) -> bool {
        self.closed_at.is_some()
    }

    /// Whether it may have had events for all channels that are gone, as far as the log knows.
    fn may_lack_any(&self) -> bool {
        self.removed_at.is_some_and(|removal| self.since > removal)
    }

    fn is_full(&self) -> bool {
        self.members.len() >= self.plan.clients_max
    }

    /// A client is no longer a member.
    fn remove_member(&mut self, id: &str, now: u64) -> Option<usize> {
        if self.is_full() {
            self.full_at = Some(now);
        }
        self.members.remove(id)
    }
}

impl Oracle {
    pub fn new(
        clock: Arc<AtomicU64>,
        manager: ChannelManager,
        rng: Rng,
        endings: Endings,
    ) -> Oracle {
        // The first event of all says what ids look like.
        let first = manager.get_or_create("first").expect("a good name");
        let has_log = manager.journal_status().is_some();
        let id = match has_log {
            true => first.position(),
            false => {
                let published = first.broadcast(Event::message("first"));
                let id = published.expect("a good event").id;
                first.close();
                id.expect("it waits for no journal")
            }
        };
        let (id, sequence) = (id.to_string(), u64::from(!has_log));
        let epoch = id
            .strip_suffix(&format!("-{sequence}"))
            .expect("the first sequence number is 1");
        Oracle {
            clock,
            manager,
            rng,
            epoch: epoch.to_owned(),
            sequence,
            sent_to_sinks: 0,
            by_sequence: BTreeSet::new(),
            by_id: BTreeMap::new(),
            published: Vec::new(),
            plans: BTreeMap::new(),
            topics: Vec::new(),
            everywhere: Vec::new(),
            kept_for_all: History::NONE,
            has_own_ids_for_all: false,
            current: BTreeMap::new(),
            streams: Vec::new(),
            sent_away: Vec::new(),
            responders: Vec::new(),
            shutdown: None,
            began_at: 0,
            endings,
            has_failed: false,
            stall_ms: 0,
            is_limited: false,
            jumped_at: 0,
            forges: false,
            repeats: None,
            repetitions: None,
            removals: None,
            in_doubt_until_ms: 0,
            finishes: None,
            keys: None,
            proposed: None,
            synced: 0,
            terms: Vec::new(),
            may_lack_room: false,
            has_ended: false,
            failures: Vec::new(),
            figures: BTreeMap::new(),
        }
    }

    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn fail(&mut self, what: impl Into<String>) {
        let what = format!("at {} ms: {}", self.now(), what.into());
        self.failures.push(what);
    }

    pub fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
    }

    fn id_of(&self, sequence: u64) -> String {
        format!("{}-{sequence}", self.epoch)
    }

    /// The sequence number that an id of the engine's names.
    fn parse(&self, id: &str) -> Option<u64> {
        let digits = id.strip_prefix(&self.epoch)?.strip_prefix('-')?;
        let sequence: u64 = digits.parse().ok()?;
        (sequence.to_string() == digits).then_some(sequence)
    }

    // Channels.

    /// Returns the channel of this name, and creates it if there is none.
    pub fn open(&mut self, name: &str) -> usize {
        self.note_the_over();
        if let Some(&topic) = self.current.get(name)
            && self.topics[topic].is_there()
        {
            return topic;
        }
        let plan = self.plans[name].clone();
        // A channel that comes back begins after its own past.
        let former = self.topics.iter().filter(|topic| topic.name == name);
        let past = former.map(|topic| {
            let newest = topic.entries.last().map(|entry| &self.published[*entry]);
            topic.since.max(newest.map_or(0, |newest| newest.sequence))
        });
        let past = past.max().unwrap_or(0);
        // It has what was published to all channels since then, as far as that is kept.
        let kept_from = self
            .everywhere
            .len()
            .saturating_sub(self.kept_for_all.events_max);
        let (gone, kept) = self.everywhere.split_at(kept_from);
        let since = past.max(gone.last().map_or(0, |event| event.sequence));
        let kept = kept.iter().filter(|event| event.sequence > past);
        let kept: Vec<_> = kept.cloned().collect();
        let former = self.topics.iter().rev().find(|topic| topic.name == name);
        let channel = match former {
            // It may be gone already: what follows in the log was applied.
            Some(former) if self.is_applying() => former.channel.clone(),
            _ => {
                let channel = self.manager.get_or_create_with(name, || plan.options());
                channel.expect("the name is good")
            }
        };
        self.topics.push(Topic {
            name: name.to_owned(),
            plan,
            channel,
            since,
            unsure_through: 0,
            begun_again_at: 0,
            removed_at: None,
            finished_at: None,
            finish: None,
            closed: None,
            over_from_ms: None,
            is_void: false,
            over_at: None,
            closed_at: None,
            full_at: None,
            entries: Vec::new(),
            members: BTreeMap::new(),
        });
        let topic = self.topics.len() - 1;
        self.current.insert(name.to_owned(), topic);
        for event in kept {
            self.enter_in(topic, &event);
        }
        topic
    }

    /// The events after a sequence and up to another one, in their order.
    fn between(&self, after: u64, through: u64) -> impl DoubleEndedIterator<Item = &Publication> {
        let through = Bound::Included((through.max(after), usize::MAX));
        let after = Bound::Excluded((after, usize::MAX));
        let range = self.by_sequence.range((after, through));
        range.map(|(_, number)| &self.published[*number])
    }

    /// Only a finished channel goes without a call, when its time is over: it
    /// loses its name, which a new channel has if it has clients still. These
    /// stay, and are owed all of it ([`ChannelOptions::finished_for`]).
    fn note_the_over(&mut self) {
        if self.is_applying() || self.has_ended {
            return;
        }
        let is_over = |topic: &usize| {
            let topic = &self.topics[*topic];
            topic.channel.is_closed() && topic.is_there()
        };
        let over: Vec<usize> = self.current.values().copied().filter(is_over).collect();
        for topic in over {
            let now = self.now();
            let state = &mut self.topics[topic];
            state.over_at = Some(now);
            let name = state.name.clone();
            let finished_ms = state.plan.finished_ms;
            let due_ms = state.finished_at.map_or(u64::MAX, |at| at + finished_ms);
            let due_ms = state.over_from_ms.unwrap_or(due_ms);
            let has_members = !state.members.is_empty();
            if now < due_ms {
                self.fail(format!("the channel {name} is gone without a cause"));
            }
            self.count("finished channels whose time was over");
            if self.manager.has(&name) {
                self.count("finished channels whose name went on");
                self.open(&name);
            } else if has_members && now < due_ms.saturating_add(EMPTY_AFTER_MS) {
                self.fail(format!(
                    "the clients of {name} have no channel to come back to"
                ));
            }
        }
    }
}
