//! The welcome: what a client's own `on_connect` sends to it.
//!
//! It goes out right after the client's replay, whatever others publish
//! meanwhile; so it is no part of the log and has no id. What anybody else
//! sends to the client is an event like any other. So what tells them apart is
//! the thread: the one that runs the callback notes whom it is connecting.

use std::cell::RefCell;
use std::ptr;

use super::channel::{PublishError, Published};
use super::client::{ClientId, ConnectionId};
use super::publish::Ready;
use super::{ChannelKey, Hub};

/// Whom a thread is connecting.
struct Newcomer {
    /// Only to be compared.
    hub: *const Hub,
    connection: ConnectionId,
    /// What it was sent so far.
    welcome: Vec<u8>,
}

thread_local! {
    static NEWCOMER: RefCell<Option<Newcomer>> = const { RefCell::new(None) };
}

impl Hub {
    /// Calls the `on_connect` of a client that has just joined; answers its
    /// welcome.
    pub(crate) fn connect(&self, connection: ConnectionId, on_connect: impl FnOnce()) -> Vec<u8> {
        let newcomer = Newcomer {
            hub: self,
            connection,
            welcome: Vec::new(),
        };
        let outer = NEWCOMER.replace(Some(newcomer));
        on_connect();
        let newcomer = NEWCOMER.replace(outer);
        newcomer.map_or_else(Vec::new, |newcomer| newcomer.welcome)
    }

    /// Adds events to the welcome of the client that this thread is connecting,
    /// if they are for that one. `None`: they are for the log.
    pub(super) fn add_to_welcome(
        &self,
        key: ChannelKey,
        id: &ClientId,
        events: &[Ready],
    ) -> Result<Option<Published>, PublishError> {
        let add = |newcomer: &RefCell<Option<Newcomer>>| {
            let mut newcomer = newcomer.borrow_mut();
            let is_here = |newcomer: &&mut Newcomer| ptr::eq(newcomer.hub, self);
            let Some(newcomer) = newcomer.as_mut().filter(is_here) else {
                return Ok(None);
            };
            let mut state = self.lock();
            let channel = state.get_mut(key).ok_or(PublishError::Closed)?;
            channel.check(events)?;
            let member = channel.members.find(id);
            let member = member.and_then(|slot| channel.members.get(slot));
            let is_it = member.is_some_and(|member| member.connection() == newcomer.connection);
            let has_room = newcomer.welcome.len() <= channel.options.backlog_bytes_max;
            // An id of their publisher's is to be found in the log.
            let has_own_ids = events.iter().any(|ready| ready.own_id().is_some());
            if !is_it || !has_room || has_own_ids {
                return Ok(None);
            }
            channel.published += events.len() as u64;
            for ready in events {
                let bytes = ready.frame.as_bytes();
                newcomer.welcome.extend_from_slice(bytes);
                state.totals.published += 1;
                state.totals.published_bytes += bytes.len() as u64;
            }
            Ok(Some(Published {
                id: self.id_of(state.sequence),
                events: events.len(),
                clients: 1,
                duplicates: 0,
            }))
        };
        // A thread whose locals are gone is connecting nobody.
        NEWCOMER.try_with(add).unwrap_or(Ok(None))
    }
}
