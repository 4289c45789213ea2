//! What makes an event valid.

use super::error::{
    EventError, ID_BYTES_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, RESERVED_NAME_PREFIX, RETRY_MS_MAX,
};
use super::{Event, REMOVED_NAME, removal_data};

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refusal(event: Event<'_>) -> &'static str {
        match event.check() {
            Ok(()) => "none",
            Err(error) => error.code(),
        }
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
}
