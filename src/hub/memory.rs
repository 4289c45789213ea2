//! The memory of all logs together: how much they hold, and which of them lose their
//! oldest entries first when that is too much.
//!
//! Each change of a log is followed by [`settle`](Memory::settle) or
//! [`note_appended`](Memory::note_appended), which count it.

use super::lists::Lists;
use super::log::Log;

/// Finished channels with a history, in the order of their ends.
const FINISHED: u8 = 0;

/// Other channels with a history, in the order of their newest events.
const OPEN: u8 = 1;

/// What of a channel's log is counted in [`Memory`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    bytes: usize,
    evicted_keys: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Memory {
    bytes: usize,
    bytes_max: usize,
    /// The part of `bytes_max` that logs may hold.
    logs_max: usize,
    /// Named channels with a history.
    kept: Lists<2>,
    /// Events that were evicted because all logs together held too much.
    evicted: u64,
    /// Keys that were evicted, for that reason or by the bounds of their channel.
    evicted_keys: u64,
}

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Memory {
        Memory {
            bytes: 0,
            bytes_max,
            logs_max: bytes_max,
            kept: Lists::new(),
            evicted: 0,
            evicted_keys: 0,
        }
    }

    /// Bytes that all logs hold, those of private channels included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Returns how many bytes are too many.
    #[inline]
    pub(super) fn excess(&self) -> usize {
        self.bytes.saturating_sub(self.logs_max)
    }

    /// Counts the bytes of what is known of removed channels, for which logs make room.
    pub(super) fn count_heads(&mut self, bytes: usize) {
        self.logs_max = self.bytes_max.saturating_sub(bytes);
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn evicted_keys(&self) -> u64 {
        self.evicted_keys
    }

    pub(super) fn note_evicted(&mut self, events: usize) {
        self.evicted += events as u64;
    }

    /// Counts what a channel's log holds now. The cost does not grow with it.
    pub(super) fn settle(&mut self, slot: u32, log: &Log, counted: &mut Counted) {
        self.count(log, counted);
        if log.is_empty() {
            self.kept.remove(slot);
        }
    }

    /// Does the same after an append, which makes a named channel the one that was
    /// published to last.
    #[inline]
    pub(super) fn note_appended(
        &mut self,
        slot: u32,
        is_named: bool,
        log: &Log,
        counted: &mut Counted,
    ) {
        self.count(log, counted);
        match is_named && !log.is_empty() {
            true => self.kept.push(OPEN, slot),
            false => self.kept.remove(slot),
        }
    }

    /// Counts a log that has taken the place of another one. Keys that were evicted elsewhere
    /// are not counted.
    pub(super) fn note_replaced(&mut self, slot: u32, log: &Log, counted: &mut Counted) {
        counted.evicted_keys = log.keyed().evictions();
        self.note_appended(slot, true, log, counted);
    }

    #[inline]
    fn count(&mut self, log: &Log, counted: &mut Counted) {
        let now = Counted {
            bytes: log.bytes(),
            evicted_keys: log.keyed().evictions(),
        };
        let before = std::mem::replace(counted, now);
        self.bytes = self.bytes - before.bytes + now.bytes;
        self.evicted_keys += now.evicted_keys - before.evicted_keys;
    }

    /// Moves a channel that is finished to those that lose their history first.
    pub(super) fn note_finished(&mut self, slot: u32) {
        if self.kept.of(slot).is_some() {
            self.kept.push(FINISHED, slot);
        }
    }

    /// Evicts nothing of a channel any longer, because it is being removed.
    pub(super) fn exempt(&mut self, slot: u32) {
        self.kept.remove(slot);
    }

    /// Counts a channel that is removed no longer.
    pub(super) fn forget(&mut self, counted: Counted) {
        self.bytes -= counted.bytes;
    }

    /// Returns the slots of channels with a history, in the order in which they lose
    /// it: of each list at most `looks_max`. Clients of a finished channel are owed
    /// all of it, so their backlog goes last.
    pub(super) fn in_order(&self, is_backlog: bool, looks_max: usize) -> impl Iterator<Item = u32> {
        let [first, second] = match is_backlog {
            false => [FINISHED, OPEN],
            true => [OPEN, FINISHED],
        };
        let of = move |list| self.kept.oldest_first(list).take(looks_max);
        of(first).chain(of(second))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0 && self.in_order(false, 1).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::hub::dropped::Dropped;
    use crate::hub::entry::Entry;

    fn append(log: &mut Log) {
        let entry = Entry {
            sequence: log.head() + 1,
            at_ms: 0,
            frame: Frame::raw(b"data: x\n\n"),
            attributes: None,
        };
        log.append(entry, &mut Dropped::new());
    }

    #[test]
    fn finished_channels_come_first_then_the_least_recently_published() {
        let mut memory = Memory::new(100);
        let mut logs = [(); 3].map(|()| (Log::new(0), Counted::default()));
        for slot in [0, 1, 2, 0] {
            let (log, counted) = &mut logs[slot as usize];
            append(log);
            memory.note_appended(slot, true, log, counted);
        }
        let slots =
            |memory: &Memory, is_backlog| -> Vec<u32> { memory.in_order(is_backlog, 64).collect() };
        assert_eq!(slots(&memory, false), [1, 2, 0]);
        memory.note_finished(2);
        assert_eq!(slots(&memory, false), [2, 1, 0]);
        assert_eq!(slots(&memory, true), [1, 0, 2]);
        let bytes: usize = logs.iter().map(|(log, _)| log.bytes()).sum();
        assert_eq!((memory.bytes(), memory.excess()), (bytes, bytes - 100));
        memory.exempt(2);
        for (slot, (log, counted)) in (0..).zip(&mut logs) {
            let mut dropped = Dropped::new();
            log.evict(u64::MAX, usize::MAX, &mut dropped);
            memory.settle(slot, log, counted);
        }
        assert!(memory.is_empty());
    }

    #[test]
    fn private_channels_are_counted_but_lose_nothing() {
        let mut memory = Memory::new(100);
        let (mut log, mut counted) = (Log::new(0), Counted::default());
        append(&mut log);
        memory.note_appended(0, false, &log, &mut counted);
        assert_eq!(memory.bytes(), log.bytes());
        assert_eq!(memory.in_order(false, 64).next(), None);
        memory.forget(counted);
        assert!(memory.is_empty());
    }
}
