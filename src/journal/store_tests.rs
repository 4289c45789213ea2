//! The store over a simulated disk.

use std::io::{Read, Write};

use fastrand::Rng;
use proptest::prelude::*;

use super::disk::{Directory, Disk};
use super::error::JournalError;
use super::segment::Stored;
use super::simulated_disk::SimulatedDisk;
use super::store::{Recovery, Store, StoreOptions};

fn options(syncs_always: bool) -> StoreOptions {
    StoreOptions {
        syncs_always,
        // Small segments, so that a log has several.
        segment_bytes: 600,
        ahead_bytes: 300,
        ..StoreOptions::new(b"identity".to_vec())
    }
}

/// A block that was acknowledged: its number, how many it takes, its bytes.
type Block = (u64, u32, Vec<u8>);

fn block_of(stored: Stored) -> Block {
    (stored.first, stored.width, stored.block)
}

/// What a recovery has: the blocks of the snapshot, which are its content here, and of the
/// log.
fn recovered<D: Disk>(recovery: &mut Recovery<D>) -> Vec<Block> {
    let mut blocks = Vec::new();
    if let Some(snapshot) = &mut recovery.snapshot {
        let mut content = Vec::new();
        snapshot.read_to_end(&mut content).unwrap();
        let mut rest = &content[..];
        while let Some((head, more)) = rest.split_first_chunk::<14>() {
            let number = u64::from_le_bytes(head[..8].try_into().unwrap());
            let width = u32::from_le_bytes(head[8..12].try_into().unwrap());
            let len = u16::from_le_bytes(head[12..].try_into().unwrap());
            let (block, more) = more.split_at(usize::from(len));
            blocks.push((number, width, block.to_vec()));
            rest = more;
        }
    }
    blocks.extend(
        recovery
            .blocks
            .by_ref()
            .map(|stored| block_of(stored.unwrap())),
    );
    blocks
}

fn write_blocks(blocks: &[Block], to: &mut dyn Write) {
    for (number, width, block) in blocks {
        to.write_all(&number.to_le_bytes()).unwrap();
        to.write_all(&width.to_le_bytes()).unwrap();
        to.write_all(&u16::try_from(block.len()).unwrap().to_le_bytes())
            .unwrap();
        to.write_all(block).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        width: u32,
        bytes: usize,
    },
    Sync,
    Snapshot,
    Close,
    Kill,
    PowerCut,
    /// The process dies in the middle of what follows, after so many changes of the disk.
    DieAfter {
        changes: u64,
        is_power_cut: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..5_u32, 0..400_usize).prop_map(|(width, bytes)| Step::Append { width, bytes }),
        3 => Just(Step::Sync),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => Just(Step::PowerCut),
        3 => (0..12_u64, any::<bool>())
            .prop_map(|(changes, is_power_cut)| Step::DieAfter { changes, is_power_cut }),
    ]
}

/// A log with what is known of it.
struct Run {
    syncs_always: bool,
    rng: Rng,
    disk: SimulatedDisk,
    store: Option<Store<SimulatedDisk>>,
    /// What was acknowledged and is there.
    blocks: Vec<Block>,
    /// The numbers through which the log was synced and acknowledged.
    synced: u64,
    newest: u64,
    /// A block that was tried when the process died.
    doubtful: Option<Block>,
    /// Whether acknowledged blocks were lost, and no block tells so yet.
    is_untold: bool,
    /// Whether the next death is one of the machine.
    dies_with_power: Option<bool>,
    opens: u64,
}

const LOSS: &[u8] = b"a loss";

impl Run {
    fn new(syncs_always: bool, seed: u64) -> Run {
        let mut run = Run {
            syncs_always,
            rng: Rng::with_seed(seed),
            disk: SimulatedDisk::default(),
            store: None,
            blocks: Vec::new(),
            synced: 0,
            newest: 0,
            doubtful: None,
            is_untold: false,
            dies_with_power: None,
            opens: 0,
        };
        run.open(false);
        run
    }

    /// Ends the process or the machine, and starts again.
    fn die(&mut self, with_power: bool) {
        self.store = None;
        self.disk = match with_power {
            true => self.disk.power_cut(&mut self.rng),
            false => self.disk.killed(),
        };
        self.dies_with_power = None;
        self.open(with_power);
    }

