//! What a credential grants, and what the server knows of its client.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::{Map, Value};

use super::credential::CredentialId;
use super::refused::Refused;
use crate::pattern::{Pattern, PatternError};
use pushwheel::ClientId;

/// A list of channels and patterns. A token and its tickets share one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channels(Arc<[Pattern]>);

impl Channels {
    pub(crate) fn all() -> Channels {
        Channels([Pattern::all()].into())
    }

    /// # Errors
    /// If one of the texts is not a pattern.
    pub(crate) fn parse(texts: &[String]) -> Result<Channels, PatternError> {
        let patterns = texts.iter().map(|text| text.parse());
        patterns.collect::<Result<_, _>>().map(Channels)
    }

    /// Returns the patterns as texts.
    pub(super) fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Returns about how many bytes the patterns take, without their names.
    fn bytes(&self) -> usize {
        /// The pattern and the allocation of its name.
        const PATTERN_BYTES: usize = size_of::<Pattern>() + 32;
        self.0.len() * PATTERN_BYTES
    }

    /// Whether a pattern matches the channel.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether one pattern matches all channels.
    pub(crate) fn has_all(&self) -> bool {
        self.0.iter().any(|pattern| pattern.covers(&Pattern::all()))
    }

    /// Whether each pattern of `others` is covered by one of these.
    fn cover(&self, others: &Channels) -> bool {
        let covers = |other: &Pattern| self.0.iter().any(|pattern| pattern.covers(other));
        others.0.iter().all(covers)
    }
}

/// The rights of a request, and the identity of its client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grant {
    pub(crate) subscribe: Channels,
    pub(crate) publish: Channels,
    pub(crate) finish: Channels,
    /// Whether the server accepts the client id and metadata in the query.
    pub(crate) is_believed: bool,
    /// The number of the token that grants this, if it is a token.
    pub(crate) token: Option<u64>,
    /// The key behind it: the one that signed the token, or the one that made the
    /// ticket. `None` where no key is needed.
    pub(super) key: Option<CredentialId>,
    /// Whether a ticket grants this: a ticket is not valid for public channels that it
    /// does not list.
    pub(super) is_ticket: bool,
    pub(crate) client: Option<ClientId>,
    pub(crate) metadata: Option<Arc<Map<String, Value>>>,
    /// Seconds since 1970 before which it grants nothing.
    pub(super) starts_at_s: Option<f64>,
    /// Seconds since 1970 from which on it grants nothing.
    pub(super) expires_at_s: Option<f64>,
    /// Maximum time of a stream.
    pub(super) stream_time: Option<Duration>,
}

/// What a request for a ticket asks it to grant.
#[derive(Debug, Default)]
pub(crate) struct TicketContent {
    /// `None`: the channels of its maker.
    pub(crate) subscribe: Option<Channels>,
    pub(crate) client: Option<ClientId>,
    pub(crate) metadata: Option<Arc<Map<String, Value>>>,
    pub(crate) stream_time: Option<Duration>,
}

impl Grant {
    /// The grant of a key, and of every request to a server without keys and tokens. All
    /// share it: each publish asks for it.
    pub(crate) fn everything() -> Arc<Grant> {
        static EVERYTHING: LazyLock<Arc<Grant>> = LazyLock::new(|| {
            let all = Channels::all();
            Arc::new(Grant {
                subscribe: all.clone(),
                publish: all.clone(),
                finish: all,
                is_believed: true,
                ..Grant::default()
            })
        });
        EVERYTHING.clone()
    }

    /// Returns the grant of a ticket that the holder of this grant makes with the key
    /// `key`.
    ///
    /// # Errors
    /// If the ticket would grant more than this.
    pub(super) fn ticket(
        &self,
        content: TicketContent,
        key: Option<CredentialId>,
    ) -> Result<Grant, Refused> {
        let has_identity = content.client.is_some() || content.metadata.is_some();
        let subscribe = content.subscribe.unwrap_or_else(|| self.subscribe.clone());
        if (has_identity && !self.is_believed) || !self.subscribe.cover(&subscribe) {
            return Err(Refused::TicketBeyond);
        }
        Ok(Grant {
            subscribe,
            publish: Channels::default(),
            finish: Channels::default(),
            is_believed: false,
            token: None,
            key,
            is_ticket: true,
            client: content.client.or_else(|| self.client.clone()),
            metadata: content.metadata.or_else(|| self.metadata.clone()),
            // The maker's own grant holds, so its start has passed.
            starts_at_s: None,
            expires_at_s: self.expires_at_s,
            stream_time: content.stream_time,
        })
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
            + self.finish.bytes()
            + metadata * METADATA_FIELD_BYTES
    }

    pub(super) fn has_expired(&self, now_s: f64) -> bool {
        self.expires_at_s.is_some_and(|expires| expires <= now_s)
    }

    /// Returns the maximum time of a stream that is opened at `now_s`.
    pub(crate) fn time_left(&self, now_s: f64) -> Option<Duration> {
        // A time beyond a `Duration` never comes.
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
        let mut grant = Arc::unwrap_or_clone(Grant::everything());
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

    #[test]
    fn a_ticket_grants_at_most_what_its_maker_has() {
        let maker = Grant {
            subscribe: channels(&["news", "user.7.*"]),
            publish: channels(&["chat"]),
            client: Some(ClientId::new("seven").unwrap()),
            expires_at_s: Some(9.0),
            ..Grant::default()
        };
        let asking_for = |texts: &[&str]| TicketContent {
            subscribe: Some(channels(texts)),
            ..TicketContent::default()
        };
        let ticket = maker.ticket(asking_for(&["user.7.inbox"]), None).unwrap();
        assert_eq!(ticket.subscribe, channels(&["user.7.inbox"]));
        assert_eq!(
            (&ticket.client, ticket.expires_at_s),
            (&maker.client, Some(9.0))
        );
        assert!(ticket.is_ticket && !ticket.publish.has("chat"));
        let whole = maker.ticket(TicketContent::default(), None).unwrap();
        assert_eq!(whole.subscribe, maker.subscribe);
        let refused = |maker: &Grant, content| maker.ticket(content, None).unwrap_err();
        assert_eq!(
            refused(&maker, asking_for(&["user.*"])),
            Refused::TicketBeyond
        );
        let with_id = || TicketContent {
            client: Some(ClientId::new("eight").unwrap()),
            ..TicketContent::default()
        };
        assert_eq!(refused(&maker, with_id()), Refused::TicketBeyond);
        let ticket = Grant::everything().ticket(with_id(), None).unwrap();
        assert_eq!(ticket.client, with_id().client);
    }
}
