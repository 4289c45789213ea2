//! [`Reader`]: reads the log and applies it to the hub.
//!
//! It compares the terms that each session reports with those that it follows. A hub that has
//! what the log has lost, or lacks what the log no longer keeps, is rebuilt beside itself,
//! from a [base](super::base) and the log behind it.

use std::sync::Arc;
use std::time::Duration;

use super::base::{Base, Making};
use super::keeper::LEASE_MS;
use super::nodes::Nodes;
use super::session::Session;
use super::shared::{CALL_TIMEOUT, Cluster, Lost, Next};
use super::unconfirmed::Outcomes;
use super::writer::is_in_snapshot;
use crate::cluster::branches::{begins_after, divergence, predecessor};
use crate::cluster::{BlockRead, BrokerError, Hello, LogReader, Term, Welcome, WriterEnd};
use crate::hub::applying::BlockTime;
use crate::hub::ids::Ids;
use crate::hub::journaling::report;
use crate::hub::proposals::{Proposals, Waiting};
use crate::hub::{Hub, Randomness};
use crate::journal::block::Block;
use crate::journal::follower::{Arrived, Follower};
use crate::journal::record::{Change, Record};
use crate::journal::terms::Jump;

/// The bytes of blocks that are read at once.
const READ_BYTES: usize = 4 << 20;

/// The time for which a node waits for the snapshot of another one before it goes on without
/// the past, in milliseconds: longer than a lease that another node has and does not use.
pub(super) const PATIENCE_MS: u64 = LEASE_MS + 5_000;

/// The pause between two attempts to find a base, in milliseconds.
const BASE_PAUSE_MS: u64 = 500;

/// The pause between two looks whether the log has said what is lost, in milliseconds.
const LOSS_PAUSE_MS: u64 = 20;

/// Where a hub is in the log.
#[derive(Debug)]
struct Place {
    follower: Follower,
    /// The terms of the log that it follows.
    terms: Vec<Term>,
    /// What the clock of the broker showed when that of the hub stood at zero, in
    /// milliseconds since 1970.
    zero_ms: u64,
    /// The writers of what a hub has that is built beside. Those of the node's hub are in
    /// [`Cluster`].
    nodes: Option<Nodes>,
}

/// What a block was.
enum Found {
    /// It is in the hub.
    Applied,
    /// Blocks before it are missing.
    Hole,
    /// It cannot be applied.
    Unreadable(String),
}

impl Place {
    fn new(follower: Follower, welcome: &Welcome, now_ms: u64) -> Place {
        Place {
            follower,
            terms: welcome.terms.clone(),
            zero_ms: welcome.wall_ms.saturating_sub(now_ms),
            nodes: None,
        }
    }

    fn applied(&self) -> u64 {
        self.follower.applied()
    }

    /// Applies a block to a hub. A block of this node has its outcomes from here.
    fn apply(
        &mut self,
        hub: &Hub,
        read: &BlockRead,
        cluster: &Cluster,
        proposals: &Proposals<Hub>,
    ) -> Found {
        let block = match Block::decode(&read.bytes, hub.ids.prefix()) {
            Ok(block) => block,
            Err(error) => return Found::Unreadable(error.to_string()),
        };
        let (writer, n) = (block.writer, block.n);
        let probe = block
            .records
            .iter()
            .rev()
            .find_map(|record| match &record.change {
                Change::Probe(probe) => Some((**probe).clone()),
                _ => None,
            });
        let before = self.applied();
        let after = predecessor(&self.terms, read.first);
        let arrived = self.follower.arrived_after(after, read.first, block);
        let (first, records) = match arrived {
            Ok(Arrived::Apply { first, records }) => (first, records),
            Ok(Arrived::Seen) => return Found::Applied,
            Ok(Arrived::Hole) => return Found::Hole,
            Err(error) => return Found::Unreadable(error.to_string()),
        };
        if Place::note_jump(hub, before, first) {
            cluster.expect_losses(first, hub.clock.now_ms());
        }
        let says_losses = records
            .iter()
            .any(|record| matches!(record.change, Change::LostIn { .. }));
        let at_ms = read.wall_ms.saturating_sub(self.zero_ms);
        let time = BlockTime {
            wall_ms: read.wall_ms,
            at_ms: at_ms.min(hub.clock.now_ms()),
        };
        let is_own = writer == cluster.writer;
        let outcomes = match is_own {
            true => proposals.came_back(n),
            false => Vec::new(),
        };
        let is_held = is_own && cluster.log.confirms_later();
        let mut held = Outcomes::new();
        hub.apply(
            first,
            time,
            with_outcomes(records, outcomes),
            |(waiting, is_of_publisher), outcome| match waiting {
                Some(waiting) if is_held && is_of_publisher => {
                    held.push(Box::new(move || report(waiting, outcome)));
                }
                Some(waiting) => report(waiting, outcome),
                None => {}
            },
        );
        if says_losses {
            hub.release_said();
        }
        cluster.hold(n, hub.clock.now_ms(), held);
        let (first, bytes) = (read.first, read.bytes.len() as u64);
        let end = WriterEnd { writer, n, first };
        cluster.count_block(bytes);
        match &mut self.nodes {
            Some(nodes) => nodes.note(end, read.wall_ms, probe),
            None => cluster.note_block(self.applied(), (end, read.wall_ms), bytes, probe),
        }
        Found::Applied
    }

