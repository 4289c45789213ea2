//! The directory of a journal is refused and left as it is, or opened and whole, whatever its
//! files contain: what is published then is there after the end of the process, with all that
//! was there before.
//!
//! The input is a byte of flags and the files: each a name, LF, a length of two bytes, and the
//! content.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use pushwheel::internals::journal::set_checksums;
use pushwheel::internals::{Clock, SimulatedDisk, SteppedJournal};
use pushwheel::{
    ChannelManager, ChannelOptions, Event, EventId, History, JournalError, JournalOptions,
    JournalSync, LagPolicy, PublishError, Target,
};

use super::input::Input;

const FILES_MAX: usize = 8;

/// What the wall clock shows: 2026-12-01.
const WALL_MS: u64 = 1_796_083_200_000;

/// The checksums of segments are set right.
const IS_SUMMED: u8 = 1;
/// The machine was started again.
const IS_OTHER_START: u8 = 2;
const SYNCS_ALWAYS: u8 = 4;

pub fn check(input: &[u8]) {
    let mut input = Input(input);
    let flags = input.byte();
    let files = files(&mut input, flags);
    let disk = SimulatedDisk::with_files(files.clone(), u64::from(flags & IS_OTHER_START));
    let (manager, mut journal) = match open(&disk, flags) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(disk.contents(), files, "{error}, and something has changed");
            return;
        }
    };
    let outcome = Arc::new(Mutex::new(None));
    let told = outcome.clone();
    let channel = manager.get_or_create("more").expect("a good name");
    channel.publish_then([Event::message("more")], Target::All, move |result| {
        *told.lock().expect("no check has panicked") = Some(result);
    });
    while journal.step().is_some() {}
    let outcome = outcome.lock().expect("no check has panicked").take();
    match outcome.expect("the disk has no fault") {
        Ok(published) => assert_eq!(newest(&manager, "more"), published.id),
        Err(error) => assert_eq!(error, PublishError::Finished),
    }
    let before = story(&manager);
    drop((channel, manager, journal));
    // The process is killed, and the next one ends cleanly.
    let disk = disk.killed();
    let (manager, journal) = open(&disk, flags).expect("what was opened is whole");
    assert_eq!(story(&manager), before);
    journal.close();
    let (manager, _journal) = open(&disk, flags).expect("what was closed is whole");
    assert_eq!(story(&manager), before);
}

fn files(input: &mut Input<'_>, flags: u8) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    while !input.is_empty() && files.len() < FILES_MAX {
        let name = String::from_utf8_lossy(input.line()).into_owned();
        let length = usize::from(input.byte()) | usize::from(input.byte()) << 8;
        let (content, rest) = input.0.split_at(length.min(input.0.len()));
        input.0 = rest;
        let mut content = content.to_vec();
        if flags & IS_SUMMED != 0 {
            set_checksums(&mut content);
        }
        files.insert(name, content);
    }
    files
}

fn open(disk: &SimulatedDisk, flags: u8) -> Result<(ChannelManager, SteppedJournal), JournalError> {
    let builder = ChannelManager::builder().options_by_name(|name| {
        let options = ChannelOptions::new().history(History::events(3));
        match name.len() % 2 {
            0 => options.lag_policy(LagPolicy::Conflate),
            _ => options,
        }
    });
    let options = match flags & SYNCS_ALWAYS {
        0 => JournalOptions::new(),
        _ => JournalOptions::new().sync(JournalSync::Always),
    };
    let clock = |ms| Arc::new(AtomicU64::new(ms));
    let clock = Clock::manual_with_wall(clock(0), clock(WALL_MS));
    builder.open_journal_stepped(disk, &options, &clock, 1)
}

fn newest(manager: &ChannelManager, name: &str) -> Option<EventId> {
    manager.get(name)?.stats()?.newest
}

/// What each channel has.
fn story(manager: &ChannelManager) -> Vec<(String, Option<EventId>, usize)> {
    let stats = manager.stats().channel_stats.into_iter();
    let mut story: Vec<_> = stats
        .map(|channel| {
            (
                channel.name.to_string(),
                channel.newest,
                channel.history_events,
            )
        })
        .collect();
    story.sort_by(|a, b| a.0.cmp(&b.0));
    story
}
