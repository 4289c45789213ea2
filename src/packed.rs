//! Compressed streams, compressed once for all. Pure.
//!
//! A compressed stream is `Content-Encoding: gzip`: a header of ten bytes,
//! then blocks of the deflate format (RFC 1951), none of them the last one.
//! What makes it possible to share the blocks is that none refers back to
//! another and each ends on a byte: so an event is compressed once, when it
//! is published, and its blocks go out to every client that takes gzip,
//! whatever came before. A client has no state of its own, and every event
//! can be read as soon as it is there.
//!
//! A stream ends with a last, empty block and the checksum and length of all
//! that it held. These are the one thing that each client has for itself: a
//! [`Sum`], 8 bytes. Checksums can be added up (zlib's `crc32_combine`), so it
//! grows with each batch by one multiplication, whatever the batch's size.

use std::cell::RefCell;

use miniz_oxide::MZFlush;
use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;

/// From 1, fast, to 9, small: events are compressed by the threads that publish,
/// while they wait.
const LEVEL: i32 = 3;

/// How a gzip stream begins (RFC 1952): deflate, no flags, no time, any
/// system.
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The checksum (CRC-32) and the length, modulo 2^32, of a run of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) crc: u32,
    pub(crate) len: u32,
}

impl Sum {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "gzip has the length modulo 2^32"
    )]
    pub(crate) fn of(bytes: &[u8]) -> Sum {
        Sum {
            crc: crc32fast::hash(bytes),
            len: bytes.len() as u32,
        }
    }

    /// The sum of this run and `next` behind it.
    pub(crate) fn then(self, next: Sum) -> Sum {
        Suffix::new(next).behind(self)
    }

    /// The end of a gzip stream with this sum: the last block, which
    /// is empty, and the trailer (RFC 1952 section 2.3.1).
    pub(crate) fn end(self) -> [u8; END_BYTES] {
        let mut end = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        end[5..9].copy_from_slice(&self.crc.to_le_bytes());
        end[9..].copy_from_slice(&self.len.to_le_bytes());
        end
    }
}

/// What a run of bytes does to the sum of any that stand before it: made once
/// and used for each client that is sent the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suffix {
    sum: Sum,
    /// x^(8 · length), modulo the polynomial.
    power: u32,
}

impl Suffix {
    pub(crate) fn new(sum: Sum) -> Suffix {
        let bytes = sum.len.to_le_bytes();
        let mut power = ONE;
        for (powers, byte) in POWERS.iter().zip(bytes) {
            if byte > 0 {
                power = multiplied(power, powers[usize::from(byte)]);
            }
        }
        Suffix { sum, power }
    }

    pub(crate) fn behind(&self, before: Sum) -> Sum {
        Sum {
            crc: multiplied(self.power, before.crc) ^ self.sum.crc,
            len: before.len.wrapping_add(self.sum.len),
        }
    }
}

/// The length of [`Sum::end`], in bytes.
const END_BYTES: usize = 13;

/// The polynomial of CRC-32, and 1, with the coefficient of x^0 in the highest
/// bit, as in all of these numbers.
const POLYNOMIAL: u32 = 0xedb8_8320;
const ONE: u32 = 1 << 31;

/// x^(8 · byte · 256^place), modulo the polynomial, by place and byte.
static POWERS: [[u32; 256]; 4] = powers();

const fn powers() -> [[u32; 256]; 4] {
    let mut powers = [[ONE; 256]; 4];
    let mut step = ONE >> 8;
    let mut place = 0;
    while place < 4 {
        let mut byte = 1;
        while byte < 256 {
            powers[place][byte] = multiplied(powers[place][byte - 1], step);
            byte += 1;
        }
        step = multiplied(powers[place][255], step);
        place += 1;
    }
    powers
}

/// The product of two polynomials, modulo the one of CRC-32.
const fn multiplied(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit > 0 {
        if a & bit > 0 {
            product ^= b;
        }
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit >>= 1;
    }
    product
}

/// The bytes that [`stored`] puts in front of up to 65,535 others.
pub(crate) const STORED_OVERHEAD_BYTES: usize = 5;

thread_local! {
    /// A compressor is some hundred kilobytes: a thread that publishes keeps
    /// its own.
    static COMPRESSOR: RefCell<Box<CompressorOxide>> = RefCell::new(Box::new(
        // A negative number of window bits means: no header, no sum.
        CompressorOxide::new(create_comp_flags_from_zip_params(LEVEL, -15, 0)),
    ));
}

/// Appends `bytes` as they are, in blocks that say so (RFC 1951 section
/// 3.2.4).
pub(crate) fn stored(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(usize::from(u16::MAX)) {
        out.extend_from_slice(&stored_head(chunk.len()));
        out.extend_from_slice(chunk);
    }
}

