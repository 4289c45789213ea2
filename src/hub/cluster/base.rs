//! The base on which a node begins, or begins again: the newest snapshot, or the beginning of
//! the log.

use std::io::{self, Read, Write};

use super::shared::CALL_TIMEOUT;
use crate::cluster::branches::{begins_after, is_lost};
use crate::cluster::{
    BrokerError, LogReader, SnapshotName, StoredSnapshot, WRITERS_MAX, Welcome, WriterEnd,
};
use crate::hub::clock::Clock;
use crate::hub::for_all::NAME_OF_ALL;
use crate::hub::heads::Heads;
use crate::hub::journal::identity_of;
use crate::hub::options::OptionsByName;
use crate::hub::saved::{Origin, Restored};
use crate::hub::state::{Settings, State};
use crate::journal::follower::Follower;

/// The channels at some place of the log.
pub(super) struct Base {
    pub(super) state: State,
    /// The log goes on behind this number.
    pub(super) at: u64,
    /// Everything up to this number is in the state.
    pub(super) copied: u64,
    /// The newest block of each writer up to there, with its time.
    pub(super) ends: Vec<(WriterEnd, u64)>,
}

/// With what channels are made.
#[derive(Clone, Debug)]
pub(super) struct Making {
    pub(super) settings: Settings,
    pub(super) options_by_name: OptionsByName,
    pub(super) clock: Clock,
}

impl Base {
    /// Reads the base of a log. `None`: the log goes on behind what is not there any more, and
    /// a node has yet to make a snapshot.
    ///
    /// # Errors
    /// When the broker does not have it, or what it has is damaged.
    pub(super) fn read(
        session: &mut dyn LogReader,
        welcome: &Welcome,
        making: &Making,
    ) -> Result<Option<Base>, BrokerError> {
        let snapshot = session.snapshot(CALL_TIMEOUT)?;
        let before = begins_after(welcome);
        // The log may have begun again, behind a snapshot that a node has put there too late.
        let is_of_log =
            |number| (before..welcome.next).contains(&number) && !is_lost(&welcome.terms, number);
        if let Some(snapshot) = snapshot.filter(|snapshot| is_of_log(snapshot.name.at)) {
            let base = Base::restore(session, snapshot, welcome, making)?;
            // It was copied while blocks were applied, which may be lost by now.
            if is_of_log(base.state.sequence) {
                return Ok(Some(base));
            }
        }
        Ok((before == 0).then(|| Base::empty(0, making)))
    }

    /// Returns channels whose past is not known, for a log of which nothing older is left
    /// anywhere.
    pub(super) fn without_past(welcome: &Welcome, making: &Making) -> Base {
        let mut base = Base::empty(begins_after(welcome), making);
        base.state.unknown_through = base.at;
        base
    }

    /// Returns the follower of the log for it.
    pub(super) fn follower(&self) -> Follower {
        Follower::behind(self.at, self.copied)
    }

    fn empty(at: u64, making: &Making) -> Base {
        let mut state = State::new(making.settings);
        state.heads = Heads::new(at, making.settings.log_bytes_max);
        state.sequence = at;
        Base {
            state,
            at,
            copied: at,
            ends: Vec::new(),
        }
    }

    fn restore(
        session: &mut dyn LogReader,
        snapshot: StoredSnapshot,
        welcome: &Welcome,
        making: &Making,
    ) -> Result<Base, BrokerError> {
        let mut chunks = Chunks {
            session,
            name: snapshot.name,
            left: 0..snapshot.chunks,
            chunk: Vec::new(),
            read: 0,
            error: None,
        };
        let ends = read_ends(&mut chunks);
        let options = |name: &str| making.options_by_name.of(name);
        let for_all = options(NAME_OF_ALL).history;
        let restored = Restored::read(
            &mut chunks,
            &making.clock,
            making.settings,
            Origin::Cluster,
            for_all,
            options,
        );
        if let Some(error) = chunks.error {
            return Err(error);
        }
        let damaged = |what: String| BrokerError::Damaged {
            what: format!("its snapshot cannot be used: {what}"),
        };
        let restored = restored.map_err(|error| damaged(error.to_string()))?;
        let ends = ends.map_err(|error| damaged(error.to_string()))?;
        if identity_of(&restored.ids) != welcome.identity {
            return Err(damaged("it is of another log".to_owned()));
        }
        Ok(Base {
            state: restored.state,
            // The blocks of writers are of this place. Some more may have been applied before
            // the copy was begun.
            at: restored.at.min(snapshot.name.at),
            copied: restored.at,
            ends,
        })
    }
}

/// Writes what a snapshot has in front of the channels: the newest block of each writer, with
/// its time.
pub(super) fn write_ends(ends: &[(WriterEnd, u64)], to: &mut dyn Write) -> io::Result<()> {
    let mut numbers = vec![ends.len() as u64];
    for (end, wall_ms) in ends {
        numbers.extend([
            high(end.writer),
            low(end.writer),
            end.n,
            end.first,
            *wall_ms,
        ]);
    }
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    to.write_all(&bytes)
}

fn read_ends(from: &mut impl Read) -> io::Result<Vec<(WriterEnd, u64)>> {
    let mut number = || {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)
            .map(|()| u64::from_le_bytes(bytes))
    };
    let count = number()?;
    if count > WRITERS_MAX as u64 {
        return Err(io::Error::other("it has too many writers"));
    }
    let mut ends = Vec::new();
    for _ in 0..count {
        let writer = (u128::from(number()?) << 64) | u128::from(number()?);
        let (n, first) = (number()?, number()?);
        ends.push((WriterEnd { writer, n, first }, number()?));
    }
    Ok(ends)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the other half is written, too"
)]
fn low(writer: u128) -> u64 {
    writer as u64
}

fn high(writer: u128) -> u64 {
    low(writer >> 64)
}

/// The bytes of a snapshot, which are read chunk by chunk.
struct Chunks<'a> {
    session: &'a mut dyn LogReader,
    name: SnapshotName,
    left: std::ops::Range<u32>,
    chunk: Vec<u8>,
    read: usize,
    error: Option<BrokerError>,
}

impl Read for Chunks<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len()
            && let Some(index) = self.left.next()
        {
            let chunk = self
                .session
                .snapshot_chunk(self.name, index, CALL_TIMEOUT)
                .and_then(|chunk| {
                    chunk.ok_or_else(|| BrokerError::Unreachable {
                        why: "a later snapshot has taken the place of the one that was read"
                            .to_owned(),
                    })
                });
            match chunk {
                Ok(chunk) => (self.chunk, self.read) = (chunk, 0),
                Err(error) => {
                    self.error = Some(error);
                    return Err(io::Error::other("the broker has it no longer"));
                }
            }
        }
        let mut rest = &self.chunk[self.read..];
        let read = rest.read(to)?;
        self.read += read;
        Ok(read)
    }
}
