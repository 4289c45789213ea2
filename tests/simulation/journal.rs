//! A journal on a simulated disk: what a seed draws of it, and the process that has it.

use std::time::Duration;

use fastrand::Rng;
use pushwheel::internals::{Clock, LoggedBlock, SimulatedDisk, SteppedJournal};
use pushwheel::{ChannelManager, ChannelManagerBuilder, JournalOptions, JournalSync};

use super::oracle::{Oracle, Recovered};
use super::{Shared, lock};

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Cleanly: what is queued is written, and the log is closed.
    Clean,
    /// At any moment; what was written is there.
    Killed,
    /// With its machine; what was not synced may be lost.
    PowerCut,
}

/// What a seed draws of a journal.
pub struct Plan {
    rng: Rng,
    syncs_always: bool,
    segment_bytes: u64,
    bytes_max: u64,
    timeout_ms: u64,
    /// How long an append may take, and how often it takes far longer, in a thousand.
    append_ms_max: u64,
    stalls: u32,
    /// How often a sync, and a piece of a snapshot, is due when the journal acts, in a
    /// thousand.
    syncs: u32,
    pieces: u32,
    /// How processes end, one after another.
    pub ends: Vec<End>,
}

/// Draws a journal, where there is one. A seed draws it apart from all else.
pub fn draw_journal(seed: u64) -> Option<Plan> {
    let mut rng = Rng::with_seed(seed ^ 0x10_04a1);
    if rng.u32(0..3) > 0 {
        return None;
    }
    let count = rng.usize(0..5);
    let kinds = [End::Clean, End::Killed, End::Killed, End::PowerCut];
    let ends = (0..count).map(|_| kinds[rng.usize(0..4)]).collect();
    Some(Plan {
        syncs_always: rng.u32(0..3) == 0,
        segment_bytes: [500, 5_000, 50_000, 1 << 20][rng.usize(0..4)],
        bytes_max: [100_000, 1 << 20, 1 << 30, 1 << 30][rng.usize(0..4)],
        timeout_ms: [300, 1_000, 5_000][rng.usize(0..3)],
        append_ms_max: [0, 3, 30, 200][rng.usize(0..4)],
        stalls: [0, 0, 5][rng.usize(0..3)],
        syncs: [20, 200, 1_000][rng.usize(0..3)],
        pieces: [50, 300, 1_000][rng.usize(0..3)],
        ends,
        rng,
    })
}

/// The journal of the process that runs.
pub struct Journal {
    plan: Plan,
    disk: SimulatedDisk,
    /// `None` only between two processes.
    stepped: Option<SteppedJournal>,
    is_calm: bool,
}

impl Journal {
    /// Opens a journal on an empty disk.
    pub fn begin(
        plan: Plan,
        builder: ChannelManagerBuilder,
        clock: &Clock,
    ) -> (ChannelManager, Journal) {
        let mut journal = Journal {
            plan,
            disk: SimulatedDisk::default(),
            stepped: None,
            is_calm: false,
        };
        let manager = journal.open(builder, clock);
        (manager, journal)
    }

    pub fn timeout_ms(&self) -> u64 {
        self.plan.timeout_ms
    }

    /// Whether its disk may lack room.
    pub fn may_lack_room(&self) -> bool {
        self.plan.bytes_max < 1 << 30
    }

    /// The next end of a process, if there is one more.
    pub fn next_end(&mut self) -> Option<End> {
        self.plan.ends.pop()
    }

    /// Ends all delays and faults.
    pub fn calm_down(&mut self) {
        self.is_calm = true;
    }

    fn open(&mut self, builder: ChannelManagerBuilder, clock: &Clock) -> ChannelManager {
        let sync = match self.plan.syncs_always {
            true => JournalSync::Always,
            false => JournalSync::Every(Duration::from_secs(1)),
        };
        let options = JournalOptions::new()
            .sync(sync)
            .segment_bytes(self.plan.segment_bytes)
            .bytes_max(self.plan.bytes_max)
            .publish_timeout(Duration::from_millis(self.plan.timeout_ms));
        let seed = self.plan.rng.u64(..);
        let opened = builder.open_journal_stepped(&self.disk, &options, clock, seed);
        let (manager, stepped) = opened.unwrap_or_else(|error| panic!("no journal: {error}"));
        self.stepped = Some(stepped);
        manager
    }

