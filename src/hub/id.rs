//! Event ids: `<epoch>-<sequence>`.
//!
//! The epoch names one life of the sequencer, so that an id from before a
//! restart is recognised as such and never mistaken for one of today's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::event::{EventError, check_id};

/// Digits of an epoch in base 36: a random number and a check digit. By the check digit
/// an epoch differs from the text that a publisher puts in front of a number, such as
/// `order-17`.
const EPOCH_DIGITS: usize = 7;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The name of one life of the sequencer. Kept in place: ids are made by the
/// million, and none of them should touch what others touch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Epoch {
    text: [u8; EPOCH_DIGITS],
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.as_str())
    }
}

impl Epoch {
    /// The length of its text, in bytes.
    pub(crate) const BYTES: usize = EPOCH_DIGITS;

    /// Returns the epoch that `random` spells: 31 of its bits count.
    pub(crate) fn from_random(random: u32) -> Epoch {
        let mut text = [0; EPOCH_DIGITS];
        let mut rest = random as usize;
        for digit in text[..EPOCH_DIGITS - 1].iter_mut().rev() {
            *digit = DIGITS[rest % 36];
            rest /= 36;
        }
        text[EPOCH_DIGITS - 1] = check_digit(&text[..EPOCH_DIGITS - 1]).expect("these are digits");
        Epoch { text }
    }

    /// Returns the epoch that `text` names, if it names one.
    pub(crate) fn from_text(text: &str) -> Option<Epoch> {
        let text: [u8; EPOCH_DIGITS] = text.as_bytes().try_into().ok()?;
        let (digits, check) = text.split_at(EPOCH_DIGITS - 1);
        (check_digit(digits)? == check[0]).then_some(Epoch { text })
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("digits are ASCII")
    }
}

/// Returns the check digit of digits in base 36: their sum, each weighted with
/// its place. `None` if one of them is not a digit.
fn check_digit(digits: &[u8]) -> Option<u8> {
    let value = |digit: &u8| DIGITS.iter().position(|d| d == digit);
    let mut sum = 0;
    for (place, digit) in digits.iter().enumerate() {
        sum += (place + 1) * value(digit)?;
    }
    Some(DIGITS[sum % 36])
}

/// The id of a published event, as clients receive it and send it back.
///
/// Two ids are equal when their texts are. Ids of one manager are ordered as their
/// events were published, unless the manager has
/// [opaque ids](crate::ChannelManagerBuilder::opaque_ids). Ids that publishers set
/// are ordered by their text, after all others. The text of an id is made when it is
/// needed, by [`ToString`].
///
/// ```
/// use pushwheel::{ChannelManager, Event, EventId};
///
/// let news = ChannelManager::new().get_or_create("news").unwrap();
/// let first = news.broadcast(Event::new("n", "first")).unwrap().id.unwrap();
/// let id: EventId = first.to_string().parse().unwrap();
/// assert_eq!(id, first);
/// assert!(news.broadcast(Event::new("n", "second")).unwrap().id > Some(first));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    /// An id of the engine, of this life or another one.
    Ours(Epoch, u64),
    /// Any other text.
    Own(Arc<str>),
}

impl EventId {
    pub(crate) fn new(epoch: Epoch, sequence: u64) -> EventId {
        EventId(Repr::Ours(epoch, sequence))
    }

    pub(crate) fn own(id: Arc<str>) -> EventId {
        // A publisher may use the id of an event of another life as its own.
        match split(&id) {
            Some((epoch, number)) => EventId(Repr::Ours(epoch, number)),
            None => EventId(Repr::Own(id)),
        }
    }

    /// Returns the text that `Display` writes, without a formatter: each client
    /// that subscribes is sent an id.
    pub(crate) fn text(&self) -> String {
        self.parts(&mut itoa::Buffer::new()).concat()
    }

    fn parts<'a>(&'a self, digits: &'a mut itoa::Buffer) -> [&'a str; 3] {
        match &self.0 {
            Repr::Ours(epoch, sequence) => [epoch.as_str(), "-", digits.format(*sequence)],
            Repr::Own(id) => [id, "", ""],
        }
    }
}

