//! [`Event`], and [`EventError`]: why an event cannot be published.
//!
//! Construction never fails; publishing checks the event. The bytes on the wire are in
//! `frame`.
//!
//! The invariant to remember: nothing that is published turns into another field or event.
//! Data may be any text; a name or an id that could end its line is rejected, never changed
//! silently.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// One event of a Server-Sent Events stream: its data and other fields.
///
/// An event always has data, by default the empty string. It may have a name, an id of the
/// publisher's own, a reconnection delay for the browser, and a key for conflation. Strings
/// are borrowed if possible, so an event that is published at once copies nothing;
/// [`into_owned`](Event::into_owned) returns one that borrows nothing.
///
/// Construction never fails. Publishing checks the event and returns an [`EventError`] if
/// it is invalid.
///
/// The format is defined in the HTML Standard, section 9.2 "Server-sent events"; 9.2.5
/// "Parsing an event stream" and 9.2.6 "Interpreting an event stream" define how a browser
/// reads it.
///
/// ```
/// use pushwheel::Event;
/// use std::time::Duration;
///
/// let event = Event::new("price", "EURUSD 1.0841")
///     .with_key("EURUSD")
///     .with_retry(Duration::from_secs(5));
///
/// assert_eq!(event.name(), Some("price"));
/// assert_eq!(event.data(), "EURUSD 1.0841");
/// assert_eq!(event.id(), None); // the engine assigns one
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    name: Option<Cow<'a, str>>,
    data: Cow<'a, str>,
    id: Option<Cow<'a, str>>,
    key: Option<Cow<'a, str>>,
    retry: Option<Duration>,
    /// Whether it removes its key.
    removes: bool,
}

impl<'a> Event<'a> {
    /// Returns an event with a name. In a browser, `source.addEventListener(name, ...)`
    /// receives it.
    ///
    /// See [`with_name`](Event::with_name) for valid names. Line ends in `data` (LF, CR or
    /// CRLF) all reach the browser as LF; any other text arrives unchanged.
    pub fn new(name: impl Into<Cow<'a, str>>, data: impl Into<Cow<'a, str>>) -> Event<'a> {
        Event::message(data).with_name(name)
    }

    /// Returns an event without a name. In a browser it is a `message` event.
    ///
    /// ```
    /// use pushwheel::Event;
    ///
    /// assert_eq!(Event::message("hello").name(), None);
    /// ```
    pub fn message(data: impl Into<Cow<'a, str>>) -> Event<'a> {
        Event {
            data: data.into(),
            ..Event::default()
        }
    }

    /// Returns the event with this name; the empty string removes the name.
    ///
    /// Publishing rejects a name with a CR or LF, one longer than [`NAME_BYTES_MAX`], and
    /// one that begins with [`RESERVED_NAME_PREFIX`]. The names `open` and `error` are
    /// valid, but a browser's `EventSource` fires events of its own with these names, and a
    /// listener cannot easily tell them apart: choose other names.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Cow<'a, str>>) -> Event<'a> {
        self.name = Some(name.into()).filter(|name| !name.is_empty());
        self
    }

    /// Returns the event with an id of the publisher's own, instead of the engine's.
    ///
    /// A browser remembers it and sends it as `Last-Event-ID` when it reconnects. So
    /// publishing rejects an id that would not come back unchanged: the empty id (it clears
    /// the browser's), one with an ASCII control character, one that begins or ends with a
    /// space, and one longer than [`ID_BYTES_MAX`]. Ids of at most 64 bytes of
    /// `[0-9A-Za-z._-]` work with every client.
    ///
    /// The id identifies the events that a client has seen, so events of channels that may
    /// be on one stream should not share one. A channel remembers the ids of its history
    /// and the last 1,024 before that. It does not append the same event with the same id
    /// again ([`Published::duplicates`](crate::Published::duplicates)), and rejects another
    /// event with that id ([`PublishError::IdReused`](crate::PublishError::IdReused)). If
    /// two channels of one stream have the id, a client that comes back with it resumes
    /// after the first of the two events.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Cow<'a, str>>) -> Event<'a> {
        self.id = Some(id.into());
        self
    }

    /// Returns the event with a reconnection delay, which applies in the browser from then
    /// on.
    ///
    /// It is written in whole milliseconds, rounded up. Publishing rejects more than
    /// [`RETRY_MS_MAX`]. With zero, every browser that loses its stream reconnects at
    /// once.
    #[must_use]
    pub fn with_retry(mut self, retry: Duration) -> Event<'a> {
        self.retry = Some(retry);
        self
    }

    /// Returns an event that removes `key` from a channel that conflates
    /// ([`LagPolicy::Conflate`](crate::LagPolicy::Conflate)).
    ///
    /// Clients receive it in order with other events, as `pushwheel.removed` with the data
    /// `{"key": KEY}`. New clients do not receive the key's last event. See
    /// [`removing`](Event::removing) for a removal with another name and other data.
    ///
    /// ```
    /// use pushwheel::Event;
    ///
    /// let event = Event::removal("EURUSD");
    /// assert_eq!(event.name(), Some("pushwheel.removed"));
    /// assert_eq!(event.data(), r#"{"key":"EURUSD"}"#);
    /// ```
    pub fn removal(key: impl Into<Cow<'a, str>>) -> Event<'a> {
        let key = key.into();
        let data = removal_data(&key);
        Event::new(REMOVED_NAME, data).with_key(key).removing()
    }

    /// Returns the event as one that removes its key: clients receive it in order with other
    /// events, and new clients receive neither this event nor the key's last one.
    ///
    /// It removes the event that was published for the same clients: a broadcast removes a
    /// broadcast. Publishing rejects a removal without a key.
    #[must_use]
    pub fn removing(mut self) -> Event<'a> {
        self.removes = true;
        self
    }

    /// Returns the event with a key for conflation; the empty string removes the key.
    ///
    /// A channel that conflates keeps only the newest of the events with the same key. The
    /// key itself is not sent. Publishing rejects a key longer than [`KEY_BYTES_MAX`].
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Cow<'a, str>>) -> Event<'a> {
        self.key = Some(key.into()).filter(|key| !key.is_empty());
        self
    }

    /// Returns the name; `None` for an event that a browser calls `message`. Never
    /// `Some("")`.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the data, as it was passed.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Returns the publisher's own id, if it has set one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the reconnection delay, if any, as it was passed.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Returns the key for conflation, if any. Never `Some("")`.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns whether the event removes its key, see [`removing`](Event::removing).
    pub fn is_removal(&self) -> bool {
        self.removes
    }

    /// Returns the event without borrowed strings, which are copied.
    pub fn into_owned(self) -> Event<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Event {
            name: self.name.map(own),
            data: own(self.data),
            id: self.id.map(own),
            key: self.key.map(own),
            retry: self.retry,
            removes: self.removes,
        }
    }
}