    /// Has the hub know that numbers are left out between two that are applied, or before the
    /// first one: a log that was lost may have given them. Terms without a block make one
    /// range. Returns whether there are any.
    fn note_jump(hub: &Hub, before: u64, first: u64) -> bool {
        let is_left_out = first > before + 1;
        if is_left_out {
            let jump = Jump {
                after: before,
                first,
            };
            hub.lock().terms.note(jump);
        }
        is_left_out
    }
}

/// Returns each record with what waits for its outcome, and whether that is a publisher. The
/// first ones may have been applied already.
fn with_outcomes(
    records: Vec<Record>,
    outcomes: Vec<(Record, Option<Waiting>)>,
) -> impl Iterator<Item = (Record, (Option<Waiting>, bool))> {
    let mut outcomes = outcomes.into_iter().map(|(_, waiting)| waiting);
    let seen = outcomes.len().saturating_sub(records.len());
    // Dropping one says that its outcome is not known.
    outcomes.by_ref().take(seen).for_each(drop);
    records.into_iter().map(move |record| {
        let is_of_node = record.change.is_of_node();
        (record, (outcomes.next().flatten(), !is_of_node))
    })
}

/// Expects what the newest term of a base has lost: the base may be new.
fn expect_losses(cluster: &Cluster, hub: &Hub, now_ms: u64) {
    let newest = hub.lock().terms.jumps().next_back().copied();
    if let Some(newest) = newest {
        cluster.expect_losses(newest.first, now_ms);
    }
}

/// The rebuilding of a hub.
#[derive(Debug)]
struct Building {
    since_ms: u64,
    /// The newest number of the hub that the log has, if the log has lost later ones.
    kept: Option<u64>,
    /// The terms of which this node has told what they have lost. Those that come later may
    /// have lost that, too.
    told: Vec<Term>,
    /// What is built, when there is a base.
    beside: Option<(Arc<Hub>, Place)>,
}

/// See the [module](self).
pub(super) struct Reader {
    cluster: Arc<Cluster>,
    proposals: Arc<Proposals<Hub>>,
    making: Making,
    hub: Arc<Hub>,
    place: Place,
    session: Session<Box<dyn LogReader>>,
    /// Whether the terms were asked for since a block was missing.
    has_asked: bool,
    /// The number that the log gave next when the session asked: with all before, this node
    /// has what was there. Under load a read is never empty.
    in_sync_from: u64,
    building: Option<Building>,
    blocks: Vec<BlockRead>,
    /// How long a read waits for blocks.
    wait: Duration,
}

/// What a node begins with.
pub(super) struct Begun {
    pub(super) cluster: Arc<Cluster>,
    pub(super) making: Making,
    pub(super) welcome: Welcome,
    pub(super) base: Base,
}