    fn open(&mut self, lost_power: bool) {
        let opened = Store::open(self.disk.clone(), options(self.syncs_always));
        if opened.is_err()
            && let Some(with_power) = self.dies_with_power.take()
        {
            // It has died while it was opened.
            return self.die(with_power);
        }
        let (store, mut recovery) = opened.unwrap();
        self.opens += 1;
        assert_eq!(recovery.identity, b"identity");
        let found = recovered(&mut recovery);
        let mut expected = std::mem::take(&mut self.blocks);
        expected.extend(self.doubtful.take());
        assert!(expected.starts_with(&found), "{found:?} of {expected:?}");
        let newest = |blocks: &[Block]| {
            blocks
                .last()
                .map_or(0, |(n, width, _)| n + u64::from(*width) - 1)
        };
        assert_eq!(newest(&found), recovery.newest);
        // What may be missing by the promise of the mode.
        let promised = if lost_power && !self.syncs_always {
            self.synced
        } else {
            self.newest
        };
        assert!(
            newest(&found) >= promised,
            "{promised} was promised, {}",
            newest(&found)
        );
        if newest(&found) < self.newest {
            self.is_untold = true;
        }
        if self.is_untold {
            assert!(recovery.may_have_lost, "a loss is not noticed");
        }
        self.newest = self.newest.max(newest(&found));
        // All is synced by now.
        self.synced = newest(&found);
        self.blocks = found;
        self.store = Some(store);
        if recovery.may_have_lost {
            assert!(!self.syncs_always, "nothing can be lost");
            self.append(1, LOSS.to_vec());
        }
    }

    fn append(&mut self, width: u32, bytes: Vec<u8>) {
        let Some(store) = &mut self.store else { return };
        let number = store.next();
        assert!(number > self.newest, "{number} is given twice");
        let is_loss = bytes == LOSS;
        let block = (number, width, bytes);
        match store.append(u64::from(width), 1_000, &block.2) {
            Ok(first) => {
                assert_eq!(first, number);
                self.newest = number + u64::from(width) - 1;
                if self.syncs_always {
                    self.synced = self.newest;
                }
                self.is_untold &= !is_loss;
                self.blocks.push(block);
            }
            Err(error) => {
                let with_power = self.dies_with_power.unwrap_or_else(|| panic!("{error}"));
                self.doubtful = Some(block);
                self.die(with_power);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let is_dying = self.dies_with_power.is_some();
        let Some(store) = &mut self.store else { return };
        match step {
            Step::Append { width, bytes } => {
                let byte = self.rng.u8(..);
                self.append(*width, vec![byte; *bytes]);
            }
            Step::Sync => match store.syncer().sync() {
                Ok(()) => self.synced = self.newest,
                Err(error) => {
                    assert!(is_dying, "{error}");
                    self.die(self.dies_with_power == Some(true));
                }
            },
            Step::Snapshot => {
                let blocks = &self.blocks;
                let snapshot = store.begin_snapshot().and_then(|mut snapshot| {
                    write_blocks(blocks, &mut snapshot);
                    snapshot.commit()
                });
                match snapshot {
                    Ok(()) => self.synced = self.newest,
                    Err(error) => {
                        assert!(is_dying, "{error}");
                        self.die(self.dies_with_power == Some(true));
                    }
                }
            }
            Step::Close => {
                let closed = self.store.take().unwrap().close();
                assert!(closed.is_ok() || is_dying);
                if closed.is_ok() {
                    self.synced = self.newest;
                }
                let with_power = self.rng.bool();
                self.die(with_power);
            }
            Step::Kill => self.die(false),
            Step::PowerCut => self.die(true),
            Step::DieAfter {
                changes,
                is_power_cut,
            } => {
                let dies_at = self.disk.changes() + changes;
                self.disk.faults(|faults| faults.dies_at = Some(dies_at));
                self.dies_with_power = Some(*is_power_cut);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_there_after_any_death(
        syncs_always: bool,
        seed: u64,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut run = Run::new(syncs_always, seed);
        steps.iter().for_each(|step| run.step(step));
        run.die(true);
        prop_assert!(run.opens > 1);
    }
}

#[test]
fn a_directory_keeps_blocks_and_one_process_uses_it() {
    let path = std::env::temp_dir().join(format!("pushwheel-journal-{}", std::process::id()));
    let options = options(true);
    for round in 0..3 {
        let disk = Directory::lock(&path).unwrap();
        let second = Directory::lock(&path).unwrap_err();
        assert!(matches!(second, JournalError::Locked { .. }), "{second}");
        let (mut store, mut recovery) = Store::open(disk, options.clone()).unwrap();
        let expected: Vec<Block> = (0..round)
            .map(|n| (n * 2 + 1, 2, b"block".to_vec()))
            .collect();
        assert_eq!(recovered(&mut recovery), expected);
        assert!(!recovery.may_have_lost);
        assert_eq!(store.append(2, 1_000, b"block").unwrap(), round * 2 + 1);
        if round == 0 {
            store.close().unwrap();
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for file in std::fs::read_dir(&path).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
    }
    std::fs::remove_dir_all(&path).unwrap();
}