impl Event<'static> {
    /// Returns an event whose data is `value` as compact JSON, exactly as
    /// `serde_json::to_string` writes it: a string is sent with its quotes.
    ///
    /// Compact JSON has no raw line ends, so it is one line on the wire, and
    /// `JSON.parse(event.data)` returns the value exactly.
    ///
    /// ```
    /// use pushwheel::Event;
    ///
    /// let event = Event::json("news", &["a", "b"]).unwrap();
    /// assert_eq!(event.data(), r#"["a","b"]"#);
    ///
    /// let event = Event::json("news", "a\nb").unwrap();
    /// assert_eq!(event.data(), r#""a\nb""#);
    /// ```
    ///
    /// # Errors
    ///
    /// When `value` cannot be written as JSON: its `Serialize` fails, or a map in it has
    /// keys that are not strings.
    pub fn json<T: Serialize + ?Sized>(
        name: impl Into<Cow<'static, str>>,
        value: &T,
    ) -> Result<Event<'static>, serde_json::Error> {
        Ok(Event::new(name, serde_json::to_string(value)?))
    }
}

impl Event<'_> {
    /// Checks that a publisher may publish this.
    ///
    /// # Errors
    /// The first mistake.
    pub(crate) fn check(&self) -> Result<(), EventError> {
        if self.removes && self.key.is_none() {
            return Err(EventError::RemovalWithoutKey);
        }
        if let Some(name) = self.name()
            && name.starts_with(RESERVED_NAME_PREFIX)
            && !self.is_plain_removal()
        {
            return Err(EventError::NameReserved);
        }
        self.check_fields()
    }

    /// Returns whether [`removal`](Event::removal) has made it.
    #[cold]
    fn is_plain_removal(&self) -> bool {
        let key = self.key().filter(|_| self.removes);
        self.name() == Some(REMOVED_NAME) && key.is_some_and(|key| removal_data(key) == self.data)
    }

    /// Checks that one frame can contain exactly this event: all of
    /// [`check`](Event::check) except reserved names.
    pub(crate) fn check_fields(&self) -> Result<(), EventError> {
        if let Some(name) = self.name() {
            check_name(name)?;
        }
        if let Some(id) = self.id() {
            check_id(id)?;
        }
        if let Some(key) = self.key()
            && key.len() > KEY_BYTES_MAX
        {
            return Err(EventError::KeyTooLong { bytes: key.len() });
        }
        self.retry_ms().map(|_| ())
    }

    /// Returns the reconnection delay in whole milliseconds, rounded up.
    pub(crate) fn retry_ms(&self) -> Result<Option<u32>, EventError> {
        let Some(retry) = self.retry else {
            return Ok(None);
        };
        match u32::try_from(retry.as_nanos().div_ceil(1_000_000)) {
            Ok(ms) if ms <= RETRY_MS_MAX => Ok(Some(ms)),
            _ => Err(EventError::RetryTooLong),
        }
    }
}

