//! The position at which a client resumes: the header `Last-Event-ID` decides, or else the
//! query. Only an id that is spelled as the engine prints it is an id of the engine.
//!
//! The input is four bytes for the epoch, a line with the header's value, which may be
//! empty for no header, and then the query.

use pushwheel::Start;
use pushwheel::internals::http::Limits;
use pushwheel::internals::id::{Epoch, Parsed};
use pushwheel::internals::routing::request;

use super::input::Input;
use super::target::{channels, form};
use super::wire::run;

pub fn check(input: &[u8]) {
    let mut input = Input(input);
    let random = (0..4).fold(0, |random, _| random << 8 | u32::from(input.byte()));
    let epoch = Epoch::from_random(random);
    let header = input.line();
    check_id(&epoch, &String::from_utf8_lossy(header));
    check_id(&epoch, &String::from_utf8_lossy(input.0));
    check_own(&epoch, header);
    check_start(header, input.0);
}

/// An accepted id prints as it was read.
fn check_id(epoch: &Epoch, text: &str) {
    let wanted = match text.rsplit_once('-') {
        Some((prefix, digits)) if is_epoch(prefix) => match digits.parse::<u64>() {
            Ok(sequence) if sequence.to_string() != digits => Parsed::Unknown,
            Ok(sequence) if prefix == epoch.as_str() => Parsed::Ours(sequence),
            Ok(_) => Parsed::Foreign,
            Err(_) => Parsed::Unknown,
        },
        _ => Parsed::Unknown,
    };
    let parsed = epoch.parse(text);
    assert_eq!(parsed, wanted, "{text:?}");
    if let Parsed::Ours(sequence) = parsed {
        assert_eq!(epoch.id(sequence).to_string(), text);
    }
}

/// Returns whether the text is an epoch: seven lower-case letters and digits. The last one
/// is the sum of the others in base 36, each weighted by its place.
fn is_epoch(prefix: &str) -> bool {
    let digits = prefix.chars().map(|c| match c {
        '0'..='9' | 'a'..='z' => c.to_digit(36),
        _ => None,
    });
    let Some(digits) = digits.collect::<Option<Vec<u32>>>() else {
        return false;
    };
    let [numbers @ .., check] = &*digits else {
        return false;
    };
    let weighted = numbers.iter().zip(1..).map(|(digit, place)| digit * place);
    numbers.len() == 6 && weighted.sum::<u32>() % 36 == *check
}

/// A printed id is accepted, and is not an id of another epoch.
fn check_own(epoch: &Epoch, bytes: &[u8]) {
    let sequence = Input(bytes).number() >> (bytes.len() % 64);
    let id = epoch.id(sequence).to_string();
    assert_eq!(epoch.parse(&id), Parsed::Ours(sequence));
    assert!(id.len() <= 64 && !id.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
    let elsewhere = Epoch::from_random(!epoch_number(epoch));
    assert_eq!(elsewhere.parse(&id), Parsed::Foreign);
}

fn epoch_number(epoch: &Epoch) -> u32 {
    let digits = &epoch.as_str()[..6];
    u32::from_str_radix(digits, 36).expect("an epoch begins with a number in base 36")
}

fn check_start(header: &[u8], query: &[u8]) {
    let named = [b"Last-Event-ID: ", header, b"\r\n"].concat();
    let line = if header.is_empty() { &[][..] } else { &named };
    let bytes = [b"GET /?", query, b" HTTP/1.1\r\nHost: x\r\n", line, b"\r\n"].concat();
    let Some(message) = run([&*bytes], &Limits::default())
        .messages
        .into_iter()
        .next()
    else {
        return;
    };
    let request = request(message, &channels());
    // Either may contain a whole request, which is not what this checks.
    if request.target().as_bytes() != [b"/?", query].concat() || header.contains(&b'\r') {
        return;
    }
    // Bytes that are not UTF-8 are Latin-1.
    let header = match str::from_utf8(header) {
        Ok(text) => text.to_owned(),
        Err(_) => header.iter().copied().map(char::from).collect(),
    };
    let header = header.trim_matches([' ', '\t']);
    let query = str::from_utf8(query).expect("the target is ASCII");
    assert_eq!(
        request.start(),
        wanted(header, query),
        "{header:?} {query:?}"
    );
}

/// Returns the start that the documentation promises.
fn wanted(header: &str, query: &str) -> Start {
    let pairs = form(query);
    let first = |wanted: &str| {
        let mut pairs = pairs.iter();
        pairs.find(|(name, _)| name == wanted).map(|(_, v)| &**v)
    };
    if !header.is_empty() {
        return Start::After(header.to_owned());
    }
    match first("last_event_id")
        .or(first("lastEventId"))
        .unwrap_or("")
    {
        "" => {}
        "earliest" => return Start::Earliest,
        id => return Start::After(id.to_owned()),
    }
    match first("last").unwrap_or("") {
        last if last.contains(|c: char| !c.is_ascii_digit()) => Start::Live,
        last => last.parse().map_or(Start::Live, Start::Last),
    }
}