    fn stepped(&mut self) -> &mut SteppedJournal {
        self.stepped.as_mut().expect("a process runs")
    }

    /// When the journal acts next, in milliseconds from now.
    pub fn pause_ms(&mut self) -> u64 {
        let plan = &mut self.plan;
        match plan.rng.u32(0..1_000) {
            _ if self.is_calm => 1,
            draw if draw < plan.stalls => plan.rng.u64(1_000..10_000),
            _ => plan.rng.u64(0..=plan.append_ms_max).max(1),
        }
    }

    /// Lets time run out for what waits.
    pub fn expire(&mut self, oracle: &Shared) {
        self.stepped().expire();
        lock(oracle).settle();
    }

    /// Does what is due. Says whether that made work for the engine.
    pub fn act(&mut self, oracle: &Shared) -> bool {
        self.expire(oracle);
        let mut is_work = false;
        let steps = match self.plan.rng.u32(0..4) {
            0 => self.plan.rng.usize(1..4),
            _ => 1,
        };
        for _ in 0..steps {
            is_work |= self.step(oracle).1;
        }
        if self.happens(self.plan.syncs) {
            self.sync(oracle);
        }
        if self.happens(self.plan.pieces) {
            for _ in 0..self.plan.rng.usize(1..30) {
                self.stepped().write_snapshot();
            }
        }
        is_work
    }

    fn happens(&mut self, in_thousand: u32) -> bool {
        self.is_calm || self.plan.rng.u32(0..1_000) < in_thousand
    }

    fn sync(&mut self, oracle: &Shared) {
        self.stepped().sync();
        let has_failed = self.stepped().has_failed();
        let mut oracle = lock(oracle);
        if has_failed {
            oracle.note_failure();
        } else {
            oracle.note_synced();
        }
    }

    /// Takes a step, which is over when there is nothing to do.
    fn step(&mut self, oracle: &Shared) -> (Option<LoggedBlock>, bool) {
        lock(oracle).begin_applying();
        let stepped = self.stepped();
        let block = stepped.step();
        let (queued, has_failed) = (stepped.queued(), stepped.has_failed());
        let syncs_always = self.plan.syncs_always;
        let mut oracle = lock(oracle);
        if has_failed {
            oracle.note_failure();
        }
        let is_work = oracle.on_block(block.as_ref(), queued);
        if syncs_always {
            oracle.note_synced();
        }
        (block, is_work)
    }

    /// The disk is to fail soon: the process ends in the middle of a change, or no sync
    /// succeeds any more.
    pub fn fail_soon(&mut self) {
        let rng = &mut self.plan.rng;
        match rng.u32(0..4) {
            0 => self.disk.fail_syncs(),
            1 => {}
            _ => self.disk.end_in(rng.u64(0..8)),
        }
    }

    /// Whether the process has ended in the middle of a change.
    pub fn has_ended(&self) -> bool {
        self.disk.has_ended()
    }

    /// Writes what is queued, and closes the log.
    pub fn close(&mut self, oracle: &Shared) {
        while self.step(oracle).0.is_some() {}
        self.stepped.take().expect("a process runs").close();
        lock(oracle).settle();
        lock(oracle).note_synced();
    }

    /// The process is gone: another one finds what is on the disk.
    pub fn end(&mut self, end: End) {
        let rng = &mut self.plan.rng;
        self.disk = match end {
            End::PowerCut => self.disk.power_cut(&mut |max| rng.usize(..max)),
            End::Clean | End::Killed => self.disk.killed(),
        };
        self.stepped = None;
    }

    /// Another process opens the journal.
    pub fn reopen(
        &mut self,
        end: End,
        builder: ChannelManagerBuilder,
        clock: &Clock,
        oracle: &mut Oracle,
    ) -> ChannelManager {
        let blocks = SteppedJournal::blocks(&self.disk);
        let blocks = blocks.unwrap_or_else(|error| panic!("no journal after {end:?}: {error}"));
        let manager = self.open(builder, clock);
        let recovered = Recovered {
            blocks,
            lost: self.stepped().lost,
            may_have_lost: end == End::PowerCut && !self.plan.syncs_always,
        };
        oracle.recover(&manager, &recovered);
        manager
    }
}
