//! The bytes of a segment: one file of the log.
//!
//! ```text
//! segment := magic, 16 · version, 4 · first, 8 · synced, 8 · flags, 1 · salt, 16
//!            · sized identity · sized boot · CRC-32, 4
//!            · frame* · end?
//! frame   := length of what follows, 4 · first, 8 · width, 4 · wall_ms, 8 · synced, 8
//!            · block · CRC-32, 4
//! end     := 0xffff_ffff, 4 · number, 8 · CRC-32, 4
//! ```
//!
//! Numbers are little-endian, a size is one byte. `first` is the number of the first event,
//! `width` how many numbers the block takes, and `synced` the number through which the log
//! was on the disk when the frame was written. Zeros may follow the last frame: room that
//! was written ahead. An `end` says that the log was closed, and the number that is next.
//! The sums of frames and ends begin with the salt, which is random: no event has the bytes
//! of a whole frame, and nothing that the disk had before is taken for one.
//!
//! By `synced` a frame tells what may be missing in front of it. After the machine has died,
//! what was not synced is missing in any combination; anything else that is missing is
//! damage.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use super::bytes::Input;
use super::disk::{DiskFile, ReadFrom};

pub(super) const MAGIC: &[u8; 16] = b"pushwheel log\n\x1a\n";

/// The format that is written and read.
pub(super) const VERSION: u32 = 1;

/// A header is in the first sector of its file, so it is there as a whole or not at all.
const HEADER_BYTES_MAX: usize = 512;

/// Bytes of a frame besides its block and the length in front.
const AROUND_BYTES: usize = 8 + 4 + 8 + 8 + SUM_BYTES;

const LENGTH_BYTES: usize = 4;
const SUM_BYTES: usize = 4;

/// The length that marks an end.
const END: u32 = u32::MAX;
const END_BYTES: usize = LENGTH_BYTES + 8 + SUM_BYTES;

/// The largest block, in bytes.
pub(crate) const BLOCK_BYTES_MAX: usize = 1 << 30;

/// Every acknowledged block was on the disk.
const SYNCS_ALWAYS: u8 = 1;
/// Numbers before `first` may have been given, and are lost.
const FOLLOWS_LOSS: u8 = 2;

/// What the sums of a segment's frames begin with.
pub(super) type Salt = [u8; 16];

/// What a segment begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) first: u64,
    pub(super) synced: u64,
    pub(super) syncs_always: bool,
    pub(super) follows_loss: bool,
    pub(super) salt: Salt,
    /// What the ids of events are made from.
    pub(super) identity: Vec<u8>,
    /// The machine's start in which it was made; empty if the system does not say.
    pub(super) boot: String,
}

/// What a file has in the place of a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Whole(Header, u64 /* where it ends */),
    /// Nothing, zeros, or a part: it was not written before the process or machine died.
    Incomplete,
    Damaged(&'static str),
    Newer {
        version: u32,
    },
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.syncs_always, SYNCS_ALWAYS) | flag(self.follows_loss, FOLLOWS_LOSS);
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.synced.to_le_bytes());
        out.push(flags);
        out.extend_from_slice(&self.salt);
        for sized in [&*self.identity, self.boot.as_bytes()] {
            out.push(u8::try_from(sized.len()).expect("the store has checked it"));
            out.extend_from_slice(sized);
        }
        debug_assert!(
            out.len() + SUM_BYTES <= HEADER_BYTES_MAX,
            "it fits a sector"
        );
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads what a file begins with.
    pub(super) fn read(file: &impl DiskFile) -> io::Result<Head> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX);
        let reader = ReadFrom { file, at: 0 };
        reader
            .take(HEADER_BYTES_MAX as u64)
            .read_to_end(&mut bytes)?;
        let is_absent = bytes.iter().all(|byte| *byte == 0);
        let head = if is_absent {
            None
        } else {
            Header::decode(&bytes)
        };
        Ok(head.unwrap_or(Head::Incomplete))
    }

    /// Returns nothing if there are not enough bytes.
    fn decode(bytes: &[u8]) -> Option<Head> {
        let mut input = Input(bytes);
        let magic: [u8; 16] = input.array().ok()?;
        let version = u32::from_le_bytes(input.array().ok()?);
        match version {
            _ if magic != *MAGIC => return Some(Head::Damaged("it is not a log of pushwheel")),
            0 => return Some(Head::Damaged("no release has written this version")),
            VERSION => {}
            _ => return Some(Head::Newer { version }),
        }
        let first = u64::from_le_bytes(input.array().ok()?);
        let synced = u64::from_le_bytes(input.array().ok()?);
        let flags = input.byte().ok()?;
        let salt = input.array().ok()?;
        let mut sized = || {
            let len = usize::from(input.byte().ok()?);
            input.some(len).ok()
        };
        let (identity, boot) = (sized()?.to_vec(), sized()?.to_vec());
        let len = bytes.len() - input.len();
        let is_whole = input.array().ok()? == crc32fast::hash(&bytes[..len]).to_le_bytes();
        let header = Header {
            first,
            synced,
            syncs_always: flags & SYNCS_ALWAYS != 0,
            follows_loss: flags & FOLLOWS_LOSS != 0,
            salt,
            identity,
            boot: String::from_utf8(boot).unwrap_or_default(),
        };
        let has_place = synced < first && first < NUMBER_MAX;
        Some(match (is_whole, has_place) {
            (true, true) => Head::Whole(header, (len + SUM_BYTES) as u64),
            (true, false) => Head::Damaged("no log has such numbers"),
            (false, _) => Head::Damaged("the checksum of the header does not match"),
        })
    }
}

