//! [`Event`]: what is published.
//!
//! Construction never fails; publishing checks the event (`checks`). The bytes on the wire
//! are in `frame`.
//!
//! The invariant to remember: nothing that is published turns into another field or event.
//! Data may be any text; a name or an id that could end its line is rejected, never changed
//! silently.

mod checks;
mod error;

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

pub(crate) use checks::check_id;
pub use error::{
    EventError, ID_BYTES_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, RESERVED_NAME_PREFIX, RETRY_MS_MAX,
};

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
    /// be on one stream should not share one. The last 131,072 ids of all channels are
    /// remembered for 24 hours, each for its channel. A channel does not append the same
    /// event with the same id again
    /// ([`Published::duplicates`](crate::Published::duplicates)), and rejects another event
    /// with that id ([`PublishError::IdReused`](crate::PublishError::IdReused)). If
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

/// Returns the data of a removal without data of its own.
pub(crate) fn removal_data(key: &str) -> String {
    serde_json::json!({ "key": key }).to_string()
}

/// The name of a removal without a name of its own.
const REMOVED_NAME: &str = "pushwheel.removed";

#[cfg(test)]
mod tests {
    use super::*;

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
}