impl Reader {
    /// Makes the hub of a node on the base of the log.
    pub(super) fn begin(
        begun: Begun,
        ids: Ids,
        (randomness, proposals): (Randomness, &Arc<Proposals<Hub>>),
        wait: Duration,
    ) -> Reader {
        let Begun {
            cluster,
            making,
            welcome,
            base,
        } = begun;
        let now_ms = making.clock.now_ms();
        let place = Place::new(base.follower(), &welcome, now_ms);
        let hub = Hub::with_ids(
            ids,
            // Its log knows the ids from before.
            0,
            making.clock.clone(),
            randomness,
            base.state,
            making.options_by_name.clone(),
            Some(proposals.clone()),
        );
        expect_losses(&cluster, &hub, now_ms);
        cluster.reset_writers(base.ends);
        cluster.follow(&welcome.identity, &welcome.terms, base.at);
        Reader {
            cluster,
            proposals: proposals.clone(),
            making,
            hub,
            place,
            session: Session::default(),
            has_asked: false,
            in_sync_from: u64::MAX,
            building: None,
            blocks: Vec::new(),
            wait,
        }
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Reads and applies some blocks, or does what is necessary before.
    pub(super) fn step(&mut self) -> Next {
        let now_ms = self.making.clock.now_ms();
        if self.proposals.is_closed() {
            self.cluster.release_all();
            return Next::Ended;
        }
        if self.cluster.is_stopped() {
            return Next::At(now_ms + 1_000);
        }
        if self.session.get(&self.cluster).is_none() {
            if let Some(until_ms) = self.session.wait(now_ms) {
                return Next::At(until_ms);
            }
            self.open(now_ms);
            return Next::Again;
        }
        let done = match &self.building {
            Some(_) => self.build(now_ms),
            None => self.read(),
        };
        match done {
            Ok(next) => next,
            Err(error) => {
                self.failed(error);
                Next::Again
            }
        }
    }

    fn failed(&mut self, error: BrokerError) {
        if let BrokerError::Damaged { .. } = error {
            self.cluster.stop(error.to_string());
        }
        let now_ms = self.making.clock.now_ms();
        self.session.failed(&self.cluster, now_ms, error);
    }

    fn open(&mut self, now_ms: u64) {
        let open = |hello: &Hello<'_>| self.cluster.log.open_reader(hello, CALL_TIMEOUT);
        if let Some(welcome) = self.session.open(&self.cluster, now_ms, open) {
            self.has_asked = true;
            self.welcomed(&welcome);
        }
    }

    /// Compares what a session says of the log with what the hub follows.
    fn welcomed(&mut self, welcome: &Welcome) {
        if !self.cluster.is_of_log(&welcome.identity) {
            let why = "the broker has another log, which began without this node";
            return self.cluster.stop(why.to_owned());
        }
        let now_ms = self.making.clock.now_ms();
        self.in_sync_from = welcome.next;
        self.place.zero_ms = welcome.wall_ms.saturating_sub(now_ms);
        match self.tail_after(welcome) {
            Some(kept) => self.begin_behind(kept, &welcome.terms),
            None => {
                self.place.terms.clone_from(&welcome.terms);
                let (terms, applied) = (&self.place.terms, self.place.applied());
                self.cluster.follow(&welcome.identity, terms, applied);
                if begins_after(welcome) > applied {
                    // The log has nothing yet in which that would show.
                    self.begin_anew(None);
                }
            }
        }
    }

    /// Returns the newest number of the hub that a log has, if the hub has later ones that
    /// the log has lost.
    fn tail_after(&self, welcome: &Welcome) -> Option<u64> {
        let kept = divergence(&self.place.terms, &welcome.terms);
        kept.filter(|kept| *kept < self.place.applied())
    }

    /// Begins to rebuild the hub.
    fn begin_anew(&mut self, kept: Option<u64>) {
        self.cluster.set_in_sync(false);
        let since_ms = self.making.clock.now_ms();
        let building = self.building.get_or_insert(Building {
            since_ms,
            kept: None,
            told: Vec::new(),
            beside: None,
        });
        building.kept = building.kept.into_iter().chain(kept).min();
    }

    /// Does the same because the log has lost what is behind `kept`, and has the log say so.
    fn begin_behind(&mut self, kept: u64, terms: &[Term]) {
        self.begin_anew(Some(kept));
        if let Some(building) = &mut self.building
            && building.told != terms
        {
            building.told = terms.to_vec();
            let applied = self.place.applied();
            self.tell_losses(&self.hub, applied, kept, terms);
        }
    }

    fn session(&mut self) -> Result<&mut dyn LogReader, BrokerError> {
        let session = self.session.required(&self.cluster)?;
        Ok(&mut **session)
    }

    fn read(&mut self) -> Result<Next, BrokerError> {
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.clear();
        let (after, wait) = (self.place.applied(), self.wait);
        let session = self.session()?;
        session.read(after, READ_BYTES, wait, CALL_TIMEOUT, &mut blocks)?;
        self.session.succeeded();
        if blocks.is_empty() {
            self.cluster.set_in_sync(true);
            return Ok(Next::At(self.making.clock.now_ms()));
        }
        for block in &blocks {
            let (cluster, proposals) = (&self.cluster, &self.proposals);
            match self.place.apply(&self.hub, block, cluster, proposals) {
                Found::Applied => {
                    self.has_asked = false;
                    self.note_applied(block);
                }
                Found::Hole => {
                    self.missing()?;
                    break;
                }
                Found::Unreadable(why) => {
                    self.cluster.stop(why);
                    break;
                }
            }
        }
        self.blocks = blocks;
        let is_whole = self.building.is_none() && !self.cluster.is_stopped();
        if is_whole && self.place.applied().saturating_add(1) >= self.in_sync_from {
            self.cluster.set_in_sync(true);
        }
        Ok(Next::Again)
    }

    fn note_applied(&self, block: &BlockRead) {
        let now_ms = self.making.clock.now_ms();
        let own = Block::name_of(&block.bytes).filter(|(writer, _)| *writer == self.cluster.writer);
        let back = own.map(|(_, n)| n);
        self.hub.release_known();
        self.cluster
            .note_applied(self.place.applied(), back, now_ms);
    }

    /// Blocks are missing: a term may have begun, or they are not kept any more.
    fn missing(&mut self) -> Result<(), BrokerError> {
        if self.has_asked {
            self.begin_anew(None);
            return Ok(());
        }
        self.has_asked = true;
        let welcome = self.ask()?;
        self.welcomed(&welcome);
        Ok(())
    }

    fn ask(&mut self) -> Result<Welcome, BrokerError> {
        let cluster = self.cluster.clone();
        let session = self.session()?;
        cluster.hello(|hello| session.welcome(hello, CALL_TIMEOUT))
    }

    /// Rebuilds the channels beside the hub, and moves them in when the log has recorded what
    /// is lost: no client of this node receives anything newer before that.
    fn build(&mut self, now_ms: u64) -> Result<Next, BrokerError> {
        let welcome = self.ask()?;
        if !self.cluster.is_of_log(&welcome.identity) {
            self.welcomed(&welcome);
            return Ok(Next::Again);
        }
        let is_behind = self.building.as_ref().is_some_and(|b| b.kept.is_some());
        match self.tail_after(&welcome) {
            // A term may have begun since.
            Some(kept) => self.begin_behind(kept, &welcome.terms),
            // The log has again what it had lost.
            None if is_behind => {
                self.cluster.forget_losses();
                if let Some(mut building) = self.building.take() {
                    self.leave_branch(&mut building, &welcome.terms);
                }
                self.welcomed(&welcome);
                return Ok(Next::Again);
            }
            None => {}
        }
        let Some(mut building) = self.building.take() else {
            return Ok(Next::Again);
        };
        let built = self.build_on(&mut building, &welcome, now_ms);
        let kept = building.kept;
        let beside = building.beside.take();
        match (built, beside) {
            (Ok(None), Some((hub, place))) => {
                self.put(hub, place, kept);
                Ok(Next::Again)
            }
            (built, beside) => {
                self.building = Some(Building { beside, ..building });
                built.map(|until_ms| Next::At(until_ms.unwrap_or(now_ms + BASE_PAUSE_MS)))
            }
        }
    }

    /// Goes on with what is built. Returns until when to wait, unless it is complete.
    fn build_on(
        &mut self,
        building: &mut Building,
        welcome: &Welcome,
        now_ms: u64,
    ) -> Result<Option<u64>, BrokerError> {
        self.leave_branch(building, &welcome.terms);
        let (hub, mut place) = match building.beside.take() {
            Some(beside) => beside,
            None => {
                let is_patient = now_ms.saturating_sub(building.since_ms) < PATIENCE_MS;
                let making = self.making.clone();
                let base = match Base::read(self.session()?, welcome, &making)? {
                    Some(base) => base,
                    None if is_patient => return Ok(Some(now_ms + BASE_PAUSE_MS)),
                    None => Base::without_past(welcome, &making),
                };
                self.hub_of(base, welcome)
            }
        };
        place.terms.clone_from(&welcome.terms);
        if predecessor(&welcome.terms, welcome.next) > place.applied() {
            let replayed = self.replay(&hub, &mut place);
            if matches!(replayed, Ok(false)) {
                return Ok(Some(now_ms + BASE_PAUSE_MS));
            }
            // The log may lose it before the next attempt, and then has to say so.
            building.beside = Some((hub, place));
            return replayed.map(|_| Some(now_ms));
        }
        building.beside = Some((hub, place));
        let is_said = self.cluster.open_losses() == 0;
        Ok((!is_said).then_some(now_ms + LOSS_PAUSE_MS))
    }

    /// Drops what is built if the log has lost a part of it, and has the log say so: the
    /// publishers of this node know that it was there.
    fn leave_branch(&self, building: &mut Building, terms: &[Term]) {
        if let Some((hub, place)) = &building.beside
            && let Some(kept) = divergence(&place.terms, terms)
            && kept < place.applied()
        {
            self.cluster.note_base(0);
            self.tell_losses(hub, place.applied(), kept, terms);
            building.beside = None;
        }
    }

    /// Puts what was built into the hub.
    fn put(&mut self, hub: Arc<Hub>, place: Place, kept: Option<u64>) {
        let lost = kept.map_or(0, |kept| self.place.applied().saturating_sub(kept));
        {
            let _not_copied = self.cluster.building();
            let hub = Arc::try_unwrap(hub).expect("nothing else has it");
            self.hub.replace(hub.state.into_inner());
        }
        ::log::warn!(
            "this node has built its channels anew, because the log had gone on without it \
             ({lost} of its events are lost)"
        );
        self.place = place;
        self.has_asked = false;
        let nodes = self.place.nodes.take().unwrap_or_default();
        let (terms, applied) = (&self.place.terms, self.place.applied());
        self.cluster.follow_rebuilt(terms, applied, nodes, lost);
        let now_ms = self.making.clock.now_ms();
        self.cluster.note_applied(applied, None, now_ms);
        self.hub.release_known();
        self.hub.release_said();
    }

    /// Makes a hub of a base.
    fn hub_of(&self, base: Base, welcome: &Welcome) -> (Arc<Hub>, Place) {
        let Making {
            options_by_name,
            clock,
            ..
        } = self.making.clone();
        let mut place = Place::new(base.follower(), welcome, clock.now_ms());
        let is_own = |(end, _): &&(WriterEnd, u64)| end.writer == self.cluster.writer;
        if let Some((end, _)) = base.ends.iter().find(is_own) {
            is_in_snapshot(&self.proposals, end.n);
        }
        self.cluster.note_base(base.at);
        place.nodes = Some(self.cluster.nodes_of(base.ends));
        let mut state = base.state;
        state.remembered.follow_log();
        state.keys.follow_log();
        let ids = self.hub.ids.clone();
        let randomness = Randomness::System;
        let now_ms = clock.now_ms();
        let hub = Hub::with_ids(ids, 0, clock, randomness, state, options_by_name, None);
        expect_losses(&self.cluster, &hub, now_ms);
        (hub, place)
    }

    /// Applies some blocks of the log to a hub. Returns false if it does not follow.
    fn replay(&mut self, hub: &Hub, place: &mut Place) -> Result<bool, BrokerError> {
        let mut blocks = Vec::new();
        let (after, no_wait) = (place.applied(), Duration::ZERO);
        let session = self.session()?;
        session.read(after, READ_BYTES, no_wait, CALL_TIMEOUT, &mut blocks)?;
        for block in &blocks {
            match place.apply(hub, block, &self.cluster, &self.proposals) {
                Found::Applied => {}
                Found::Hole => return Ok(false),
                Found::Unreadable(why) => {
                    self.cluster.stop(why);
                    return Ok(false);
                }
            }
        }
        // Those that were to come may have been trimmed since the log was asked.
        Ok(!blocks.is_empty())
    }

    /// Records in the log what a hub of this node had and the log has lost.
    fn tell_losses(&self, hub: &Hub, applied: u64, kept: u64, terms: &[Term]) {
        // A node that joins has shown nothing to anyone, and does not append yet.
        if self.hub.cluster.get().is_none() {
            return;
        }
        // The last term of those without a block between.
        let behind = predecessor(terms, kept + 1);
        let follows = |term: &&Term| predecessor(terms, term.first) == behind;
        let begun = terms.iter().rev().find(follows);
        let Some(begun) = begun.or_else(|| terms.iter().find(|term| term.first > kept)) else {
            return;
        };
        // The log may have gone on in more terms, of which a later one lacks it.
        let lacks = |had: u64| move |term: &&Term| term.after < had && had < term.first;
        let term_of = |had: u64| terms.iter().find(lacks(had)).unwrap_or(begun).first;
        // A client that has seen numbers of the new term would miss others of it.
        let overlap = begun.first <= applied;
        let names = hub.channels_beyond(kept).filter(|_| !overlap);
        let channels = match names {
            Some(names) => {
                let names = names.into_iter();
                names.map(|(name, head)| (Some(name), head)).collect()
            }
            None => vec![(None, applied)],
        };
        let losses = channels.into_iter().map(|(channel, had)| Lost {
            term: term_of(had),
            had,
            channel,
        });
        self.cluster.add_losses(losses);
    }
}
