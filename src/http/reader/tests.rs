//! Stories of a connection, then the two properties: valid requests come out as
//! they went in, and no split ever changes what comes out.

use proptest::prelude::*;

use super::*;
use crate::http::{Framing, Method};

/// What came out of a connection: the requests, the code of the refusal that
/// ended it, and where it stands.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    messages: Vec<Message>,
    refusal: Option<Refusal>,
    is_idle: bool,
    is_in_body: bool,
}

/// Pushes the pieces one after the other, as a connection does, and checks the
/// promises of `push` on the way.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut reader = Reader::new();
    let mut messages = Vec::new();
    let mut refusal = None;
    'pieces: for mut piece in pieces {
        while !piece.is_empty() {
            match reader.push(piece, limits) {
                Ok((consumed, Step::Request(message))) => {
                    assert!(consumed > 0, "a request without a byte");
                    assert!(reader.is_idle(), "a request is over");
                    messages.push(message);
                    piece = &piece[consumed..];
                }
                Ok((consumed, step)) => {
                    assert_eq!(consumed, piece.len(), "bytes were left behind");
                    assert!(step == Step::NeedMore || reader.is_in_body());
                    piece = &[];
                }
                Err(error) => {
                    assert_eq!(reader.push(piece, limits), Err(error.clone()));
                    refusal = Some(error);
                    break 'pieces;
                }
            }
        }
    }
    Outcome {
        messages,
        refusal,
        is_idle: reader.is_idle(),
        is_in_body: reader.is_in_body(),
    }
}

/// The pieces of `bytes` between the given points.
fn split<'a>(bytes: &'a [u8], points: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut points: Vec<_> = points
        .iter()
        .map(|point| point.index(bytes.len() + 1))
        .collect();
    points.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for point in points {
        pieces.push(&bytes[start..point]);
        start = point;
    }
    pieces.push(&bytes[start..]);
    pieces
}

/// Runs `bytes` whole and byte by byte; both must agree.
fn outcome(bytes: &[u8], limits: &Limits) -> Outcome {
    let whole = run([bytes], limits);
    assert_eq!(
        whole,
        run(bytes.chunks(1), limits),
        "{}",
        bytes.escape_ascii()
    );
    whole
}

fn refused(bytes: &[u8], limits: &Limits) -> (u16, &'static str) {
    let refusal = outcome(bytes, limits).refusal.expect("this is refused");
    (refusal.status, refusal.code)
}