/// Returns the data of a removal without data of its own.
pub(crate) fn removal_data(key: &str) -> String {
    serde_json::json!({ "key": key }).to_string()
}

fn check_name(name: &str) -> Result<(), EventError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(EventError::NameTooLong { bytes: name.len() });
    }
    match memchr::memchr2(b'\r', b'\n', name.as_bytes()) {
        Some(_) => Err(EventError::NameLineBreak),
        None => Ok(()),
    }
}

/// Checks that an id arrives unchanged as a line of the stream (9.2.6 ignores one with NUL),
/// and comes back unchanged as a header's value, where RFC 9110 section 5.5 allows no control
/// characters and strips spaces at both ends.
pub(crate) fn check_id(id: &str) -> Result<(), EventError> {
    if id.is_empty() {
        return Err(EventError::IdEmpty);
    }
    if id.len() > ID_BYTES_MAX {
        return Err(EventError::IdTooLong { bytes: id.len() });
    }
    let control = id.bytes().find(u8::is_ascii_control);
    match control {
        Some(b'\r' | b'\n') => Err(EventError::IdLineBreak),
        Some(b'\0') => Err(EventError::IdNul),
        Some(_) => Err(EventError::IdControl),
        None if id.starts_with(' ') || id.ends_with(' ') => Err(EventError::IdSpace),
        None => Ok(()),
    }
}

/// Maximum length of an event's name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Maximum length of a publisher's own id, in bytes.
pub const ID_BYTES_MAX: usize = 255;

/// Maximum length of a key for conflation, in bytes. The log keeps it as long as the
/// event.
pub const KEY_BYTES_MAX: usize = 255;

/// Maximum reconnection delay, in milliseconds: almost 25 days. Beyond it, JavaScript's
/// `setTimeout`, which polyfills use, overflows and fires at once.
pub const RETRY_MS_MAX: u32 = i32::MAX.unsigned_abs();

/// The prefix of the engine's own event names, such as `pushwheel.gap`.
pub const RESERVED_NAME_PREFIX: &str = "pushwheel.";

/// The name of a removal without a name of its own.
const REMOVED_NAME: &str = "pushwheel.removed";

/// Why an event is invalid. It was not published.
///
/// `Display` contains the cause and the fix; [`code`](EventError::code) is for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// The name contains a CR or LF, which would begin another field.
    NameLineBreak,
    /// The name is longer than [`NAME_BYTES_MAX`].
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The name begins with [`RESERVED_NAME_PREFIX`].
    NameReserved,
    /// The id is empty, which would clear the id that the browser remembers.
    IdEmpty,
    /// The id contains a CR or LF, which would begin another field.
    IdLineBreak,
    /// The id contains a NUL. Browsers ignore such an id.
    IdNul,
    /// The id contains another ASCII control character, which is invalid in a header: the
    /// browser's reconnection would be rejected.
    IdControl,
    /// The id begins or ends with a space, which a header loses.
    IdSpace,
    /// The id has the form of the ids that this manager assigns.
    IdReserved,
    /// The event is one of a [`Welcome`](crate::Welcome), and has an id.
    IdInWelcome,
    /// The id is longer than [`ID_BYTES_MAX`].
    IdTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The key for conflation is longer than [`KEY_BYTES_MAX`].
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The event is a removal without a key.
    RemovalWithoutKey,
    /// The reconnection delay is longer than [`RETRY_MS_MAX`].
    RetryTooLong,
}