/// Returns the checksum of a frame.
fn sum_of(salt: &Salt, bytes: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = crc32fast::Hasher::new();
    sum.update(salt);
    sum.update(bytes);
    sum.finalize().to_le_bytes()
}

/// A block with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The number of its first event.
    pub(crate) first: u64,
    /// How many numbers it takes.
    pub(crate) width: u32,
    /// What the wall clock showed when it was written, in milliseconds since 1970.
    pub(crate) wall_ms: u64,
    pub(crate) block: Vec<u8>,
}

impl Stored {
    /// Returns the number of its last event.
    pub(crate) fn last(&self) -> u64 {
        self.first + u64::from(self.width) - 1
    }
}

/// Returns the bytes of a frame that a block of so many bytes makes.
pub(super) fn frame_bytes(block: &[u8]) -> u64 {
    (LENGTH_BYTES + AROUND_BYTES + block.len()) as u64
}

/// Appends a frame.
pub(super) fn put_frame(
    out: &mut Vec<u8>,
    salt: &Salt,
    [first, wall_ms, synced]: [u64; 3],
    width: u32,
    block: &[u8],
) {
    let from = out.len();
    let length = u32::try_from(AROUND_BYTES + block.len()).expect("the store has checked it");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&width.to_le_bytes());
    out.extend_from_slice(&wall_ms.to_le_bytes());
    out.extend_from_slice(&synced.to_le_bytes());
    out.extend_from_slice(block);
    let sum = sum_of(salt, &out[from..]);
    out.extend_from_slice(&sum);
}

/// Returns the mark of a log that was closed before `number` was given.
pub(super) fn end_mark(salt: &Salt, number: u64) -> Vec<u8> {
    let mut out = END.to_le_bytes().to_vec();
    out.extend_from_slice(&number.to_le_bytes());
    let sum = sum_of(salt, &out);
    out.extend_from_slice(&sum);
    out
}

/// What is at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Frame {
        stored: Stored,
        synced: u64,
    },
    /// The log was closed before this number was given.
    Closed {
        number: u64,
    },
    /// Nothing but zeros, if anything.
    Nothing,
    /// Something that is not whole.
    Torn(&'static str),
}

/// The frames of a segment, one after the other.
#[derive(Debug)]
pub(super) struct Frames<F> {
    reader: BufReader<ReadFrom<Arc<F>>>,
    salt: Salt,
    at: u64,
    len: u64,
}

const READ_BYTES: usize = 256 * 1024;

impl<F: DiskFile> Frames<F> {
    /// Begins at a place that follows a header or a frame.
    pub(super) fn new(file: F, at: u64, salt: Salt) -> io::Result<Frames<F>> {
        let len = file.len()?;
        let file = Arc::new(file);
        let reader = BufReader::with_capacity(READ_BYTES, ReadFrom { file, at });
        Ok(Frames {
            reader,
            salt,
            at,
            len,
        })
    }

    /// Returns the place of what is read next, in bytes from the file's beginning.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Returns what is next. Only a frame or an end leads on.
    pub(super) fn next(&mut self) -> io::Result<Found> {
        let left = self.len - self.at;
        let Some(after_length) = left.checked_sub(LENGTH_BYTES as u64) else {
            return self.rest(Found::Torn("a frame is incomplete"));
        };
        let mut length = [0; LENGTH_BYTES];
        self.reader.read_exact(&mut length)?;
        let bytes = match u32::from_le_bytes(length) {
            0 => return self.rest(Found::Torn("zeros are in the place of a frame")),
            END => END_BYTES - LENGTH_BYTES,
            length => length as usize,
        };
        if bytes as u64 > after_length {
            return Ok(Found::Torn("a frame is incomplete"));
        }
        let mut frame = vec![0; LENGTH_BYTES + bytes];
        frame[..LENGTH_BYTES].copy_from_slice(&length);
        self.reader.read_exact(&mut frame[LENGTH_BYTES..])?;
        let Some(found) = whole(&frame, &self.salt) else {
            return Ok(Found::Torn("the checksum of a frame does not match"));
        };
        self.at += frame.len() as u64;
        Ok(found)
    }

