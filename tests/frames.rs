//! The wire format: golden files, byte for byte, and properties held against an
//! independent reading of the standard.
//!
//! `BLESS=1 cargo test --features internals --test frames` rewrites the golden
//! files. They are the product's wire format: read the difference before it is
//! committed. `PROPTEST_CASES=100000` searches longer.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use pushwheel::internals::frame::{self, Frame};
use pushwheel::{Event, EventError};

#[path = "common/sse.rs"]
mod sse;

use sse::{Dispatched, Parser};

const ID_PREFIX: &str = "k3x-";

/// Compares a frame with `tests/golden/<name>.sse`, or writes that with `BLESS=1`.
#[track_caller]
fn assert_golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
        .with_extension("sse");
    if std::env::var_os("BLESS").is_some_and(|bless| bless == "1") {
        fs::write(&path, bytes).expect("the golden file can be written");
    }
    let golden = fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; write it with BLESS=1, then read it",
            path.display()
        )
    });
    assert!(
        golden == bytes,
        "{} differs\n golden: \"{}\"\n   wire: \"{}\"",
        path.display(),
        golden.escape_ascii(),
        bytes.escape_ascii(),
    );
}

#[track_caller]
fn assert_golden_event(name: &str, event: &Event<'_>) {
    assert_golden(name, encode(event).as_bytes());
}

fn encode(event: &Event<'_>) -> Frame {
    Frame::encode(event, ID_PREFIX).expect("a valid event")
}

#[test]
fn golden_plain() {
    assert_golden_event("plain", &Event::message("hello"));
}

#[test]
fn golden_named() {
    assert_golden_event("named", &Event::new("news", "hello"));
}

#[test]
fn golden_json() {
    let value = serde_json::json!({"n": [1, 2.5, null], "text": "a\r\nb"});
    let event = Event::json("reading", &value).expect("it serialises");
    assert_golden_event("json", &event);
}

#[test]
fn golden_multi_line() {
    let data = "lf\ncr\rcrlf\r\nlfcr\n\rcrcrlf\r\r\nend";
    assert_golden_event("multi_line", &Event::message(data));
}

#[test]
fn golden_trailing_newline() {
    assert_golden_event("trailing_newline", &Event::message("line\n"));
}

#[test]
fn golden_leading_space() {
    assert_golden_event(
        "leading_space",
        &Event::new(" name", " one\n  two\n:colon\n"),
    );
}

#[test]
fn golden_empty_data() {
    assert_golden_event("empty_data", &Event::message(""));
}

#[test]
fn golden_unicode() {
    // The last are line ends to some, but not to an event stream.
    let data = "grüße\n日本語 🛞\n\u{feff}bom \u{2028}\u{2029}\u{85}\u{b}\u{c}";
    assert_golden_event("unicode", &Event::new("größe", data));
}

#[test]
fn golden_injection() {
    let data = "x\n\nevent: evil\nid: 666\nretry: 1\ndata: y\n\n:\r\rid\r\r";
    assert_golden_event("injection", &Event::new("news", data));
}

#[test]
fn golden_own_id() {
    assert_golden_event("own_id", &Event::message("hello").with_id("order 42/é"));
}

#[test]
fn golden_retry() {
    let event = Event::message("hello").with_retry(Duration::from_millis(2_500));
    assert_golden_event("retry", &event);
}

#[test]
fn golden_stamped() {
    let mut frame = encode(&Event::new("news", "hello\nworld"));
    frame.stamp(ID_PREFIX, 17);
    assert_golden("stamped", frame.as_bytes());
}

#[test]
fn golden_stamped_longest() {
    let mut frame = encode(&Event::message("hello").with_retry(Duration::from_secs(1)));
    frame.stamp(ID_PREFIX, u64::MAX);
    assert_golden("stamped_longest", frame.as_bytes());
}

#[test]
fn golden_everything() {
    let event = Event::new("news", "hello\nworld")
        .with_key("never sent")
        .with_id("a-1")
        .with_retry(Duration::from_secs(3));
    assert_golden_event("everything", &event);
}

#[test]
fn golden_internal() {
    let frame = Frame::internal(
        "pushwheel.gap",
        Some("k3x-17"),
        None,
        r#"{"after":"k3x-4"}"#,
    );
    assert_golden("internal", frame.as_bytes());
}

#[test]
fn golden_between_events() {
    let mut stream = frame::HEARTBEAT.to_vec();
    stream.extend(frame::retry_line(3_000));
    assert_golden("between_events", &stream);

    let mut parser = Parser::new();
    assert_eq!(parser.push(&stream), []);
    assert_eq!(parser.pings(), 1);
    assert_eq!(parser.retry(), Some(3_000));
}