fn small() -> Limits {
    Limits {
        request_line_bytes_max: 40,
        head_bytes_max: 120,
        headers_max: 4,
        body_bytes_max: 16,
        ..Limits::default()
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn pipelined_requests_come_one_by_one() {
    let bytes = b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
        POST /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
        GET /3 HTTP/1.0\r\n\r\nGET /4";
    let outcome = outcome(bytes, &Limits::default());
    let seen: Vec<_> = (outcome.messages.iter())
        .map(|message| (message.head.path(), &message.body[..]))
        .collect();
    assert_eq!(seen, [("/1", &b"hello"[..]), ("/2", b"ab"), ("/3", b"")]);
    assert_eq!(outcome.refusal, None);
    assert!(!outcome.is_idle && !outcome.is_in_body);
}

#[test]
fn an_idle_reader_is_small_and_owns_nothing() {
    assert!(size_of::<Reader>() <= 16);
    let mut reader = Reader::new();
    for part in GET.chunks(3) {
        reader.push(part, &Limits::default()).unwrap();
    }
    assert!(matches!(reader.state, State::Between(_)));
}

#[test]
fn a_reader_knows_where_it_stands() {
    let limits = Limits::default();
    let mut reader = Reader::new();
    let mut stands = |bytes: &[u8]| {
        reader.push(bytes, &limits).unwrap();
        (reader.is_idle(), reader.is_in_body())
    };
    assert_eq!(stands(b""), (true, false));
    assert_eq!(stands(b"\r"), (false, false));
    assert_eq!(stands(b"\nP"), (false, false));
    assert_eq!(stands(b"OST / HTTP/1.1\r\nHost: x\r\n"), (false, false));
    assert_eq!(stands(b"Content-Length: 2\r\n\r\n"), (false, true));
    assert_eq!(stands(b"a"), (false, true));
    assert_eq!(stands(b"b"), (true, false));
}

#[test]
fn a_few_empty_lines_before_a_request_are_skipped() {
    // RFC 9112 section 2.2.
    let limits = Limits::default();
    let few = [
        b"\r\n".repeat(8),
        GET.to_vec(),
        b"\r\n".repeat(8),
        GET.to_vec(),
    ]
    .concat();
    assert_eq!(outcome(&few, &limits).messages.len(), 2);
    let many = [b"\r\n".repeat(9), GET.to_vec()].concat();
    assert_eq!(refused(&many, &limits), (400, "line_end_invalid"));
    for odd in [&b"\n"[..], b"\r\r\n", b"\rGET", b"\r\n\n"] {
        assert_eq!(refused(odd, &limits), (400, "line_end_invalid"));
    }
}

#[test]
fn a_bare_line_feed_is_refused_at_once() {
    let heads: &[&[u8]] = &[
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\n",
        b"GET / HTTP/1.1\r\n\nHost: x",
    ];
    for head in heads {
        assert_eq!(refused(head, &Limits::default()), (400, "line_end_invalid"));
    }
}

#[test]
fn what_is_not_http_is_refused_at_its_first_byte() {
    let tls_hello = b"\x16\x03\x01";
    assert_eq!(
        refused(tls_hello, &Limits::default()),
        (400, "request_line_invalid")
    );
    assert_eq!(
        refused(b" GET", &Limits::default()),
        (400, "request_line_invalid")
    );
}

#[test]
fn a_head_without_an_end_is_refused_at_the_limit() {
    let limits = Limits::default();
    let endless_line = [b"GET /", &b"a".repeat(40 * 1024)[..]].concat();
    assert_eq!(refused(&endless_line, &limits), (414, "uri_too_long"));
    let endless_header = [b"GET / HTTP/1.1\r\nName: ", &b"a".repeat(40 * 1024)[..]].concat();
    assert_eq!(refused(&endless_header, &limits), (431, "head_too_large"));
    let endless_headers = [b"GET / HTTP/1.1\r\n", &b"N: a\r\n".repeat(4000)[..]].concat();
    assert_eq!(
        refused(&endless_headers, &limits),
        (431, "too_many_headers")
    );
}

#[test]
fn each_limit_is_the_last_byte_that_is_taken() {
    let line = |bytes: usize| {
        let path = "a".repeat(bytes - "GET / HTTP/1.1\r\n".len());
        format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
    };
    assert_eq!(outcome(&line(40), &small()).messages.len(), 1);
    assert_eq!(refused(&line(41), &small()), (414, "uri_too_long"));

    let head = |bytes: usize| {
        let value = "a".repeat(bytes - GET.len() - "N: \r\n".len());
        format!("GET / HTTP/1.1\r\nHost: x\r\nN: {value}\r\n\r\n").into_bytes()
    };
    assert_eq!(outcome(&head(120), &small()).messages.len(), 1);
    assert_eq!(refused(&head(121), &small()), (431, "head_too_large"));

    let headers = |count: usize| {
        let lines = "N: a\r\n".repeat(count - 1);
        format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").into_bytes()
    };
    assert_eq!(outcome(&headers(4), &small()).messages.len(), 1);
    assert_eq!(refused(&headers(5), &small()), (431, "too_many_headers"));

    let body = |bytes: usize| {
        let body = "a".repeat(bytes);
        format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n{body}").into_bytes()
    };
    assert_eq!(outcome(&body(16), &small()).messages[0].body.len(), 16);
    assert_eq!(refused(&body(17), &small()), (413, "payload_too_large"));
}

#[test]
fn no_limits_allow_more_headers_than_the_ceiling() {
    let limits = Limits {
        headers_max: usize::MAX,
        ..Limits::default()
    };
    let headers = |count: usize| {
        let lines = "N: a\r\n".repeat(count - 1);
        format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").into_bytes()
    };
    let taken = run([&headers(HEADERS_CEILING)[..]], &limits).messages;
    assert_eq!(taken[0].head.headers().count(), HEADERS_CEILING);
    assert_eq!(
        refused(&headers(HEADERS_CEILING + 1), &limits),
        (431, "too_many_headers")
    );
}

#[test]
fn no_limits_at_all_never_overflow() {
    let limits = Limits {
        request_line_bytes_max: usize::MAX,
        head_bytes_max: usize::MAX,
        headers_max: usize::MAX,
        body_bytes_max: usize::MAX,
        ..Limits::default()
    };
    let head = |framing: &str| format!("PUT / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
    let length = head(&format!("Content-Length: {}", u64::MAX)) + "abc";
    let chunk = head("Transfer-Encoding: chunked") + "ffffffffffffffff\r\nabc";
    for bytes in [length, chunk] {
        let outcome = outcome(bytes.as_bytes(), &limits);
        assert!(outcome.is_in_body || outcome.refusal.is_some_and(|it| it.status == 413));
    }
}

/// A head that announces a body with `Expect: 100-continue`.
fn expecting(version: &str, framing: &str) -> Vec<u8> {
    format!("POST / HTTP/{version}\r\nHost: x\r\nExpect: 100-continue\r\n{framing}\r\n\r\n")
        .into_bytes()
}

#[test]
fn a_waiting_client_receives_one_100_continue() {
    for (framing, body) in [
        ("Content-Length: 2", &b"ab"[..]),
        ("Transfer-Encoding: chunked", b"2\r\nab\r\n0\r\n\r\n"),
    ] {
        let limits = Limits::default();
        let mut reader = Reader::new();
        let head = expecting("1.1", framing);
        let step = reader.push(&head, &limits).unwrap();
        assert_eq!(step, (head.len(), Step::SendContinue));
        assert!(reader.is_in_body());
        assert_eq!(reader.push(b"", &limits), Ok((0, Step::NeedMore)));
        assert_eq!(reader.push(&body[..1], &limits), Ok((1, Step::NeedMore)));
        let (_, step) = reader.push(&body[1..], &limits).unwrap();
        let Step::Request(message) = step else {
            panic!("the body is complete")
        };
        assert_eq!(message.body, b"ab");
    }
}

#[test]
fn no_100_continue_is_sent_without_need() {
    let step = |bytes: &[u8], limits: &Limits| Reader::new().push(bytes, limits).map(|it| it.1);
    let limits = Limits::default();
    // Some of the body is here already.
    let begun = [&expecting("1.1", "Content-Length: 2")[..], b"a"].concat();
    assert_eq!(step(&begun, &limits), Ok(Step::NeedMore));
    // HTTP/1.0 does not know the word.
    let old = expecting("1.0", "Content-Length: 2");
    assert_eq!(step(&old, &limits), Ok(Step::NeedMore));
    // No body is to come.
    let empty = expecting("1.1", "Content-Length: 0");
    assert!(matches!(step(&empty, &limits), Ok(Step::Request(_))));
    // The body would be too large: say so before it is sent.
    let large = expecting("1.1", "Content-Length: 17");
    let refusal = step(&large, &small()).unwrap_err();
    assert_eq!(refusal.status, 413);
}

/// A request as a client means it, with everything that a valid one may vary.
#[derive(Debug, Clone)]
struct Meant {
    empty_lines: usize,
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, bool),
}

impl Meant {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend(b"\r\n".repeat(self.empty_lines));
        out.extend(format!("{} {} HTTP/1.1\r\nHost: x\r\n", self.method, self.target).bytes());
        for (name, value) in &self.headers {
            out.extend([name.as_bytes(), b":\t", value, b" \r\n"].concat());
        }
        match &self.body {
            Body::None => out.extend(b"\r\n"),
            Body::Length(body) => {
                out.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                out.extend(body);
            }
            Body::Chunked(chunks, has_trailer) => {
                out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    out.extend(format!("{:x};a=\"b\"\r\n", chunk.len()).bytes());
                    out.extend(chunk);
                    out.extend(b"\r\n");
                }
                out.extend(b"0\r\n");
                if *has_trailer {
                    out.extend(b"Trailer: value\r\n");
                }
                out.extend(b"\r\n");
            }
        }
    }

    fn assert_is(&self, message: &Message) {
        assert_eq!(message.head.method(), &Method::from_name(&self.method));
        assert_eq!(message.head.target(), self.target);
        for ((name, value), (seen_name, seen_value)) in
            self.headers.iter().zip(message.head.headers().skip(1))
        {
            assert_eq!(name, seen_name);
            assert_eq!(value.trim_ascii(), seen_value);
        }
        let (framing, body) = match &self.body {
            Body::None => (Framing::None, Vec::new()),
            Body::Length(body) if body.is_empty() => (Framing::None, Vec::new()),
            Body::Length(body) => (Framing::Length(body.len() as u64), body.clone()),
            Body::Chunked(chunks, _) => (Framing::Chunked, chunks.concat()),
        };
        assert_eq!(message.head.framing(), framing);
        let has_meaning = !matches!(&*self.method, "GET" | "HEAD");
        assert_eq!(message.body, if has_meaning { body } else { Vec::new() });
    }
}