    /// Returns nothing if only zeros are left, or `torn`.
    fn rest(&mut self, torn: Found) -> io::Result<Found> {
        let mut some = vec![0; READ_BYTES];
        loop {
            match self.reader.read(&mut some)? {
                0 => return Ok(Found::Nothing),
                read if some[..read].iter().all(|byte| *byte == 0) => {}
                _ => return Ok(torn),
            }
        }
    }
}

/// Returns the frame or end that `bytes` begin with, if it is whole.
fn whole(bytes: &[u8], salt: &Salt) -> Option<Found> {
    let mut input = Input(bytes);
    let length = u32::from_le_bytes(input.array().ok()?);
    let (number, body) = (u64::from_le_bytes(input.array().ok()?), input.0);
    let is_summed = |len: usize| {
        let (sum, summed) = (bytes.get(len - SUM_BYTES..len)?, &bytes[..len - SUM_BYTES]);
        (*sum == sum_of(salt, summed)).then_some(())
    };
    if length == END {
        is_summed(END_BYTES)?;
        return Some(Found::Closed { number });
    }
    let block_bytes = (length as usize).checked_sub(AROUND_BYTES)?;
    let mut input = Input(body);
    let width = u32::from_le_bytes(input.array().ok()?);
    let wall_ms = u64::from_le_bytes(input.array().ok()?);
    let synced = u64::from_le_bytes(input.array().ok()?);
    let block = input.some(block_bytes).ok()?;
    let is_plausible = width > 0 && synced < number && number < NUMBER_MAX;
    is_plausible.then(|| is_summed(LENGTH_BYTES + length as usize))??;
    let block = block.to_vec();
    let stored = Stored {
        first: number,
        width,
        wall_ms,
        block,
    };
    Some(Found::Frame { stored, synced })
}

/// No number is as high: there is always a next one.
pub(super) const NUMBER_MAX: u64 = u64::MAX >> 1;

/// Returns the highest `synced` that whole frames from `number` on state, wherever they are
/// in `bytes`, if there is one.
pub(super) fn synced_behind(bytes: &[u8], salt: &Salt, number: u64) -> Option<u64> {
    let (mut at, mut highest) = (0, None);
    while at + END_BYTES <= bytes.len() {
        // The sum of a frame is computed only where the rest looks like one.
        let found = plausible(&bytes[at..], number).then(|| whole(&bytes[at..], salt));
        at += match found.flatten() {
            Some(Found::Frame { stored, synced }) => {
                highest = highest.max(Some(synced));
                LENGTH_BYTES + AROUND_BYTES + stored.block.len()
            }
            Some(Found::Closed { number }) => {
                highest = highest.max(Some(number));
                END_BYTES
            }
            _ => 1,
        };
    }
    highest
}

/// Sets the checksums in the bytes of a segment, as far as its lengths lead.
#[cfg(feature = "internals")]
pub fn set_checksums(bytes: &mut [u8]) {
    const SALT_AT: usize = 16 + 4 + 8 + 8 + 1;
    let set = |salt: &[u8], bytes: &mut [u8]| {
        let (content, sum) = bytes.split_at_mut(bytes.len() - SUM_BYTES);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(salt);
        hasher.update(content);
        sum.copy_from_slice(&hasher.finalize().to_le_bytes());
    };
    let mut at = SALT_AT + 16;
    for _ in 0..2 {
        let Some(size) = bytes.get(at) else { return };
        at += 1 + usize::from(*size);
    }
    at += SUM_BYTES;
    let Some(header) = bytes.get_mut(..at) else {
        return;
    };
    set(&[], header);
    let salt = header[SALT_AT..SALT_AT + 16].to_vec();
    while let Some(Ok(length)) = bytes.get(at..at + LENGTH_BYTES).map(<[u8; 4]>::try_from) {
        let len = match u32::from_le_bytes(length) {
            END => END_BYTES,
            length => LENGTH_BYTES + length as usize,
        };
        let Some(frame) = bytes.get_mut(at..at + len) else {
            return;
        };
        let block = LENGTH_BYTES + AROUND_BYTES - SUM_BYTES..len.saturating_sub(SUM_BYTES);
        if let Some(block) = frame.get_mut(block).filter(|block| block.len() > SUM_BYTES) {
            set(&[], block);
        }
        if len < LENGTH_BYTES + SUM_BYTES {
            return;
        }
        set(&salt, frame);
        at += len;
    }
}

/// How far behind a tear numbers are looked for.
const NUMBERS_BEHIND_MAX: u64 = 1 << 40;

fn plausible(bytes: &[u8], number: u64) -> bool {
    let first = Input(&bytes[LENGTH_BYTES..])
        .array()
        .map(u64::from_le_bytes);
    first.is_ok_and(|first| (number..number + NUMBERS_BEHIND_MAX).contains(&first))
}