impl EventError {
    /// Returns a stable name for the error, in snake case: for logs, metrics and JSON.
    ///
    /// ```
    /// use pushwheel::EventError;
    ///
    /// assert_eq!(EventError::NameLineBreak.code(), "event_name_line_break");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            EventError::NameLineBreak => "event_name_line_break",
            EventError::NameTooLong { .. } => "event_name_too_long",
            EventError::NameReserved => "event_name_reserved",
            EventError::IdEmpty => "event_id_empty",
            EventError::IdLineBreak => "event_id_line_break",
            EventError::IdNul => "event_id_nul",
            EventError::IdControl => "event_id_control",
            EventError::IdSpace => "event_id_space",
            EventError::IdReserved => "event_id_reserved",
            EventError::IdInWelcome => "event_id_in_welcome",
            EventError::IdTooLong { .. } => "event_id_too_long",
            EventError::KeyTooLong { .. } => "event_key_too_long",
            EventError::RemovalWithoutKey => "event_removal_without_key",
            EventError::RetryTooLong => "event_retry_too_long",
        }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventError::NameLineBreak => f.write_str(
                "the event's name contains a line break, which would begin another field. Remove CR \
                 and LF from the name",
            ),
            EventError::NameTooLong { bytes } => write!(
                f,
                "the event's name has {bytes} bytes, and the maximum is {NAME_BYTES_MAX}. Shorten \
                 it, and put the rest into the data",
            ),
            EventError::NameReserved => write!(
                f,
                "event names that begin with `{RESERVED_NAME_PREFIX}` are reserved. Choose another \
                 name",
            ),
            EventError::IdEmpty => f.write_str(
                "the event's id is empty, which would make browsers forget their position. Set an \
                 id, or leave it to the engine",
            ),
            EventError::IdLineBreak => f.write_str(
                "the event's id contains a line break, which would begin another field. Remove CR \
                 and LF from the id",
            ),
            EventError::IdNul => f.write_str(
                "the event's id contains a NUL, and browsers ignore such ids. Remove it from the id",
            ),
            EventError::IdControl => f.write_str(
                "the event's id contains a control character, which a browser cannot send back. \
                 Remove it from the id",
            ),
            EventError::IdSpace => f.write_str(
                "the event's id begins or ends with a space, which is lost on the way back. Trim the \
                 id",
            ),
            EventError::IdInWelcome => f.write_str(
                "an event of a welcome cannot have an id, because a client cannot resume \
                 after it. Leave out the id, or send the event with Channel::send.",
            ),
            EventError::IdReserved => f.write_str(
                "the event's id has the form of the engine's own ids. Choose another, or leave \
                 the id to the engine",
            ),
            EventError::IdTooLong { bytes } => write!(
                f,
                "the event's id has {bytes} bytes, and the maximum is {ID_BYTES_MAX}. Shorten it, \
                 or leave it to the engine",
            ),
            EventError::KeyTooLong { bytes } => write!(
                f,
                "the event's key has {bytes} bytes, and the maximum is {KEY_BYTES_MAX}. Shorten it, \
                 or use a digest of it",
            ),
            EventError::RemovalWithoutKey => f.write_str(
                "the event is a removal without a key. Set the key that it removes",
            ),
            EventError::RetryTooLong => write!(
                f,
                "the event's reconnection delay is longer than {RETRY_MS_MAX} ms, beyond which \
                 browsers' timers overflow. Choose a shorter one",
            ),
        }
    }
}