/// What a client's handler is called with, by the family of the client's parser.
/// `tests/clients` has real packages of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// Follows the HTML Standard: browsers, Node's `eventsource`.
    Standard,
    /// Dispatches at every blank line: fetch-event-source, httpx-sse, sseclient.
    EveryBlankLine,
    /// Splits at blank lines and skips the blocks that begin with a colon.
    Blocks,
}

impl Family {
    const ALL: [Family; 3] = [Family::Standard, Family::EveryBlankLine, Family::Blocks];

    /// Returns the data of each message in a stream that has only line feeds.
    fn read(self, stream: &str) -> Vec<String> {
        let data_of = |block: &str| {
            let lines = block.lines().filter_map(|line| line.strip_prefix("data: "));
            lines.collect::<Vec<_>>().join("\n")
        };
        match self {
            Family::Standard => {
                let events = Parser::new().push(stream.as_bytes());
                events.into_iter().map(|event| event.data).collect()
            }
            Family::EveryBlankLine => {
                let mut block = String::new();
                let mut messages = Vec::new();
                for line in stream.split_inclusive('\n') {
                    block.push_str(line);
                    if line == "\n" {
                        messages.push(data_of(&std::mem::take(&mut block)));
                    }
                }
                messages
            }
            Family::Blocks => {
                let mut whole: Vec<_> = stream.split("\n\n").collect();
                whole.pop();
                whole.retain(|block| !block.starts_with(':'));
                let messages = whole.iter().map(|block| data_of(block));
                messages.filter(|data| !data.is_empty()).collect()
            }
        }
    }

    /// Whether its parsers give their handlers exactly the events of a stream
    /// with these bytes in front of, between and behind them.
    fn suits(self, idle: &str) -> bool {
        let idles = idle.repeat(5);
        let retry = String::from_utf8(frame::retry_line(3_000)).expect("text");
        let stream = format!("{idle}id: a\ndata: 1\n\n{idles}id: b\ndata: 2\n\n{idle}{retry}");
        self.read(&stream) == ["1", "2"]
    }
}

#[test]
fn idle_bytes_dispatch_nothing_and_cost_no_event_in_any_family_of_parsers() {
    let idle = str::from_utf8(frame::HEARTBEAT).expect("text");
    for family in Family::ALL {
        assert!(family.suits(idle), "{family:?}");
    }
}

#[test]
fn comments_as_idle_bytes_fail_in_one_family_each() {
    for (idle, fails) in [(":\n\n", Family::EveryBlankLine), (":\n", Family::Blocks)] {
        let failing: Vec<_> = Family::ALL.into_iter().filter(|f| !f.suits(idle)).collect();
        assert_eq!(failing, [fails], "{idle:?}");
    }
}

#[test]
fn a_delay_alone_dispatches_nothing_in_any_family_of_parsers() {
    let retry = String::from_utf8(frame::retry_line(3_000)).expect("text");
    for family in Family::ALL {
        assert_eq!(family.read(&retry), Vec::<String>::new(), "{family:?}");
    }
}

/// Text made mostly of what a parser of event streams looks for.
fn nasty_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "\n", "\r", "\r\n", " ", ":", "\0", "\u{feff}", "\u{2028}", "\t", "data", "data: x",
            "event: evil", "id: 666", "id", "retry: 1", "\n\n", "\r\r", "é", "日", "🛞", "a", "b c",
        ])
        .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Text that is often a valid name or id.
fn mild_text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[ -~éß日🛞]{0,20}",
        1 => nasty_text(),
    ]
}

/// A name that a publisher may use.
fn valid_name() -> impl Strategy<Value = String> {
    mild_text().prop_map(|name| name.replace(['\r', '\n'], "_"))
}

/// An id that a publisher may use.
fn valid_id() -> impl Strategy<Value = String> {
    mild_text().prop_map(|id| format!("i{}i", id.replace(|c: char| c.is_ascii_control(), "_")))
}

#[derive(Clone, Debug)]
struct Published {
    name: String,
    data: String,
    own_id: Option<String>,
    sequence: u64,
    retry_ms: Option<u32>,
}

fn published() -> impl Strategy<Value = Published> {
    let parts = (
        valid_name(),
        nasty_text(),
        prop::option::weighted(0.3, valid_id()),
        any::<u64>(),
        prop::option::weighted(0.2, 0..=2_147_483_647_u32),
    );
    parts.prop_map(|(name, data, own_id, sequence, retry_ms)| Published {
        name,
        data,
        own_id,
        sequence,
        retry_ms,
    })
}

impl Published {
    fn frame(&self) -> Frame {
        let mut event = Event::new(&self.name, &self.data);
        if let Some(id) = &self.own_id {
            event = event.with_id(id);
        }
        if let Some(ms) = self.retry_ms {
            event = event.with_retry(Duration::from_millis(ms.into()));
        }
        let mut frame = encode(&event);
        frame.stamp(ID_PREFIX, self.sequence);
        frame
    }

