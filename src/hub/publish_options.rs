//! What a publisher may demand of a publish, besides its events.

use super::audience::Audience;
use super::id::EventId;
use super::idempotency::{IdempotencyKey, Keyed};
use super::ready::Ready;
use super::target::Target;

/// The options of a publish, by method chaining; see
/// [`Channel::publish_with`](crate::Channel::publish_with).
///
/// ```
/// use pushwheel::{ChannelManager, Event, IdempotencyKey, PublishOptions};
///
/// let answer = ChannelManager::new().get_or_create("answer-7")?;
/// let key = IdempotencyKey::new("answer-7, the end");
/// let options = PublishOptions::new().idempotency_key(key).finishing();
/// let publish = || answer.publish_with([Event::message("done")], &options);
///
/// let first = publish()?;
/// let again = publish()?;
/// assert!(again.is_repeated && again.id == first.id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    pub(super) target: Target,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) newest: Option<EventId>,
    pub(super) finishes: bool,
}

impl PublishOptions {
    /// Returns the options of [`Channel::publish`](crate::Channel::publish) to all clients.
    #[must_use]
    #[inline]
    pub fn new() -> PublishOptions {
        PublishOptions::default()
    }

    /// Sets the clients that the events are for. Default: all.
    #[must_use]
    #[inline]
    pub fn target(mut self, target: Target) -> PublishOptions {
        self.target = target;
        self
    }

    /// Makes the publish repeatable: the same publish with the same key is done once, and
    /// each later one returns the first result, with
    /// [`is_repeated`](crate::Published::is_repeated). Another publish with the key is
    /// rejected ([`PublishError::KeyReused`](crate::PublishError::KeyReused)).
    ///
    /// Each channel has keys of its own. The last 131,072 keys of all channels are
    /// remembered for 24 hours, in saved states and in a journal too. With a journal, a key
    /// whose first publish has no result yet is rejected
    /// ([`PublishError::KeyInFlight`](crate::PublishError::KeyInFlight)).
    #[must_use]
    #[inline]
    pub fn idempotency_key(mut self, key: IdempotencyKey) -> PublishOptions {
        self.key = Some(key);
        self
    }

    /// Publishes only if the channel has no event after this one. Default: whatever it has.
    /// Otherwise the publish is rejected
    /// ([`PublishError::NotNewest`](crate::PublishError::NotNewest)).
    #[must_use]
    #[inline]
    pub fn if_newest(mut self, id: EventId) -> PublishOptions {
        self.newest = Some(id);
        self
    }

    /// Finishes the channel behind the events, as
    /// [`Channel::finish`](crate::Channel::finish) does: both are done or none.
    #[must_use]
    #[inline]
    pub fn finishing(mut self) -> PublishOptions {
        self.finishes = true;
        self
    }
}

/// The demands of a publish, as the hub checks them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demands<'a> {
    pub(super) keyed: Option<Keyed>,
    /// The event after which the channel must have no other.
    pub(super) newest: Option<&'a EventId>,
    pub(super) finishes: bool,
}

impl<'a> Demands<'a> {
    /// Returns the demands of a publish of `events` to `audience` in the channel of a name.
    #[inline]
    pub(super) fn of(
        options: &'a PublishOptions,
        name: &str,
        events: &[Ready],
        audience: Option<&Audience>,
    ) -> Demands<'a> {
        let finishes = options.finishes;
        let keyed = options.key;
        Demands {
            keyed: keyed.map(|key| Keyed::of(key, name, events, audience, finishes)),
            newest: options.newest.as_ref(),
            finishes,
        }
    }
}
