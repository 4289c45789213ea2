//! The clients that a publisher chooses for an event.

use std::sync::Arc;

use super::audience::{Audience, Choice, Condition};
use super::client::ClientId;

/// The clients that events are for; see [`Channel::publish`](crate::Channel::publish).
///
/// The target is kept with the event, so a client that comes back with its
/// `Last-Event-ID` receives the events that are for it, and no others.
///
/// ```
/// use pushwheel::{ChannelManager, ClientId, Condition, Event, Target};
///
/// let news = ChannelManager::new().get_or_create("news")?;
/// let event = || [Event::new("headline", "It works")];
/// news.publish(event(), Target::All)?;
/// news.publish(event(), Target::Client(ClientId::new("ann")?))?;
/// news.publish(event(), Target::Except(ClientId::new("ann")?))?;
/// news.publish(event(), Target::Where(vec![Condition::new("role", "admin")]))?;
/// news.publish(event(), news.filter(|client| client.metadata["age"] != 7))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// All clients. The default.
    #[default]
    All,
    /// The client with this id. A client whose id the engine generated comes back
    /// under another id, and receives a `pushwheel.gap` event with the reason
    /// `audience` instead.
    Client(ClientId),
    /// All clients except the one with this id. A client whose id the engine
    /// generated has another id when it comes back, and then receives the event.
    Except(ClientId),
    /// The clients whose metadata meet all of these conditions.
    Where(Vec<Condition>),
    /// The clients with these ids, which a filter has chosen
    /// ([`Channel::filter`](crate::Channel::filter)). A client that was away when
    /// the filter ran receives a `pushwheel.gap` event with the reason `audience`
    /// when it comes back.
    Filtered(Vec<ClientId>),
}

impl Target {
    /// Returns the audience of the events, or `None` if they are for all clients.
    #[inline(always)]
    pub(super) fn audience(&self) -> Option<Arc<Audience>> {
        match self {
            // Most are, and cloning the others is not for free.
            Target::All => None,
            target => target.clone().into_audience(),
        }
    }

    /// Returns the audience as [`audience`](Self::audience) does.
    #[inline(always)]
    pub(super) fn into_audience(self) -> Option<Arc<Audience>> {
        let audience = match self {
            Target::All => return None,
            Target::Client(id) => Audience::clients(vec![id], Choice::Named),
            Target::Except(id) => Audience::except(vec![id]),
            Target::Where(conditions) => Audience::Where(conditions.into()),
            Target::Filtered(ids) => Audience::clients(ids, Choice::Filtered),
        };
        Some(Arc::new(audience))
    }
}
