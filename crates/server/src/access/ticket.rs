//! Tickets: for pages, whose `EventSource` cannot send headers. Whoever has a
//! token or a key gets one with POST and hands it on; it opens one stream, within
//! seconds, and is worth nothing after.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::credential::CredentialId;
use super::grant::{Channels, Grant};
use super::refused::Refused;
use super::token::TOKEN_BYTES_MAX;
use crate::errors::Problem;
use crate::metadata;
use crate::subscribe::STREAM_CHANNELS_MAX;
use pushwheel::{ClientId, Request, Response};

/// Which part of all tickets one token may have out: whoever has one takes
/// none from the others.
const SHARE_OF_A_TOKEN: usize = 10;

/// How many names and beginnings of names a ticket may list of its own: one
/// stream has no more channels.
const PATTERNS_MAX: usize = STREAM_CHANNELS_MAX;

/// The tickets that are out.
#[derive(Clone)]
pub(super) struct Tickets {
    drawer: Arc<Mutex<Drawer>>,
    started: Instant,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

/// Pure: the time is an argument.
#[derive(Default)]
struct Drawer {
    /// A map hashes with a secret of its own, so the time it takes to find
    /// nothing says nothing of what is there.
    tickets: HashMap<Box<str>, Ticket>,
    /// The same in the order in which they were made. Those that were used stay
    /// until they would have expired.
    queue: VecDeque<Issued>,
    /// How many of the queue each token has made.
    by_token: HashMap<u64, usize>,
}

struct Issued {
    name: Box<str>,
    expires_at_ms: u64,
    /// What has made it, if that is not a key.
    token: Option<u64>,
}

struct Ticket {
    grant: Arc<Grant>,
    expires_at_ms: u64,
}

impl Tickets {
    #[allow(
        clippy::disallowed_methods,
        reason = "the edge: milliseconds are counted from here"
    )]
    pub(super) fn new() -> Tickets {
        Tickets {
            drawer: Arc::default(),
            started: Instant::now(),
        }
    }

    /// Makes a ticket that is good for `time`, if there are less than `max`, and
    /// a token that makes it has not had its share of these.
    pub(super) fn make(
        &self,
        grant: Arc<Grant>,
        token: Option<u64>,
        time: Duration,
        max: usize,
    ) -> Result<String, Refused> {
        // Each UUID has 122 random bits.
        let name = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut drawer = self.drawer.lock().unwrap_or_else(PoisonError::into_inner);
        drawer.put(&name, grant, token, time, max, self.now_ms())?;
        Ok(name)
    }

    /// Uses a ticket up, or looks at it only.
    pub(super) fn take(&self, name: &str, is_used: bool) -> Result<Arc<Grant>, Refused> {
        let mut drawer = self.drawer.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = drawer.take(name, is_used, self.now_ms());
        grant.ok_or(Refused::TicketUnknown)
    }

    #[allow(clippy::cast_possible_truncation, reason = "584 million years")]
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Drawer {
    #[allow(clippy::cast_possible_truncation, reason = "saturates by its setting")]
    fn put(
        &mut self,
        name: &str,
        grant: Arc<Grant>,
        token: Option<u64>,
        time: Duration,
        max: usize,
        now_ms: u64,
    ) -> Result<(), Refused> {
        self.clear_away(now_ms);
        let of_token = token.and_then(|token| self.by_token.get(&token));
        let share = (max / SHARE_OF_A_TOKEN).max(1);
        if self.queue.len() >= max || of_token.is_some_and(|count| *count >= share) {
            let oldest = self.queue.front();
            let oldest = oldest.map_or(now_ms, |issued| issued.expires_at_ms);
            let retry_after = Duration::from_millis(oldest.saturating_sub(now_ms));
            return Err(Refused::TicketsTooMany { retry_after });
        }
        let expires_at_ms = now_ms.saturating_add(time.as_millis() as u64);
        self.queue.push_back(Issued {
            name: name.into(),
            expires_at_ms,
            token,
        });
        if let Some(token) = token {
            *self.by_token.entry(token).or_default() += 1;
        }
        let ticket = Ticket {
            grant,
            expires_at_ms,
        };
        self.tickets.insert(name.into(), ticket);
        Ok(())
    }

    fn take(&mut self, name: &str, is_used: bool, now_ms: u64) -> Option<Arc<Grant>> {
        self.clear_away(now_ms);
        let ticket = self.tickets.get(name)?;
        let is_good = ticket.expires_at_ms > now_ms;
        let grant = is_good.then(|| ticket.grant.clone());
        if is_used || !is_good {
            self.tickets.remove(name);
        }
        grant
    }

    /// Forgets what has expired. They all last as long, unless a reload has
    /// changed that: then some are forgotten later, and are no good before.
    fn clear_away(&mut self, now_ms: u64) {
        while let Some(oldest) = self
            .queue
            .pop_front_if(|oldest| oldest.expires_at_ms <= now_ms)
        {
            self.tickets.remove(&oldest.name);
            let Some(token) = oldest.token else {
                continue;
            };
            if let Entry::Occupied(mut count) = self.by_token.entry(token) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

/// What may be asked for with a ticket. The names are those of the claims.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    subscribe: Option<Vec<String>>,
    client: Option<String>,
    metadata: Option<Map<String, Value>>,
    stream_seconds: Option<u64>,
}

/// Returns the grant of a ticket that the holder of `maker` asks for: the same, or
/// less. With a key it is whatever the body says.
pub(super) fn wished(
    request: &Request,
    maker: &Grant,
    key: Option<CredentialId>,
) -> Result<Grant, Problem> {
    let bytes = request.body().len();
    if bytes > TOKEN_BYTES_MAX {
        return Err(Problem::ticket_too_large(TOKEN_BYTES_MAX));
    }
    let wish: Wish = match bytes {
        0 => Wish::default(),
        _ => request.json()?,
    };
    let says_who = wish.client.is_some() || wish.metadata.is_some();
    if says_who && !maker.is_believed {
        return Err(Refused::TicketBeyond.into());
    }
    let subscribe = match wish.subscribe {
        Some(texts) if texts.len() > PATTERNS_MAX => {
            return Err(Problem::ticket_of_too_many(PATTERNS_MAX));
        }
        Some(texts) => {
            let wished = Channels::parse(&texts).map_err(Problem::pattern)?;
            let is_theirs = maker.subscribe.cover(&wished);
            is_theirs.then_some(wished).ok_or(Refused::TicketBeyond)?
        }
        None if maker.is_believed => return Err(Problem::ticket_of_nothing()),
        None => maker.subscribe.clone(),
    };
    let client = wish.client.as_deref().map(ClientId::new).transpose();
    let client = client.map_err(Problem::client_id)?;
    if let Some(metadata) = &wish.metadata {
        metadata::check(metadata).map_err(Problem::metadata)?;
    }
    let stream_time = wish.stream_seconds.map(Duration::from_secs);
    Ok(Grant {
        subscribe,
        publish: Channels::default(),
        is_believed: false,
        is_ticket: true,
        token: None,
        key,
        client: client.or_else(|| maker.client.clone()),
        metadata: wish
            .metadata
            .map(Arc::new)
            .or_else(|| maker.metadata.clone()),
        // The maker's token holds, so its begin has passed.
        starts_at_s: None,
        expires_at_s: maker.expires_at_s,
        stream_time,
    })
}

/// The answer that hands a ticket out.
pub(super) fn handed_out(ticket: &str, time: Duration) -> Response {
    let answer = json!({"ticket": ticket, "expires_in": time.as_secs()});
    let response = Response::json(&answer).with_header("Cache-Control", "no-store");
    response.expect("this can be a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(30);

    fn grant() -> Arc<Grant> {
        Arc::new(Grant::everything())
    }

    #[test]
    fn a_ticket_is_good_once_and_for_a_time() {
        let mut drawer = Drawer::default();
        drawer.put("a", grant(), None, TIME, 9, 0).unwrap();
        drawer.put("b", grant(), None, TIME, 9, 10).unwrap();
        assert!(drawer.take("c", true, 10).is_none());
        // Looking does not use it up.
        assert!(drawer.take("a", false, 10).is_some());
        assert!(drawer.take("a", true, 29).is_some());
        assert!(drawer.take("a", true, 29).is_none());
        assert!(drawer.take("b", true, 40).is_none());
        assert!(drawer.tickets.is_empty() && drawer.queue.is_empty());
    }

    #[test]
    fn a_shorter_time_holds_behind_a_longer_one() {
        let mut drawer = Drawer::default();
        drawer.put("long", grant(), None, TIME, 9, 0).unwrap();
        drawer.put("short", grant(), None, TIME / 3, 9, 0).unwrap();
        assert!(drawer.take("short", true, 10).is_none());
        assert!(drawer.take("long", true, 10).is_some());
    }

    #[test]
    fn there_are_only_so_many() {
        let mut drawer = Drawer::default();
        drawer.put("a", grant(), None, TIME, 2, 0).unwrap();
        drawer.put("b", grant(), None, TIME, 2, 5).unwrap();
        let retry_after = Duration::from_millis(20);
        let full = Err(Refused::TicketsTooMany { retry_after });
        assert_eq!(drawer.put("c", grant(), None, TIME, 2, 10), full);
        // One that was used counts until it would have expired: who draws many
        // draws no more by using them.
        assert!(drawer.take("a", true, 10).is_some());
        assert_eq!(drawer.put("c", grant(), None, TIME, 2, 10), full);
        assert_eq!(drawer.put("c", grant(), None, TIME, 2, 30), Ok(()));
        assert_eq!(drawer.tickets.len(), 2);
    }

    #[test]
    fn a_token_takes_no_more_than_its_share() {
        let mut drawer = Drawer::default();
        let (one, other, key) = (Some(1), Some(2), None);
        let mut put = |name: &str, token, now_ms| {
            let put = drawer.put(name, grant(), token, TIME, 20, now_ms);
            (put.is_ok(), drawer.by_token.len())
        };
        for (name, is_made) in [("a", true), ("b", true), ("c", false)] {
            assert_eq!(put(name, one, 0), (is_made, 1), "{name}");
        }
        assert_eq!(put("d", other, 10), (true, 2));
        for name in ["e", "f", "g"] {
            assert!(put(name, key, 10).0, "whoever has a key takes any");
        }
        // Its own have expired, and nothing is kept of it.
        assert_eq!(put("h", key, 30), (true, 1));
        assert_eq!(put("i", one, 30), (true, 2));
    }

    #[test]
    fn tickets_are_long_and_random() {
        let tickets = Tickets::new();
        let [one, other] = [(); 2].map(|()| tickets.make(grant(), None, TIME, 9).unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(!format!("{tickets:?}").contains(&one));
    }
}