/// What comes in front of `len` bytes that are stored: not the last block,
/// stored, the length, and the length's complement.
///
/// # Panics
/// When a block cannot be that long.
pub(crate) fn stored_head(len: usize) -> [u8; STORED_OVERHEAD_BYTES] {
    let len = u16::try_from(len).expect("a stored block has at most 65,535 bytes");
    let [low, high] = len.to_le_bytes();
    [0, low, high, !low, !high]
}

/// Appends `bytes` in blocks, compressed if that makes them fewer.
pub(crate) fn deflated(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    // What does not fit in here is not smaller.
    out.resize(start + bytes.len(), 0);
    let result = COMPRESSOR.try_with(|compressor| {
        let mut compressor = compressor.borrow_mut();
        compressor.reset();
        deflate(&mut compressor, bytes, &mut out[start..], MZFlush::Sync)
    });
    // A flush that is all out has left room; then it ends on a byte. A thread
    // whose locals are gone has no compressor.
    let whole = result.ok().filter(|result| {
        result.bytes_consumed == bytes.len() && result.bytes_written < bytes.len()
    });
    out.truncate(start + whole.map_or(0, |result| result.bytes_written));
    if whole.is_none() {
        stored(bytes, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(blocks: &[u8]) -> Vec<u8> {
        // The stream has no end, so a last, empty block is put behind it.
        let whole = [blocks, &[1, 0, 0, 0xff, 0xff]].concat();
        miniz_oxide::inflate::decompress_to_vec(&whole).expect("these are blocks")
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        std::iter::repeat_with(|| random.u8(..)).take(len).collect()
    }

    #[test]
    fn blocks_may_follow_one_another_in_any_order() {
        let long = "data: the same thing again\n".repeat(5_000).into_bytes();
        let parts: [&[u8]; 4] = [b"", b"id: k3x-1\n", &long, &noise(100_000)];
        let mut packed = vec![Vec::new(); 4];
        for (part, blocks) in parts.iter().zip(&mut packed) {
            deflated(part, blocks);
        }
        for order in [[0, 1, 2, 3], [3, 2, 1, 2], [2, 2, 0, 1]] {
            let blocks = order.map(|part| packed[part].clone()).concat();
            let bytes = order.map(|part| parts[part]).concat();
            assert_eq!(unpacked(&blocks), bytes);
        }
        assert!(packed[2].len() < long.len() / 50);
    }

    #[test]
    fn sums_add_up_to_the_sum_of_the_whole() {
        let long = noise(70_001);
        let parts: [&[u8]; 6] = [
            b"",
            b"a",
            b"id: k3x-1\n",
            &noise(256),
            &long,
            &long[..65_536],
        ];
        for first in parts {
            for second in parts {
                let whole = [first, second].concat();
                let sum = Sum::of(first).then(Sum::of(second));
                assert_eq!(sum, Sum::of(&whole), "{} {}", first.len(), second.len());
            }
        }
        let sum = Sum::of(b"data: hi\n\n");
        let mut stream = Vec::new();
        stored(b"data: hi\n\n", &mut stream);
        stream.extend(sum.end());
        let (blocks, trailer) = stream.split_at(stream.len() - 8);
        let inflated = miniz_oxide::inflate::decompress_to_vec(blocks);
        assert_eq!(inflated.expect("there is a last block"), b"data: hi\n\n");
        assert_eq!(trailer[..4], sum.crc.to_le_bytes());
        assert_eq!(trailer[4..], 10_u32.to_le_bytes());
    }

    #[test]
    fn a_thread_may_compress_even_while_its_locals_are_destroyed() {
        use std::sync::mpsc;

        struct AtTheEnd(mpsc::Sender<Vec<u8>>);

        impl Drop for AtTheEnd {
            fn drop(&mut self) {
                let mut blocks = Vec::new();
                deflated(&[b'x'; 1_000], &mut blocks);
                self.0.send(blocks).unwrap();
            }
        }

        thread_local! {
            static AT_THE_END: RefCell<Option<AtTheEnd>> = const { RefCell::new(None) };
        }

        let (sender, blocks) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // What a thread has had first goes last.
            AT_THE_END.set(Some(AtTheEnd(sender)));
            deflated(b"before", &mut Vec::new());
        });
        thread.join().unwrap();
        assert_eq!(unpacked(&blocks.recv().unwrap()), [b'x'; 1_000]);
    }

    #[test]
    fn what_does_not_become_smaller_is_stored() {
        for bytes in [noise(10), noise(200_000), b"data: hi\n\n".to_vec()] {
            let mut blocks = Vec::new();
            deflated(&bytes, &mut blocks);
            let chunks = bytes.len().div_ceil(usize::from(u16::MAX));
            assert_eq!(blocks.len(), bytes.len() + chunks * STORED_OVERHEAD_BYTES);
            assert_eq!(unpacked(&blocks), bytes);
        }
    }
}
