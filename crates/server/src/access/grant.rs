//! What whoever sent a request may do, and what is known of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::credential::CredentialId;
use super::refused::Refused;
use crate::pattern::{Pattern, PatternError};
use pushwheel::ClientId;

/// The channels that are meant by some patterns, which a token and its tickets
/// share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channels(Arc<[Pattern]>);

impl Channels {
    pub(crate) fn all() -> Channels {
        Channels([Pattern::all()].into())
    }

    /// # Errors
    /// When one of the texts is no pattern.
    pub(super) fn parse(texts: &[String]) -> Result<Channels, PatternError> {
        let patterns = texts.iter().map(|text| text.parse());
        patterns.collect::<Result<_, _>>().map(Channels)
    }

    /// Returns about how many bytes the patterns take, without their names.
    fn bytes(&self) -> usize {
        /// The pattern and the allocation of its name.
        const PATTERN_BYTES: usize = size_of::<Pattern>() + 32;
        self.0.len() * PATTERN_BYTES
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    pub(crate) fn has_all(&self) -> bool {
        self.0.iter().any(|pattern| pattern.covers(&Pattern::all()))
    }

    /// Whether all that `others` means is meant here too, by one pattern for
    /// each of theirs.
    pub(super) fn cover(&self, others: &Channels) -> bool {
        let covers = |other: &Pattern| self.0.iter().any(|pattern| pattern.covers(other));
        others.0.iter().all(covers)
    }
}

/// What a credential gives to whoever sent it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grant {
    pub(crate) subscribe: Channels,
    pub(crate) publish: Channels,
    /// Whether what the query says of the client is believed.
    pub(crate) is_believed: bool,
    /// Which token it is of, if it is one's.
    pub(crate) token: Option<u64>,
    /// The key behind it: the one that signed its token, or the one that made the
    /// ticket. None where no key is needed.
    pub(super) key: Option<CredentialId>,
    /// Whether it is a ticket's, which is good for its own channels alone.
    pub(super) is_ticket: bool,
    pub(crate) client: Option<ClientId>,
    pub(crate) metadata: Option<Arc<Map<String, Value>>>,
    /// The time before which it grants nothing, in seconds since 1970.
    pub(super) starts_at_s: Option<f64>,
    /// From when on it is worth nothing, in seconds since 1970.
    pub(super) expires_at_s: Option<f64>,
    /// How long a stream may last.
    pub(super) stream_time: Option<Duration>,
}

impl Grant {
    /// Of whoever has a key, and of everybody where none is needed.
    pub(crate) fn everything() -> Grant {
        Grant {
            subscribe: Channels::all(),
            publish: Channels::all(),
            is_believed: true,
            ..Grant::default()
        }
    }

    /// Returns the grant if it holds at `now_s`.
    pub(super) fn holds_at(self: Arc<Grant>, now_s: f64) -> Result<Arc<Grant>, Refused> {
        if self.starts_at_s.is_some_and(|starts| starts > now_s) {
            return Err(Refused::TokenNotYet);
        }
        match self.has_expired(now_s) {
            true => Err(Refused::TokenExpired),
            false => Ok(self),
        }
    }

    /// Returns about how many bytes the grant takes.
    pub(super) fn bytes(&self) -> usize {
        /// A field of metadata takes some hundred bytes in its tree.
        const METADATA_FIELD_BYTES: usize = 128;
        let metadata = self.metadata.as_ref().map_or(0, |metadata| metadata.len());
        size_of::<Grant>()
            + self.subscribe.bytes()
            + self.publish.bytes()
            + metadata * METADATA_FIELD_BYTES
    }

    pub(super) fn has_expired(&self, now_s: f64) -> bool {
        self.expires_at_s.is_some_and(|expires| expires <= now_s)
    }

    /// How long a stream may last that is opened now.
    pub(super) fn time_left(&self, now_s: f64) -> Option<Duration> {
        // What is beyond a `Duration` never comes.
        let left = |expires: f64| Duration::try_from_secs_f64((expires - now_s).max(0.0)).ok();
        let until_expiry = self.expires_at_s.and_then(left);
        match (until_expiry, self.stream_time) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(texts: &[&str]) -> Channels {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        Channels::parse(&texts).unwrap()
    }

    #[test]
    fn channels_cover_what_is_narrower() {
        let mine = channels(&["news", "user.7.*"]);
        for (others, are_covered) in [
            (&[][..], true),
            (&["news"], true),
            (&["user.7.*", "user.7.inbox", "user.7.a.*"], true),
            (&["news*"], false),
            (&["user.*"], false),
            (&["news", "user.8"], false),
            (&["*"], false),
        ] {
            assert_eq!(mine.cover(&channels(others)), are_covered, "{others:?}");
        }
        assert!(Channels::all().cover(&channels(&["*", "a"])));
        assert!(Channels::all().has_all() && !mine.has_all());
    }

    #[test]
    fn a_stream_lasts_until_the_first_of_its_limits() {
        let mut grant = Grant::everything();
        assert_eq!(grant.time_left(10.0), None);
        grant.stream_time = Some(Duration::from_secs(5));
        assert_eq!(grant.time_left(10.0), Some(Duration::from_secs(5)));
        grant.expires_at_s = Some(12.5);
        assert_eq!(grant.time_left(10.0), Some(Duration::from_millis(2500)));
        assert_eq!(grant.time_left(20.0), Some(Duration::ZERO));
        assert!(!grant.has_expired(12.0) && grant.has_expired(12.5));
        grant.stream_time = None;
        grant.expires_at_s = Some(1e300);
        assert_eq!(grant.time_left(20.0), None);
    }
}
