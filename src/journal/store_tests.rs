//! The store over a simulated disk.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use fastrand::Rng;
use proptest::prelude::*;

use super::disk::{Directory, Disk};
use super::error::JournalError;
use super::segment::{Stored, put_frame};
use super::simulated_disk::SimulatedDisk;
use super::store::{Opening, Recovery, Store, StoreOptions};

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
    /// So many blocks are appended while it is written.
    Snapshot {
        appends: u32,
    },
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
        2 => (0..12_u32).prop_map(|appends| Step::Snapshot { appends }),
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
            true => self.disk.power_cut(&mut |max| self.rng.usize(..max)),
            false => self.disk.killed(),
        };
        self.dies_with_power = None;
        self.open(with_power);
    }

    fn open(&mut self, lost_power: bool) {
        let opened = open(&self.disk, options(self.syncs_always));
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
            Step::Snapshot { appends } => {
                let mut snapshot = match store.begin_snapshot() {
                    Ok(snapshot) => snapshot,
                    Err(error) => {
                        assert!(is_dying, "{error}");
                        return self.die(self.dies_with_power == Some(true));
                    }
                };
                write_blocks(&self.blocks, &mut snapshot);
                let opens = self.opens;
                for _ in 0..*appends {
                    self.append(1, vec![7; 200]);
                }
                if self.opens > opens {
                    return;
                }
                match snapshot.commit() {
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
    let parent = std::env::temp_dir().join(format!("pushwheel-journal-{}", std::process::id()));
    let path = parent.join("of").join("a server");
    let options = options(true);
    for round in 0..3 {
        let disk = Directory::lock(&path).unwrap();
        let second = Directory::lock(&path).unwrap_err();
        assert!(matches!(second, JournalError::Locked { .. }), "{second}");
        let (opening, mut recovery) = Opening::examine(disk, options.clone()).unwrap();
        let mut store = opening.begin().unwrap();
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
        assert_eq!((mode(&parent), mode(&path)), (0o700, 0o700));
        for file in std::fs::read_dir(&path).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
    }
    std::fs::remove_dir_all(&parent).unwrap();
}

fn open(
    disk: &SimulatedDisk,
    options: StoreOptions,
) -> Result<(Store<SimulatedDisk>, Recovery<SimulatedDisk>), JournalError> {
    let (opening, recovery) = Opening::examine(disk.clone(), options)?;
    Ok((opening.begin()?, recovery))
}

/// Returns a disk with a log of nine blocks in several segments, some of them in a snapshot,
/// and the blocks. The first seven are on the disk.
fn log_of_nine(syncs_always: bool) -> (SimulatedDisk, Vec<Block>) {
    let disk = SimulatedDisk::default();
    let (mut store, _) = open(&disk, options(syncs_always)).unwrap();
    let mut blocks = Vec::new();
    for n in 0..9 {
        let block = vec![n; 150];
        let number = store.append(2, 1_000, &block).unwrap();
        blocks.push((number, 2, block));
        if n == 2 {
            let mut snapshot = store.begin_snapshot().unwrap();
            write_blocks(&blocks, &mut snapshot);
            snapshot.commit().unwrap();
        }
        if n == 6 {
            store.sync().unwrap();
        }
    }
    (disk.killed(), blocks)
}

/// The size of a frame of that log.
const FRAME_BYTES: usize = 36 + 150;

/// Returns where the last frame of that log ends in its segment. Zeros may follow, and its
/// checksum may end with some.
fn end_of_nine(segment: &[u8]) -> usize {
    let at = segment.windows(150).position(|block| block == [8; 150]);
    at.unwrap() + 150 + 4
}

/// Returns what draws the numbers of a seed.
fn drawn(seed: u64) -> impl FnMut(usize) -> usize {
    let mut rng = Rng::with_seed(seed);
    move |max| rng.usize(..max)
}

fn newest_segment(disk: &SimulatedDisk) -> String {
    let names = disk.contents().into_keys();
    names.filter(|name| name.ends_with(".log")).max().unwrap()
}

#[test]
fn a_frame_that_is_cut_at_any_byte_is_cut_off() {
    for syncs_always in [false, true] {
        let (disk, blocks) = log_of_nine(syncs_always);
        let (name, contents) = (newest_segment(&disk), disk.contents());
        let file = &contents[&name];
        let end = end_of_nine(file);
        for cut in 0..FRAME_BYTES {
            let cut_disk = disk.copy(cut % 2 == 0);
            let len = end - FRAME_BYTES + cut;
            cut_disk.change(&name, |bytes| bytes.truncate(len));
            let (mut store, mut recovery) = open(&cut_disk, options(syncs_always)).unwrap();
            assert_eq!(recovered(&mut recovery), blocks[..8], "{cut}");
            let tear = recovery
                .tear
                .map(|tear| (tear.name, tear.offset, tear.bytes));
            let expected = (name.clone(), (end - FRAME_BYTES) as u64, cut as u64);
            assert_eq!(tear, (cut > 0).then_some(expected));
            // Nothing of it comes back behind a shorter block.
            let first = store.append(1, 1_000, b"short").unwrap();
            drop(store);
            let again = cut_disk.killed();
            let (_, mut recovery) = open(&again, options(syncs_always)).unwrap();
            let last = recovered(&mut recovery).pop();
            assert_eq!(last, Some((first, 1, b"short".to_vec())));
            assert!(recovery.tear.is_none());
        }
    }
}

#[test]
fn a_byte_that_changes_is_refused_or_in_what_is_cut_off() {
    for syncs_always in [false, true] {
        let (disk, blocks) = log_of_nine(syncs_always);
        let newest = newest_segment(&disk);
        let end = end_of_nine(&disk.contents()[&newest]);
        for (name, file) in disk.contents() {
            for at in 0..file.len() {
                let flipped = disk.copy(true);
                flipped.change(&name, |bytes| bytes[at] ^= 0x20);
                let before = flipped.contents();
                let is_in_last = name == newest && at >= end - FRAME_BYTES;
                match open(&flipped, options(syncs_always)) {
                    Ok((_, mut recovery)) => {
                        assert!(is_in_last, "{name} {at}");
                        let kept = if at < end { 8 } else { 9 };
                        assert_eq!(recovered(&mut recovery), blocks[..kept], "{at}");
                        assert!(recovery.tear.is_some());
                    }
                    Err(JournalError::Damaged { path, .. }) => {
                        assert!(!is_in_last && path.ends_with(&name), "{name} {at} {path:?}");
                        assert_eq!(flipped.contents(), before, "a damaged log has changed");
                    }
                    Err(JournalError::Newer { .. }) => {
                        assert!((16..20).contains(&at), "{at}");
                        assert_eq!(flipped.contents(), before);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

/// Whether the machine has been started again since or not.
#[test]
fn a_hole_is_damage_where_the_log_was_synced() {
    // In one segment and in several.
    for segment_bytes in [600, 6_000] {
        let options = StoreOptions {
            segment_bytes,
            ..options(false)
        };
        let disk = SimulatedDisk::default();
        let (mut store, _) = open(&disk, options.clone()).unwrap();
        let mut blocks = Vec::new();
        for n in 0..9 {
            let block = vec![n + 1; 150];
            let number = store.append(1, 1_000, &block).unwrap();
            blocks.push((number, 1, block));
            if n == 6 {
                store.sync().unwrap();
            }
        }
        for n in 0..9 {
            let holed = disk.copy(false);
            for (name, file) in disk.contents() {
                let is_in = file.windows(150).position(|block| block == [n + 1; 150]);
                if let Some(at) = is_in {
                    holed.change(&name, |bytes| bytes[at..at + 150].fill(0));
                }
            }
            match open(&holed, options.clone()) {
                Err(JournalError::Damaged { .. }) => assert!(n <= 6, "{n}"),
                Ok((_, mut recovery)) => {
                    assert!(n > 6, "{n}");
                    assert!(recovered(&mut recovery) == blocks[..usize::from(n)]);
                    assert!(recovery.may_have_lost);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn segments_that_are_missing_or_of_another_log_are_refused() {
    let (disk, _) = log_of_nine(true);
    let mut refused = 0;
    for name in disk
        .contents()
        .into_keys()
        .filter(|name| *name != newest_segment(&disk))
    {
        let lacking = disk.copy(true);
        lacking.remove(&name).unwrap();
        let error = open(&lacking, options(true)).err();
        let is_refused = matches!(error, Some(JournalError::Damaged { .. }));
        assert!(is_refused, "{name} {error:?}");
        refused += 1;
    }
    assert!(refused >= 3, "{refused}");

    let name = newest_segment(&disk);
    let mixed = disk.copy(true);
    mixed.change(&name, |bytes| {
        let at = bytes
            .windows(8)
            .position(|part| part == b"identity")
            .unwrap();
        bytes[at..at + 8].copy_from_slice(b"another.");
        let header_bytes = at + 8 + 1 + "boot 0".len();
        let sum = crc32fast::hash(&bytes[..header_bytes]);
        bytes[header_bytes..header_bytes + 4].copy_from_slice(&sum.to_le_bytes());
    });
    let error = open(&mixed, options(true)).err().unwrap();
    assert!(
        error.to_string().contains("it is of another journal"),
        "{error}"
    );
}

#[test]
fn a_full_disk_ends_the_log_and_loses_nothing() {
    for syncs_always in [false, true] {
        for room in 0..400 {
            let (disk, blocks) = log_of_nine(syncs_always);
            let (mut store, _) = open(&disk, options(syncs_always)).unwrap();
            let used: usize = disk.contents().values().map(Vec::len).sum();
            disk.faults(|faults| faults.capacity = Some(used + room));
            let mut expected = blocks;
            let error = loop {
                match store.append(1, 1_000, &[7; 50]) {
                    Ok(number) => expected.push((number, 1, vec![7; 50])),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, JournalError::Io { .. }), "{error}");
            disk.faults(|faults| faults.capacity = None);
            let error = store.append(1, 1_000, &[7; 50]).unwrap_err();
            assert!(matches!(error, JournalError::Failed { .. }), "{error}");
            let (_, mut recovery) = open(&disk.killed(), options(syncs_always)).unwrap();
            assert_eq!(recovered(&mut recovery), expected, "{room}");
        }
    }
}

#[test]
fn a_failed_sync_is_final_and_what_it_refused_is_gone() {
    let (disk, blocks) = log_of_nine(true);
    let (mut store, _) = open(&disk, options(true)).unwrap();
    disk.faults(|faults| faults.fails_syncs = true);
    let error = store.append(1, 1_000, b"refused").unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
    disk.faults(|faults| faults.fails_syncs = false);
    let error = store.append(1, 1_000, b"refused").unwrap_err();
    assert!(matches!(error, JournalError::Failed { .. }), "{error}");
    assert!(store.begin_snapshot().is_err() && store.sync().is_err());
    assert!(store.close().is_err());
    let (_, mut recovery) = open(&disk.killed(), options(true)).unwrap();
    assert_eq!(recovered(&mut recovery), blocks);

    let (disk, mut blocks) = log_of_nine(false);
    let (mut store, _) = open(&disk, options(false)).unwrap();
    let number = store.append(1, 1_000, b"written").unwrap();
    blocks.push((number, 1, b"written".to_vec()));
    disk.faults(|faults| faults.fails_syncs = true);
    assert!(store.syncer().sync().is_err());
    disk.faults(|faults| faults.fails_syncs = false);
    let error = store.append(1, 1_000, b"refused").unwrap_err();
    assert!(matches!(error, JournalError::Failed { .. }), "{error}");
    let (_, mut recovery) = open(&disk.killed(), options(false)).unwrap();
    assert_eq!(recovered(&mut recovery), blocks);
}

#[test]
fn what_a_failed_sync_has_dropped_is_written_again_by_the_next_start() {
    for seed in 0..50 {
        let (disk, mut blocks) = log_of_nine(false);
        let (mut store, _) = open(&disk, options(false)).unwrap();
        for text in [&b"written"[..], &[7; 500], b"and a second segment"] {
            let number = store.append(1, 1_000, text).unwrap();
            blocks.push((number, 1, text.to_vec()));
        }
        disk.faults(|faults| faults.fails_syncs = true);
        assert!(store.sync().is_err());
        drop(store);
        // It reads what the system has in memory, and tells its clients.
        let disk = disk.killed();
        let (store, mut recovery) = open(&disk, options(false)).unwrap();
        assert_eq!(recovered(&mut recovery), blocks);
        drop(store);
        let disk = disk.power_cut(&mut drawn(seed));
        let (_, mut recovery) = open(&disk, options(false)).unwrap();
        assert_eq!(recovered(&mut recovery), blocks, "{seed}");
    }
}

#[test]
fn a_disk_that_writes_a_few_bytes_at_a_time_is_written_completely() {
    let disk = SimulatedDisk::default();
    disk.faults(|faults| faults.write_max = Some(7));
    let (mut store, _) = open(&disk, options(true)).unwrap();
    store.append(3, 1_000, b"a block of some bytes").unwrap();
    store.close().unwrap();
    let (_, mut recovery) = open(&disk.killed(), options(true)).unwrap();
    assert_eq!(
        recovered(&mut recovery),
        [(1, 3, b"a block of some bytes".to_vec())]
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    let disk = SimulatedDisk::default();
    disk.faults(|faults| faults.is_read_only = true);
    let error = open(&disk, options(true)).err().unwrap();
    assert!(
        error.to_string().starts_with("cannot create journal/"),
        "{error}"
    );
}

#[test]
fn appends_are_not_far_ahead_of_a_snapshot_that_is_slow() {
    const MIB: usize = 1 << 20;
    let disk = SimulatedDisk::default();
    let options = StoreOptions::new(b"identity".to_vec());
    let (mut store, _) = open(&disk, options).unwrap();
    let block = vec![1; 33 * MIB];
    for _ in 0..4 {
        assert!(!store.must_wait(block.len()), "no snapshot is written");
        store.append(1, 1_000, &block).unwrap();
    }
    let mut snapshot = store.begin_snapshot().unwrap();
    write_blocks(&[(1, 1, vec![1; 1_000])], &mut snapshot);
    snapshot.flush().unwrap();
    assert!(store.must_wait(block.len()));
    snapshot.commit().unwrap();
    assert!(!store.must_wait(block.len()));
    let mut snapshot = store.begin_snapshot().unwrap();
    write_blocks(&[(1, 1, vec![1; 1_000])], &mut snapshot);
    snapshot.flush().unwrap();
    for _ in 0..3 {
        assert!(!store.must_wait(block.len()), "there is room beside it");
        store.append(1, 1_000, &block).unwrap();
    }
    assert!(store.must_wait(block.len()));
}

#[test]
fn a_log_that_is_full_has_room_again_after_a_snapshot() {
    let disk = SimulatedDisk::default();
    let options = StoreOptions {
        bytes_max: 2_000,
        ..options(false)
    };
    let (mut store, _) = open(&disk, options.clone()).unwrap();
    let mut blocks = Vec::new();
    let mut refused = 0;
    while refused < 3 {
        match store.append(1, 1_000, &[1; 100]) {
            Ok(number) => blocks.push((number, 1, vec![1; 100])),
            Err(error) => {
                assert!(
                    matches!(error, JournalError::Full { max: 2_000 }),
                    "{error}"
                );
                assert!(store.needs_snapshot());
                // What it contains are the histories, which are bounded.
                blocks.drain(..blocks.len() - 2);
                let mut snapshot = store.begin_snapshot().unwrap();
                assert_eq!(snapshot.at(), store.next() - 1);
                write_blocks(&blocks, &mut snapshot);
                snapshot.commit().unwrap();
                refused += 1;
            }
        }
    }
    assert!(!store.needs_snapshot());
    let used: usize = disk.contents().values().map(Vec::len).sum();
    assert!(used < 700, "{:?}", disk.contents().keys());
    assert_eq!(store.syncer().bytes(), used as u64);
    let (_, mut recovery) = open(&disk.killed(), options).unwrap();
    assert_eq!(recovered(&mut recovery), blocks);
}

#[test]
fn an_imported_log_goes_on_behind_its_snapshot() {
    let disk = SimulatedDisk::default();
    let blocks = [(41, 1, b"old".to_vec())];
    let import = |disk: &SimulatedDisk| {
        Store::import(disk, &options(false), 41, |to| {
            write_blocks(&blocks, to);
            Ok(())
        })
    };
    import(&disk).unwrap();
    let error = import(&disk).unwrap_err();
    assert!(matches!(error, JournalError::NotEmpty { .. }), "{error}");
    let disk = disk.power_cut(&mut drawn(1));
    let (store, mut recovery) = open(&disk, options(false)).unwrap();
    assert_eq!(recovered(&mut recovery), blocks);
    assert!(!recovery.may_have_lost);
    assert_eq!(store.next(), 42);
}

proptest! {
    /// What such a disk loses cannot be known, but nothing is invented.
    #[test]
    fn a_disk_that_lies_loses_blocks_and_invents_none(seed: u64, syncs_always: bool) {
        let (disk, mut blocks) = log_of_nine(syncs_always);
        let (mut store, recovery) = open(&disk, options(syncs_always)).unwrap();
        drop(recovery);
        disk.faults(|faults| faults.lies = true);
        for n in 0..9 {
            let number = store.append(1, 1_000, &[n; 100]).unwrap();
            blocks.push((number, 1, vec![n; 100]));
            store.sync().unwrap();
        }
        let disk = disk.power_cut(&mut drawn(seed));
        match open(&disk, options(syncs_always)) {
            Ok((_, mut recovery)) => {
                let found = recovered(&mut recovery);
                prop_assert!(found.len() >= 9 && blocks.starts_with(&found));
            }
            Err(error) => prop_assert!(matches!(error, JournalError::Damaged { .. }), "{error}"),
        }
    }
}

/// Data may have any text, also what looks like a frame.
#[test]
fn no_event_is_taken_for_a_frame_behind_a_tear() {
    let disk = SimulatedDisk::default();
    let (mut store, _) = open(&disk, options(false)).unwrap();
    store.append(1, 0, b"first").unwrap();
    let mut forged = Vec::new();
    put_frame(&mut forged, &[0; 16], [0x0101, 7, 0x0100], 1, b"x");
    let mut block = b"data: ".to_vec();
    block.extend_from_slice(&forged);
    block.extend_from_slice(&[b'z'; 2_000]);
    store.append(1, 0, &block).unwrap();
    drop(store);
    for is_same_start in [true, false] {
        let disk = disk.copy(is_same_start);
        let name = newest_segment(&disk);
        // The write of the last block was cut by the end of the process.
        disk.change(&name, |bytes| bytes.truncate(bytes.len() - 500));
        let (_, mut recovery) = open(&disk, options(false)).unwrap();
        assert_eq!(recovered(&mut recovery), [(1, 1, b"first".to_vec())]);
    }
}

#[test]
fn a_snapshot_that_fails_leaves_no_file_and_no_segment() {
    let disk = SimulatedDisk::default();
    let (mut store, _) = open(&disk, options(false)).unwrap();
    store.append(1, 0, b"block").unwrap();
    for n in 0..5 {
        let mut snapshot = store.begin_snapshot().unwrap();
        snapshot.write_all(&vec![n; 1 << 20]).unwrap();
        assert!(store.bytes() >= 1 << 20, "what is written counts");
        drop(snapshot);
    }
    let used: usize = disk.contents().values().map(Vec::len).sum();
    assert_eq!(store.bytes(), used as u64);
    assert!(used < 1_000, "{:?}", disk.contents().keys());
    // No descriptor is left for its file.
    store.append(1, 0, b"block").unwrap();
    let files = disk.contents().len();
    disk.faults(|faults| faults.is_read_only = true);
    assert!(store.begin_snapshot().is_err());
    disk.faults(|faults| faults.is_read_only = false);
    assert_eq!(disk.contents().len(), files);
    store.append(1, 0, b"it goes on").unwrap();
}

#[test]
fn a_full_log_tells_of_a_loss() {
    let disk = SimulatedDisk::default();
    let full = || StoreOptions {
        bytes_max: 2_000,
        ..options(false)
    };
    let (mut store, _) = open(&disk, full()).unwrap();
    while store.append(1, 0, &[7; 100]).is_ok() {}
    store.sync().unwrap();
    drop(store);
    let (mut store, recovery) = open(&disk.copy(false), full()).unwrap();
    assert!(recovery.may_have_lost);
    store.append(1, 0, LOSS).unwrap();
    let error = store.append(1, 0, &[7; 100]).unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
}

#[test]
fn a_log_that_is_nearly_full_needs_a_snapshot_before_it_is_full() {
    let disk = SimulatedDisk::default();
    let options = StoreOptions {
        bytes_max: 10_000,
        ..options(false)
    };
    let (mut store, _) = open(&disk, options).unwrap();
    let mut snapshot = store.begin_snapshot().unwrap();
    snapshot.write_all(&[1; 6_000]).unwrap();
    snapshot.commit().unwrap();
    let mut appended = 0;
    while !store.needs_snapshot() {
        store.append(1, 0, &[7; 100]).unwrap();
        appended += 1;
    }
    assert!(appended > 3, "{appended}");
    store.append(1, 0, &[7; 1_000]).unwrap();
}

/// Clients may have seen events that a copy does not have, whatever its end, and that its
/// original or another copy has gone on with.
#[test]
fn a_copy_gives_no_number_that_its_original_or_another_copy_gives() {
    let (disk, blocks) = log_of_nine(false);
    let (store, _) = open(&disk, options(false)).unwrap();
    store.close().unwrap();
    let mut given = Vec::new();
    // The original goes on, and after a loss of its own.
    for is_same_start in [true, false] {
        let original = disk.copy(is_same_start);
        drop(open(&original, options(false)).unwrap());
        let (store, _) = open(&original.copy(is_same_start), options(false)).unwrap();
        given.push(store.next());
    }
    for random in [3, 4] {
        let copy = disk.copy(true);
        let options = StoreOptions {
            salt: [random; 16],
            ..options(false)
        };
        Store::prepare_copy(copy.clone(), options.clone()).unwrap();
        let (mut store, mut recovery) = open(&copy.killed(), options).unwrap();
        assert_eq!(recovered(&mut recovery), blocks);
        assert!(recovery.may_have_lost);
        given.push(store.append(1, 0, LOSS).unwrap());
    }
    let terms: BTreeSet<u64> = given.iter().map(|number| number >> 36).collect();
    assert_eq!(terms.len(), given.len(), "{given:?}");
    let options = options(false);
    let error = Store::prepare_copy(SimulatedDisk::default(), options).unwrap_err();
    assert!(matches!(error, JournalError::Missing { .. }), "{error}");
}

/// What is read of a log does not change when it is begun.
#[test]
fn a_segment_without_a_block_is_replaced_and_not_read() {
    let disk = SimulatedDisk::default();
    let (mut store, _) = open(&disk, options(true)).unwrap();
    store.append(1, 0, b"block").unwrap();
    store.close().unwrap();
    open(&disk, options(true)).unwrap().0.close().unwrap();
    // The name of the machine's start is one digit longer in the one that replaces it.
    let disk = (0..10).fold(disk, |disk, _| disk.copy(false));
    let (_, mut recovery) = open(&disk, options(true)).unwrap();
    assert_eq!(recovered(&mut recovery), [(1, 1, b"block".to_vec())]);
}

#[test]
fn many_starts_make_a_snapshot() {
    let mut disk = SimulatedDisk::default();
    let mut starts = 0;
    loop {
        starts += 1;
        let (mut store, _) = open(&disk, StoreOptions::new(b"identity".to_vec())).unwrap();
        store.append(1, 0, b"block").unwrap();
        if store.needs_snapshot() {
            store.begin_snapshot().unwrap().commit().unwrap();
            assert!(!store.needs_snapshot());
            break;
        }
        drop(store);
        disk = disk.killed();
    }
    assert_eq!(starts, 129);
    assert_eq!(disk.contents().len(), 2, "{:?}", disk.contents().keys());
}
