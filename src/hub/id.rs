//! Event ids: `<epoch>-<sequence>`.
//!
//! The epoch names one life of the sequencer, so that an id from before a
//! restart is recognised as such and never mistaken for one of today's.

use std::fmt;
use std::sync::Arc;

/// The name of one life of the sequencer. Kept in place: ids are made by the
/// million, and none of them should touch what others touch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    text: [u8; 7],
    len: u8,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.as_str())
    }
}

impl Epoch {
    /// The epoch that `random` spells, in base 36: seven characters or fewer.
    pub(crate) fn from_random(random: u32) -> Epoch {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        // 36^7 is more than 2^32.
        let mut epoch = Epoch {
            text: [0; 7],
            len: 0,
        };
        let mut rest = random as usize;
        loop {
            epoch.text[usize::from(epoch.len)] = DIGITS[rest % 36];
            epoch.len += 1;
            rest /= 36;
            if rest == 0 {
                epoch.text[..usize::from(epoch.len)].reverse();
                return epoch;
            }
        }
    }

    /// The epoch that `text` names, if one can be named so.
    pub(crate) fn from_text(text: &str) -> Option<Epoch> {
        let epoch = Epoch::from_random(u32::from_str_radix(text, 36).ok()?);
        // A number has other spellings, which are no epochs.
        (epoch.as_str() == text).then_some(epoch)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.len)]).expect("digits are ASCII")
    }
}

/// The id of a published event, as clients see it and send it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId(Repr);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Repr {
    Ours(Epoch, u64),
    Own(Arc<str>),
}

impl EventId {
    pub(crate) fn new(epoch: Epoch, sequence: u64) -> EventId {
        EventId(Repr::Ours(epoch, sequence))
    }

    pub(crate) fn own(id: Arc<str>) -> EventId {
        EventId(Repr::Own(id))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Ours(epoch, sequence) => write!(f, "{}-{sequence}", epoch.as_str()),
            Repr::Own(id) => f.write_str(id),
        }
    }
}

/// What an id that a client sent turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Of this epoch.
    Ours(u64),
    /// Of another one: the server was restarted since.
    Foreign,
    /// None of our making.
    Unknown,
}

/// Reads an id strictly: exactly what [`EventId`] prints, nothing else.
pub(crate) fn parse(text: &str, epoch: &Epoch) -> Parsed {
    let Some((prefix, digits)) = text.rsplit_once('-') else {
        return Parsed::Unknown;
    };
    let is_number =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    match (Epoch::from_text(prefix), digits.parse()) {
        (Some(ours), Ok(sequence)) if is_number && ours == *epoch => Parsed::Ours(sequence),
        (Some(_), Ok(_)) if is_number => Parsed::Foreign,
        _ => Parsed::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        let epoch = Epoch::from_random(123_456_789);
        for sequence in [0, 1, 17, u64::MAX] {
            let id = EventId::new(epoch, sequence).to_string();
            assert_eq!(parse(&id, &epoch), Parsed::Ours(sequence));
        }
        assert_eq!(Epoch::from_random(u32::MAX).as_str(), "1z141z3");
        assert_eq!(Epoch::from_random(0).as_str(), "0");
        for random in [0, 35, 123_456_789, u32::MAX] {
            let epoch = Epoch::from_random(random);
            assert_eq!(Epoch::from_text(epoch.as_str()), Some(epoch));
        }
        for text in ["", "12345678", "message", "A", "01", "+1", "a-b", "\u{e9}"] {
            assert_eq!(Epoch::from_text(text), None);
        }
    }

    #[test]
    fn foreign_and_forged_ids_are_told_apart() {
        let epoch = Epoch::from_random(1);
        assert_eq!(parse("zzz-17", &epoch), Parsed::Foreign);
        for forged in [
            "",
            "-",
            "17",
            "1-",
            "-1",
            "1-017",
            "1-+7",
            "1- 7",
            "1-99999999999999999999",
            "a b-1",
            "1--1",
            "customer-17",
            "Order-17",
            "order.17-3",
        ] {
            assert_eq!(parse(forged, &epoch), Parsed::Unknown, "{forged:?}");
        }
    }
}
