//! A disk in memory that fails, fills up, lies and loses power.
//!
//! What is written is visible at once, as in the system's cache. When the power is cut, what
//! was not synced is lost page by page, in any combination; names are lost one by one. A
//! page that is being written may be written in part, by sectors.
//!
//! What happens by chance is drawn by the caller: a number below another one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

/// The disk as one process sees it. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    boot: u64,
    /// Files by their numbers: as they are seen, and as they are on the disk.
    files: Vec<[Vec<u8>; 2]>,
    /// Pages that a failed sync has not written, and that no later one writes: the file and
    /// the place.
    dropped: BTreeSet<(usize, usize)>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    faults: Faults,
    /// The calls so far that change something.
    changes: u64,
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// The process ends at this change: it is made in part, and none after it is made.
    pub(super) dies_at: Option<u64>,
    /// Syncs fail. What they should have written is not dirty from then on.
    pub(super) fails_syncs: bool,
    /// Syncs succeed and write nothing.
    pub(super) lies: bool,
    /// The maximum size of all files, in bytes.
    pub(super) capacity: Option<usize>,
    /// Writes write at most so many bytes.
    pub(super) write_max: Option<usize>,
    /// No file is made or changed.
    pub(super) is_read_only: bool,
}

impl SimulatedDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Has the process end during a later change of the disk.
    pub fn end_in(&self, changes: u64) {
        let mut state = self.state();
        state.faults.dies_at = Some(state.changes + changes);
    }

    /// Returns whether the process has ended during a change.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let state = self.state();
        let dies_at = state.faults.dies_at;
        dies_at.is_some_and(|dies_at| state.changes > dies_at)
    }

    /// Has all syncs from now on fail.
    pub fn fail_syncs(&self) {
        self.state().faults.fails_syncs = true;
    }

    /// Sets the maximum size of all files, in bytes.
    pub fn fill_at(&self, bytes: usize) {
        self.state().faults.capacity = Some(bytes);
    }

    pub(super) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    pub(super) fn changes(&self) -> u64 {
        self.state().changes
    }

    /// The process ends, and the next one finds what this one has written.
    #[must_use]
    pub fn killed(&self) -> SimulatedDisk {
        let mut next = self.state();
        let state = State {
            boot: next.boot,
            files: std::mem::take(&mut next.files),
            dropped: std::mem::take(&mut next.dropped),
            names: std::mem::take(&mut next.names),
            durable_names: std::mem::take(&mut next.durable_names),
            faults: Faults::default(),
            changes: 0,
        };
        SimulatedDisk(Arc::new(Mutex::new(state)))
    }

    /// The machine ends, and the next start finds what was on the disk, and some of the rest.
    #[must_use]
    pub fn power_cut(&self, draw: &mut dyn FnMut(usize) -> usize) -> SimulatedDisk {
        let next = self.killed();
        let mut state = next.state();
        state.boot += 1;
        let dropped = std::mem::take(&mut state.dropped);
        for (number, [seen, durable]) in state.files.iter_mut().enumerate() {
            let is_dropped = |page| dropped.contains(&(number, page));
            *durable = surviving(seen, durable, draw, is_dropped);
            seen.clone_from(durable);
        }
        let State {
            names,
            durable_names,
            ..
        } = &mut *state;
        let all: Vec<String> = names.keys().chain(durable_names.keys()).cloned().collect();
        for name in all {
            match names.get(&name) {
                _ if draw(2) == 0 => {}
                Some(file) => _ = durable_names.insert(name, *file),
                None => _ = durable_names.remove(&name),
            }
        }
        names.clone_from(durable_names);
        drop(state);
        next
    }

    /// Returns a copy that is a disk of its own, as after the end of the process, or of the
    /// machine with everything on the disk.
    pub(super) fn copy(&self, is_same_start: bool) -> SimulatedDisk {
        let state = self.state();
        let copy = State {
            boot: state.boot + u64::from(!is_same_start),
            files: state.files.clone(),
            dropped: state.dropped.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            ..State::default()
        };
        SimulatedDisk(Arc::new(Mutex::new(copy)))
    }

    /// Returns a disk that has these files since before the machine was started for this
    /// time.
    #[must_use]
    pub fn with_files(files: BTreeMap<String, Vec<u8>>, boot: u64) -> SimulatedDisk {
        let mut state = State {
            boot,
            ..State::default()
        };
        for (number, (name, content)) in files.into_iter().enumerate() {
            state.files.push([content.clone(), content]);
            state.names.insert(name, number);
        }
        state.durable_names.clone_from(&state.names);
        SimulatedDisk(Arc::new(Mutex::new(state)))
    }

    /// Returns all files as they are seen.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let names = state.names.iter();
        names
            .map(|(name, file)| (name.clone(), state.files[*file][0].clone()))
            .collect()
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[name];
        change(&mut state.files[file][0]);
        state.files[file][1] = state.files[file][0].clone();
    }

    /// Begins a call that changes something.
    fn begin(&self) -> io::Result<(MutexGuard<'_, State>, bool)> {
        let mut state = self.state();
        if state.faults.is_read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        let at = state.changes;
        state.changes += 1;
        match state.faults.dies_at {
            Some(dies_at) if at > dies_at => Err(io::Error::other("the process has ended")),
            dies_at => Ok((state, dies_at == Some(at))),
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the process ends")
}

/// Returns what is on the disk after a power cut.
fn surviving(
    seen: &[u8],
    durable: &[u8],
    draw: &mut dyn FnMut(usize) -> usize,
    is_dropped: impl Fn(usize) -> bool,
) -> Vec<u8> {
    let len = if draw(2) == 0 {
        seen.len()
    } else {
        durable.len()
    };
    let byte = |bytes: &[u8], at| bytes.get(at).copied().unwrap_or(0);
    let mut out = Vec::with_capacity(len);
    for page in (0..len).step_by(PAGE_BYTES) {
        // Up to this place the page is new.
        let new_until = match draw(4) {
            0 => page + SECTOR_BYTES * draw(PAGE_BYTES / SECTOR_BYTES),
            1 => page + PAGE_BYTES,
            _ if draw(2) == 0 => page + PAGE_BYTES,
            _ => page,
        };
        let new_until = if is_dropped(page) { page } else { new_until };
        for at in page..len.min(page + PAGE_BYTES) {
            out.push(byte(if at < new_until { seen } else { durable }, at));
        }
    }
    out
}

#[derive(Debug)]
pub(crate) struct SimulatedFile {
    disk: SimulatedDisk,
    number: usize,
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        let number = self.state().names.get(name).copied();
        let number = number.ok_or(io::Error::from(ErrorKind::NotFound))?;
        let disk = self.clone();
        Ok(SimulatedFile { disk, number })
    }

    fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        let (mut state, dies) = self.begin()?;
        let number = state.files.len();
        state.files.push(Default::default());
        state.names.insert(name.into(), number);
        let disk = self.clone();
        if dies {
            Err(ended())
        } else {
            Ok(SimulatedFile { disk, number })
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut state, dies) = self.begin()?;
        let file = state
            .names
            .remove(from)
            .ok_or(io::Error::from(ErrorKind::NotFound))?;
        state.names.insert(to.into(), file);
        if dies { Err(ended()) } else { Ok(()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (mut state, dies) = self.begin()?;
        state
            .names
            .remove(name)
            .ok_or(io::Error::from(ErrorKind::NotFound))?;
        if dies { Err(ended()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, dies) = self.begin()?;
        if dies {
            return Err(ended());
        }
        if state.faults.fails_syncs {
            return Err(io::Error::other("a sync fails"));
        }
        if !state.faults.lies {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }

    fn boot(&self) -> Option<String> {
        Some(format!("boot {}", self.state().boot))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("journal").join(name)
    }
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.number][0].len() as u64)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let seen = &state.files[self.number][0];
        let some = &seen[seen.len().min(usize::try_from(at).unwrap())..];
        let len = some.len().min(into.len());
        into[..len].copy_from_slice(&some[..len]);
        Ok(len)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let (mut state, dies) = self.disk.begin()?;
        let at = usize::try_from(at).unwrap();
        let mut len = bytes
            .len()
            .min(state.faults.write_max.unwrap_or(usize::MAX));
        if dies {
            // Somewhere in the middle, another place each time.
            len = usize::try_from(state.changes).unwrap() * 7919 % (len + 1);
        }
        let used: usize = state.files.iter().map(|[seen, _]| seen.len()).sum();
        let grows = (at + len).saturating_sub(state.files[self.number][0].len());
        let left = state
            .faults
            .capacity
            .map_or(usize::MAX, |max| max.saturating_sub(used));
        if grows > left {
            len = len.saturating_sub(grows - left);
        }
        let seen = &mut state.files[self.number][0];
        let end = seen.len().max(at + len);
        seen.resize(end, 0);
        seen[at..at + len].copy_from_slice(&bytes[..len]);
        let pages = at - at % PAGE_BYTES..at + len;
        for page in pages.step_by(PAGE_BYTES) {
            state.dropped.remove(&(self.number, page));
        }
        match len {
            _ if dies => Err(ended()),
            0 => Err(ErrorKind::StorageFull.into()),
            len => Ok(len),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut state, dies) = self.disk.begin()?;
        state.files[self.number][0].resize(usize::try_from(len).unwrap(), 0);
        if dies { Err(ended()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, dies) = self.disk.begin()?;
        if dies {
            return Err(ended());
        }
        let State {
            files,
            dropped,
            faults,
            ..
        } = &mut *state;
        let [seen, durable] = &mut files[self.number];
        let (seen, number) = (&*seen, self.number);
        let pages = (0..seen.len()).step_by(PAGE_BYTES);
        let page_of = |bytes: &[u8], page: usize| {
            let end = bytes.len().min(page + PAGE_BYTES);
            bytes.get(page..end).unwrap_or_default().to_vec()
        };
        if faults.fails_syncs {
            dropped.extend(
                pages
                    .filter(|page| page_of(seen, *page) != page_of(durable, *page))
                    .map(|page| (number, page)),
            );
            return Err(io::Error::other("a sync fails"));
        }
        if !faults.lies {
            durable.resize(seen.len(), 0);
            for page in pages.filter(|page| !dropped.contains(&(number, *page))) {
                let end = seen.len().min(page + PAGE_BYTES);
                durable[page..end].copy_from_slice(&seen[page..end]);
            }
        }
        Ok(())
    }
}