/// Reads an id that [`Display`](fmt::Display) has written. Any id that a publisher
/// may set is accepted.
impl FromStr for EventId {
    type Err = EventError;

    fn from_str(text: &str) -> Result<EventId, EventError> {
        check_id(text)?;
        Ok(EventId::own(text.into()))
    }
}

impl TryFrom<&str> for EventId {
    type Error = EventError;

    fn try_from(text: &str) -> Result<EventId, EventError> {
        text.parse()
    }
}

impl PartialEq<str> for EventId {
    fn eq(&self, text: &str) -> bool {
        match &self.0 {
            Repr::Ours(epoch, number) => split(text) == Some((*epoch, *number)),
            Repr::Own(id) => **id == *text,
        }
    }
}

impl PartialEq<&str> for EventId {
    fn eq(&self, text: &&str) -> bool {
        *self == **text
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = itoa::Buffer::new();
        let mut parts = self.parts(&mut digits).into_iter();
        parts.try_for_each(|part| f.write_str(part))
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
    match split(text) {
        Some((ours, sequence)) if ours == *epoch => Parsed::Ours(sequence),
        Some(_) => Parsed::Foreign,
        None => Parsed::Unknown,
    }
}

/// Returns the epoch and the number of an id of the engine, if `text` is exactly
/// what such an id prints.
fn split(text: &str) -> Option<(Epoch, u64)> {
    let (prefix, digits) = text.rsplit_once('-')?;
    let is_number =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    let number = digits.parse().ok().filter(|_| is_number)?;
    Some((Epoch::from_text(prefix)?, number))
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
        assert_eq!(Epoch::from_random(0).as_str(), "0000000");
        assert_eq!(Epoch::from_random(35).as_str(), "00000zu");
        for random in [0, 35, 123_456_789, u32::MAX] {
            let epoch = Epoch::from_random(random);
            assert_eq!(Epoch::from_text(epoch.as_str()), Some(epoch));
        }
        for text in [
            "",
            "0",
            "00000z5",
            "00000ZU",
            "00000z",
            "00000zu0",
            "message",
            "+000000",
            "a-b",
            "\u{e9}00000",
        ] {
            assert_eq!(Epoch::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn ids_are_equal_and_ordered_and_hashed_by_what_they_print() {
        let epoch = Epoch::from_random(1);
        let [nine, ten] = [9, 10].map(|sequence| EventId::new(epoch, sequence));
        assert!(nine < ten);
        assert_eq!(nine, EventId::own("0000016-9".into()));
        assert_eq!(nine, "0000016-9");
        assert_ne!(nine, "0000016-09");
        assert_eq!(format!("{nine:?}"), "EventId(0000016-9)");
        let order: EventId = "order-17".parse().unwrap();
        assert_eq!(order, "order-17");
        assert!(ten < order);
        let all: std::collections::HashSet<EventId> = ["0000016-9", "order-17"]
            .map(|text| text.parse().unwrap())
            .into();
        assert!(all.contains(&nine) && all.contains(&order) && !all.contains(&ten));
        assert_eq!("a\nb".parse::<EventId>(), Err(EventError::IdLineBreak));
        assert_eq!(EventId::try_from(""), Err(EventError::IdEmpty));
    }

    #[test]
    fn foreign_and_forged_ids_have_different_gaps() {
        let epoch = Epoch::from_random(1);
        assert_eq!(epoch.as_str(), "0000016");
        assert_eq!(parse("00000zu-17", &epoch), Parsed::Foreign);
        for forged in [
            "",
            "-",
            "17",
            "0000016-",
            "-1",
            "0000016-017",
            "0000016-+7",
            "0000016- 7",
            "0000016-99999999999999999999",
            "a b-1",
            "0000016--1",
            "order-17",
            "invoice-17",
            "2026-17",
            "customer-17",
            "Order-17",
            "order.17-3",
        ] {
            assert_eq!(parse(forged, &epoch), Parsed::Unknown, "{forged:?}");
        }
    }
}
