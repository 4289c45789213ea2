//! Numbers, bytes and texts as they are in blocks and in snapshots.
//!
//! A number is a varint (LEB128): seven bits a byte, the lowest first. Each number has one
//! spelling. Bytes and texts have their length in front.
//!
//! The reader believes nothing: it compares each length with what is left before it uses it.

use std::fmt;

/// What is wrong with bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged(pub(crate) &'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Returns an error unless something is so.
pub(crate) fn ensure(is_so: bool, what: &'static str) -> Result<(), Damaged> {
    if is_so { Ok(()) } else { Err(Damaged(what)) }
}

/// Appends a number in 1 to 10 bytes.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u64) {
    let mut rest = number;
    while rest > 0x7f {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// Appends bytes and their length.
pub(crate) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a text and its length.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_sized(out, text.as_bytes());
}

/// The maximum length of a number, in bytes.
pub(crate) const NUMBER_BYTES_MAX: usize = 10;

/// Bytes that are read from the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    /// Returns the number of bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns an error if something is left.
    pub(crate) fn end(&self) -> Result<(), Damaged> {
        ensure(self.0.is_empty(), "data follows the end")
    }

    pub(crate) fn some(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (some, rest) = self.0.split_at_checked(len).ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(some)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (array, rest) = self.0.split_first_chunk().ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Damaged> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Damaged> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged("a flag is neither set nor clear")),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            ensure(bits << shift >> shift == bits, "a number is too large")?;
            number |= bits << shift;
            if byte & 0x80 == 0 {
                ensure(
                    byte != 0 || shift == 0,
                    "a number is longer than it has to be",
                )?;
                return Ok(number);
            }
        }
        Err(Damaged("a number does not end"))
    }

    /// Returns how many things follow that take `bytes_min` bytes each, or more.
    pub(crate) fn count(&mut self, bytes_min: usize) -> Result<usize, Damaged> {
        let count = usize::try_from(self.number()?).map_err(|_| TOO_SHORT)?;
        match count <= self.len() / bytes_min {
            true => Ok(count),
            false => Err(TOO_SHORT),
        }
    }

    pub(crate) fn sized(&mut self) -> Result<&'a [u8], Damaged> {
        let len = self.count(1)?;
        self.some(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Damaged> {
        str::from_utf8(self.sized()?).map_err(|_| Damaged("a text is not UTF-8"))
    }
}

const TOO_SHORT: Damaged = Damaged("it ends too soon");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, number);
        out
    }

    #[test]
    fn a_number_has_one_spelling() {
        for (number, bytes) in [
            (0, &[0][..]),
            (0x7f, &[0x7f]),
            (0x80, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            assert_eq!(bytes_of(number), bytes);
            assert!(bytes.len() <= NUMBER_BYTES_MAX);
        }
        for bytes in [
            &[0x80, 0][..],
            &[0x80],
            &[],
            &[255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
            &[128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 1],
        ] {
            assert!(Input(bytes).number().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(Input(&[3, b'a', b'b']).sized(), Err(TOO_SHORT));
        let mut huge = bytes_of(u64::MAX);
        huge.push(b'a');
        assert_eq!(Input(&huge).text(), Err(TOO_SHORT));
        assert_eq!(Input(&[2, 0, 0, 0]).count(2), Err(TOO_SHORT));
        assert_eq!(
            Input(&[1, 0xff]).text(),
            Err(Damaged("a text is not UTF-8"))
        );
        assert!(Input(&[2]).flag().is_err());
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(number: u64, shift in 0..64_u32, bytes: Vec<u8>, text: String) {
            let number = number >> shift;
            let mut out = bytes_of(number);
            put_sized(&mut out, &bytes);
            put_text(&mut out, &text);
            let mut input = Input(&out);
            prop_assert_eq!(input.number(), Ok(number));
            prop_assert_eq!(input.sized(), Ok(&*bytes));
            prop_assert_eq!(input.text(), Ok(&*text));
            prop_assert_eq!(input.end(), Ok(()));
        }
    }
}