    fn expected(&self) -> Dispatched {
        Dispatched {
            name: if self.name.is_empty() {
                "message".to_owned()
            } else {
                self.name.clone()
            },
            data: normalised(&self.data),
            last_event_id: match &self.own_id {
                Some(id) => id.clone(),
                None => format!("{ID_PREFIX}{}", self.sequence),
            },
        }
    }
}

/// The data as a browser sees it: every line end is a LF.
fn normalised(data: &str) -> String {
    data.replace("\r\n", "\n").replace('\r', "\n")
}

/// Parses a stream cut at the given places.
fn parse_in_pieces(
    parser: &mut Parser,
    stream: &[u8],
    cuts: &[prop::sample::Index],
) -> Vec<Dispatched> {
    let mut places: Vec<usize> = cuts
        .iter()
        .map(|cut| cut.index(stream.len() + 1))
        .chain([0, stream.len()])
        .collect();
    places.sort_unstable();
    places
        .windows(2)
        .flat_map(|ends| parser.push(&stream[ends[0]..ends[1]]))
        .collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// A valid event comes out of a browser as it went in, and nothing with it.
    #[test]
    fn an_event_comes_out_as_it_went_in(published in published(), cuts in cuts()) {
        let frame = published.frame();
        let mut parser = Parser::new();
        let dispatched = parse_in_pieces(&mut parser, frame.as_bytes(), &cuts);
        prop_assert_eq!(dispatched, [published.expected()]);
        prop_assert_eq!(parser.last_event_id(), published.expected().last_event_id);
        prop_assert_eq!(parser.retry(), published.retry_ms.map(u64::from));
        prop_assert_eq!((parser.comments(), parser.pings()), (0, 0));
        prop_assert_eq!(frame.len(), frame.as_bytes().len());
    }

    /// Frames follow one another in any order, with heartbeats between them.
    #[test]
    fn frames_in_a_row_are_events_in_order(
        list in prop::collection::vec((published(), any::<bool>()), 0..10),
        cuts in cuts(),
    ) {
        let mut stream = Vec::new();
        let mut pings = 0;
        for (published, heartbeat) in &list {
            stream.extend_from_slice(published.frame().as_bytes());
            if *heartbeat {
                stream.extend_from_slice(frame::HEARTBEAT);
                pings += 1;
            }
        }
        let expected: Vec<_> = list.iter().map(|(published, _)| published.expected()).collect();
        let mut parser = Parser::new();
        prop_assert_eq!(parse_in_pieces(&mut parser, &stream, &cuts), expected);
        prop_assert_eq!(parser.pings(), pings);
    }

    /// Whatever the name and the id, either the event is refused or it comes out
    /// as it went in. It is refused exactly when the rules say so.
    #[test]
    fn an_event_is_refused_or_whole(
        name in mild_text(),
        id in mild_text(),
        data in nasty_text(),
        cuts in cuts(),
    ) {
        let name_is_wrong = name.contains(['\r', '\n']);
        let id_is_wrong = id.is_empty()
            || id.trim_matches(' ') != id
            || id.chars().any(|c| c.is_ascii_control());
        match Frame::encode(&Event::new(&name, &data).with_id(&id), ID_PREFIX) {
            Err(_) => prop_assert!(name_is_wrong || id_is_wrong),
            Ok(frame) => {
                prop_assert!(!name_is_wrong && !id_is_wrong);
                let expected = Dispatched {
                    name: if name.is_empty() { "message".to_owned() } else { name },
                    data: normalised(&data),
                    last_event_id: id,
                };
                let dispatched = parse_in_pieces(&mut Parser::new(), frame.as_bytes(), &cuts);
                prop_assert_eq!(dispatched, [expected]);
            }
        }
    }

    /// The engine's own events may have any data.
    #[test]
    fn internal_events_are_safe_too(text in nasty_text()) {
        let mut parser = Parser::new();
        let frame = Frame::internal("pushwheel.gap", None, None, &text);
        let dispatched = parser.push(frame.as_bytes());
        prop_assert_eq!(dispatched.len(), 1);
        prop_assert_eq!(&dispatched[0].data, &normalised(&text));
        prop_assert_eq!(parser.last_event_id(), "");
    }

    /// When the connection breaks within a frame, the browser hears nothing of it
    /// and its cursor stays, so that the event is replayed.
    #[test]
    fn a_frame_that_is_cut_short_says_nothing(
        published in published(),
        cut in any::<prop::sample::Index>(),
    ) {
        let frame = published.frame();
        let short = &frame.as_bytes()[..cut.index(frame.len())];
        let mut parser = Parser::new();
        prop_assert_eq!(parser.push(short), []);
        prop_assert_eq!(parser.last_event_id(), "");
    }
}

#[test]
fn a_refusal_names_its_reason() {
    let refused = Frame::encode(&Event::new("a\nid: 1", ""), ID_PREFIX);
    assert_eq!(refused.expect_err("refused"), EventError::NameLineBreak);
}