fn meant() -> impl Strategy<Value = Meant> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    let body = prop_oneof![
        Just(Body::None),
        bytes().prop_map(Body::Length),
        (
            prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4),
            any::<bool>()
        )
            .prop_map(|(chunks, has_trailer)| Body::Chunked(chunks, has_trailer)),
    ];
    let value = prop::collection::vec(
        any::<u8>().prop_filter("a byte of a value", |&byte| {
            crate::http::is_value_byte(byte)
        }),
        0..20,
    );
    (
        0_usize..3,
        prop_oneof!["GET|POST|OPTIONS", "[A-Z]{1,9}"]
            .prop_filter("no tunnel", |it| it != "CONNECT"),
        "/[a-z%/]{0,9}(\\?[a-z=&?]{0,9})?",
        prop::collection::vec(("X-[A-Za-z!-]{1,9}", value), 0..5),
        body,
    )
        .prop_map(|(empty_lines, method, target, headers, body)| Meant {
            empty_lines,
            method,
            target,
            headers,
            body,
        })
}

/// Bytes that come close to a request in many wrong ways.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let scraps: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n",
        b"POST /a?b HTTP/1.1\r\nHost: x\r\n",
        b"GET http://x/ HTTP/1.0\r\n",
        b"Host: x\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 17\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Name : a\r\n",
        b"N:",
        b" folded\r\n",
        b"\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b" ",
        b"\0",
        b"5\r\nhello\r\n",
        b"11\r\n",
        b"3;x=y\r\nabc\r\n",
        b"0\r\n\r\n",
        b"0\r\nTrailer: a\r\n\r\n",
        b"fffffffffffffffff",
        b"hello",
        b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        b"\xff",
    ];
    let scrap = prop_oneof![
        9 => prop::sample::select(scraps).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(scrap, 0..16).prop_map(|scraps| scraps.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1024,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn valid_requests_come_out_as_they_went_in_however_they_are_split(
        requests in prop::collection::vec(meant(), 1..5),
        points in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bytes = Vec::new();
        for request in &requests {
            request.write(&mut bytes);
        }
        let limits = Limits::default();
        let whole = run([&bytes[..]], &limits);
        prop_assert_eq!(&whole.refusal, &None);
        prop_assert_eq!(whole.messages.len(), requests.len());
        for (request, message) in requests.iter().zip(&whole.messages) {
            request.assert_is(message);
        }
        prop_assert!(whole.is_idle);
        prop_assert_eq!(&whole, &run(split(&bytes, &points), &limits));
        prop_assert_eq!(&whole, &run(bytes.chunks(1), &limits));
    }

    #[test]
    fn no_split_changes_what_becomes_of_any_bytes(
        bytes in soup(),
        points in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        for limits in [small(), Limits::default()] {
            let whole = run([&bytes[..]], &limits);
            prop_assert_eq!(&whole, &run(split(&bytes, &points), &limits));
            prop_assert_eq!(&whole, &run(bytes.chunks(1), &limits));
        }
    }
}