impl std::error::Error for EventError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(event: Event<'_>) -> &'static str {
        match event.check() {
            Ok(()) => "none",
            Err(error) => error.code(),
        }
    }

    #[test]
    fn an_event_gives_back_what_it_was_given() {
        let event = Event::new("n", "d")
            .with_id("i")
            .with_key("k")
            .with_retry(Duration::from_millis(7));
        assert_eq!(event.name(), Some("n"));
        assert_eq!(event.data(), "d");
        assert_eq!(event.id(), Some("i"));
        assert_eq!(event.key(), Some("k"));
        assert_eq!(event.retry(), Some(Duration::from_millis(7)));
        assert_eq!(event.clone().into_owned(), event);
    }

    #[test]
    fn empty_names_and_keys_are_none() {
        assert_eq!(Event::new("", "d"), Event::message("d"));
        assert_eq!(Event::message("d").with_key(""), Event::message("d"));
        assert_eq!(Event::new("n", "d").with_name(""), Event::message("d"));
        assert_eq!(Event::default(), Event::message(""));
    }

    #[test]
    fn json_is_compact_and_quotes_strings() {
        let value = serde_json::json!({"a": [1, 2], "b": "x\r\ny"});
        let event = Event::json("j", &value).unwrap();
        assert_eq!(event.data(), r#"{"a":[1,2],"b":"x\r\ny"}"#);
        assert_eq!(Event::json("j", "text").unwrap().data(), r#""text""#);
        let keys_not_strings = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(Event::json("j", &keys_not_strings).is_err());
    }

    #[test]
    fn names_that_could_begin_a_field_are_refused() {
        for name in ["a\nb", "a\rb", "\r\n", "a\n", "\rdata: x"] {
            assert_eq!(refusal(Event::new(name, "")), "event_name_line_break");
        }
        for name in ["open", "error", "a b", " a", ":", "a\0b", "\u{2028}"] {
            assert_eq!(refusal(Event::new(name, "")), "none", "{name:?}");
        }
    }

    #[test]
    fn the_engines_names_are_refused() {
        for name in ["pushwheel.", "pushwheel.gap", "pushwheel.\n"] {
            assert_eq!(refusal(Event::new(name, "")), "event_name_reserved");
        }
        for name in ["pushwheel", "Pushwheel.gap", " pushwheel.gap"] {
            assert_eq!(refusal(Event::new(name, "")), "none", "{name:?}");
        }
    }

    #[test]
    fn a_removal_names_its_key_and_only_it_may_have_the_engines_name() {
        let removal = Event::removal("a\"b");
        assert_eq!(refusal(removal.clone()), "none");
        assert_eq!(removal.data(), r#"{"key":"a\"b"}"#);
        assert_eq!(removal.clone().into_owned(), removal);
        for (event, code) in [
            (Event::new("gone", "x").with_key("k").removing(), "none"),
            (Event::message("x").removing(), "event_removal_without_key"),
            (Event::removal(""), "event_removal_without_key"),
            (removal.with_key("c"), "event_name_reserved"),
            (
                Event::new(REMOVED_NAME, "x").with_key("k").removing(),
                "event_name_reserved",
            ),
            (
                Event::new(REMOVED_NAME, r#"{"key":"k"}"#).with_key("k"),
                "event_name_reserved",
            ),
        ] {
            assert_eq!(refusal(event), code);
        }
    }

    #[test]
    fn ids_that_would_not_come_back_are_refused() {
        for (id, code) in [
            ("", "event_id_empty"),
            ("a\nb", "event_id_line_break"),
            ("a\r", "event_id_line_break"),
            ("a\0", "event_id_nul"),
            ("a\tb", "event_id_control"),
            ("a\u{7f}", "event_id_control"),
            (" a", "event_id_space"),
            ("a ", "event_id_space"),
            ("a b", "none"),
            ("é", "none"),
        ] {
            assert_eq!(refusal(Event::message("").with_id(id)), code, "{id:?}");
        }
    }

    #[test]
    fn each_limit_is_the_longest_allowed() {
        let (longest, too_long) = ("x".repeat(255), "x".repeat(256));
        for (event, code) in [
            (Event::new(&longest, ""), "none"),
            (Event::new(&too_long, ""), "event_name_too_long"),
            (Event::message("").with_id(&longest), "none"),
            (Event::message("").with_id(&too_long), "event_id_too_long"),
            (Event::message("").with_key(&longest), "none"),
            (Event::message("").with_key(&too_long), "event_key_too_long"),
        ] {
            assert_eq!(refusal(event), code);
        }
    }

    #[test]
    fn retry_is_rounded_up_to_milliseconds_and_limited() {
        let longest = Duration::from_millis(u64::from(RETRY_MS_MAX));
        for (retry, ms) in [
            (Duration::ZERO, Ok(Some(0))),
            (Duration::from_nanos(1), Ok(Some(1))),
            (Duration::from_micros(1_500), Ok(Some(2))),
            (Duration::from_secs(3), Ok(Some(3_000))),
            (longest, Ok(Some(RETRY_MS_MAX))),
            (
                longest + Duration::from_nanos(1),
                Err(EventError::RetryTooLong),
            ),
            (Duration::MAX, Err(EventError::RetryTooLong)),
        ] {
            assert_eq!(Event::message("").with_retry(retry).retry_ms(), ms);
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = EventError::NameTooLong { bytes: 300 };
        assert_eq!(
            error.to_string(),
            "the event's name has 300 bytes, and the maximum is 255. Shorten it, and put the \
             rest into the data"
        );
    }
}
