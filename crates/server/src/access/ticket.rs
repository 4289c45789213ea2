//! The tickets that are valid. A ticket opens one stream, within seconds.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::grant::Grant;
use super::refused::Refused;

/// The share of all tickets that one token may hold is 1 / 10, so that its holder leaves
/// tickets for others.
const SHARE_OF_A_TOKEN: usize = 10;

/// How long a ticket of another node stays here, if the request that has brought it fails.
const MOMENT: Duration = Duration::from_secs(5);

/// Maximum expired tickets that a call removes while it holds the lock. A call adds at most
/// one, so they do not accumulate.
const REMOVED_MAX: usize = 16;

/// The tickets of a server. All clones share them, and they outlive a reload.
#[derive(Clone)]
pub(super) struct TicketStore {
    tickets: Arc<Mutex<Tickets>>,
    started: Instant,
}

impl fmt::Debug for TicketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketStore").finish_non_exhaustive()
    }
}

/// Pure: the time is an argument.
#[derive(Default)]
struct Tickets {
    /// The map hashes with a secret, so the time of a failed search reveals nothing
    /// about the tickets.
    by_name: HashMap<Box<str>, Ticket>,
    /// All tickets in the order in which they were made, used ones until they would have
    /// expired.
    queue: VecDeque<Issued>,
    /// For each token the times at which its tickets expire, in the order of the queue.
    /// Some that have expired are removed earlier than from the queue.
    by_token: HashMap<u64, VecDeque<u64>>,
}

struct Issued {
    name: Box<str>,
    expires_at_ms: u64,
    /// The token that made it; `None` for a key.
    token: Option<u64>,
}

struct Ticket {
    grant: Arc<Grant>,
    expires_at_ms: u64,
}

impl TicketStore {
    #[allow(
        clippy::disallowed_methods,
        reason = "the edge: milliseconds are counted from here"
    )]
    pub(super) fn new() -> TicketStore {
        TicketStore {
            tickets: Arc::default(),
            started: Instant::now(),
        }
    }

    /// Makes a ticket that is valid for `time`, and returns its name.
    ///
    /// # Errors
    /// If there are `max` tickets, or `token` has made its share of them.
    pub(super) fn make(
        &self,
        grant: Arc<Grant>,
        token: Option<u64>,
        time: Duration,
        max: usize,
    ) -> Result<String, Refused> {
        // Each UUID has 122 random bits.
        let name = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.put(&name, grant, token, time, max, self.now_ms())?;
        Ok(name)
    }

    /// Keeps a ticket of another node for a moment, until a request uses it.
    pub(super) fn receive(&self, name: &str, grant: Arc<Grant>) {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let put = tickets.put(name, grant, None, MOMENT, usize::MAX, self.now_ms());
        put.expect("there is no maximum");
    }

    /// Returns the grant of a ticket. With `is_used` the ticket cannot be used again.
    pub(super) fn take(&self, name: &str, is_used: bool) -> Result<Arc<Grant>, Refused> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = tickets.take(name, is_used, self.now_ms());
        grant.ok_or(Refused::TicketUnknown)
    }

    #[allow(clippy::cast_possible_truncation, reason = "584 million years")]
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Tickets {
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
        self.remove_expired(now_ms);
        if let Some(expires_at_ms) = self.oldest_in_the_way(token, max, now_ms) {
            let retry_after = Duration::from_millis(expires_at_ms.saturating_sub(now_ms));
            return Err(Refused::TicketsTooMany { retry_after });
        }
        let expires_at_ms = now_ms.saturating_add(time.as_millis() as u64);
        self.queue.push_back(Issued {
            name: name.into(),
            expires_at_ms,
            token,
        });
        if let Some(token) = token {
            let of_token = self.by_token.entry(token).or_default();
            of_token.push_back(expires_at_ms);
        }
        let ticket = Ticket {
            grant,
            expires_at_ms,
        };
        self.by_name.insert(name.into(), ticket);
        Ok(())
    }

    /// Returns the time at which the oldest ticket expires, if there are `max` tickets, or
    /// that of `token`'s oldest, if the token has its share.
    fn oldest_in_the_way(&mut self, token: Option<u64>, max: usize, now_ms: u64) -> Option<u64> {
        if self.queue.len() >= max {
            let oldest = self.queue.front();
            return Some(oldest.map_or(now_ms, |issued| issued.expires_at_ms));
        }
        // Its expired tickets may be in the queue behind those of others.
        let of_token = self.by_token.get_mut(&token?)?;
        for _ in 0..REMOVED_MAX {
            pop_if(of_token, |expires_at_ms| *expires_at_ms <= now_ms);
        }
        let share = (max / SHARE_OF_A_TOKEN).max(1);
        of_token
            .front()
            .copied()
            .filter(|_| of_token.len() >= share)
    }

    fn take(&mut self, name: &str, is_used: bool, now_ms: u64) -> Option<Arc<Grant>> {
        self.remove_expired(now_ms);
        let ticket = self.by_name.get(name)?;
        let is_valid = ticket.expires_at_ms > now_ms;
        let grant = is_valid.then(|| ticket.grant.clone());
        if is_used || !is_valid {
            self.by_name.remove(name);
        }
        grant
    }

    /// Removes some expired tickets from the front of the queue. Others stay longer, also
    /// after a reload has shortened their time; `take` checks each.
    fn remove_expired(&mut self, now_ms: u64) {
        for _ in 0..REMOVED_MAX {
            let is_expired = |oldest: &Issued| oldest.expires_at_ms <= now_ms;
            let Some(oldest) = pop_if(&mut self.queue, is_expired) else {
                return;
            };
            self.by_name.remove(&oldest.name);
            if let Some(token) = oldest.token
                && let Some(of_token) = self.by_token.get_mut(&token)
            {
                pop_if(of_token, |expires_at_ms| *expires_at_ms <= now_ms);
                if of_token.is_empty() {
                    self.by_token.remove(&token);
                }
            }
        }
    }
}

/// Removes the first item if it is the right one.
fn pop_if<T>(queue: &mut VecDeque<T>, is_right: impl Fn(&T) -> bool) -> Option<T> {
    match queue.front().is_some_and(is_right) {
        true => queue.pop_front(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(30);

    fn grant() -> Arc<Grant> {
        Grant::everything()
    }

    #[test]
    fn a_ticket_is_good_once_and_for_a_time() {
        let mut tickets = Tickets::default();
        tickets.put("a", grant(), None, TIME, 9, 0).unwrap();
        tickets.put("b", grant(), None, TIME, 9, 10).unwrap();
        assert!(tickets.take("c", true, 10).is_none());
        // Looking does not use it up.
        assert!(tickets.take("a", false, 10).is_some());
        assert!(tickets.take("a", true, 29).is_some());
        assert!(tickets.take("a", true, 29).is_none());
        assert!(tickets.take("b", true, 40).is_none());
        assert!(tickets.by_name.is_empty() && tickets.queue.is_empty());
    }

    #[test]
    fn a_shorter_time_holds_behind_a_longer_one() {
        let mut tickets = Tickets::default();
        tickets.put("long", grant(), None, TIME, 9, 0).unwrap();
        tickets.put("short", grant(), None, TIME / 3, 9, 0).unwrap();
        assert!(tickets.take("short", true, 10).is_none());
        assert!(tickets.take("long", true, 10).is_some());
    }

    #[test]
    fn tickets_have_a_maximum() {
        let mut tickets = Tickets::default();
        tickets.put("a", grant(), None, TIME, 2, 0).unwrap();
        tickets.put("b", grant(), None, TIME, 2, 5).unwrap();
        let retry_after = Duration::from_millis(20);
        let full = Err(Refused::TicketsTooMany { retry_after });
        assert_eq!(tickets.put("c", grant(), None, TIME, 2, 10), full);
        // A used ticket counts until it would have expired: using tickets makes no room.
        assert!(tickets.take("a", true, 10).is_some());
        assert_eq!(tickets.put("c", grant(), None, TIME, 2, 10), full);
        assert_eq!(tickets.put("c", grant(), None, TIME, 2, 30), Ok(()));
        assert_eq!(tickets.by_name.len(), 2);
    }

    #[test]
    fn a_token_takes_no_more_than_its_share() {
        let mut tickets = Tickets::default();
        let (one, other, key) = (Some(1), Some(2), None);
        let mut put = |name: &str, token, now_ms| {
            let put = tickets.put(name, grant(), token, TIME, 20, now_ms);
            (put.is_ok(), tickets.by_token.len())
        };
        for (name, is_made) in [("a", true), ("b", true), ("c", false)] {
            assert_eq!(put(name, one, 0), (is_made, 1), "{name}");
        }
        assert_eq!(put("d", other, 10), (true, 2));
        for name in ["e", "f", "g"] {
            assert!(put(name, key, 10).0, "a key has no share");
        }
        // The token's tickets have expired, and nothing is kept of it.
        assert_eq!(put("h", key, 30), (true, 1));
        assert_eq!(put("i", one, 30), (true, 2));
    }

    #[test]
    fn a_call_removes_few_expired_tickets_and_they_stop_no_other() {
        let mut tickets = Tickets::default();
        const MANY: usize = 1_000;
        let one = Some(1);
        for n in 0..MANY {
            // Those of the token are behind all others.
            let token = one.filter(|_| n >= MANY - 100);
            let put = tickets.put(&n.to_string(), grant(), token, TIME, MANY, 0);
            assert_eq!(put, Ok(()));
        }
        assert!(tickets.take("0", true, 30).is_none());
        assert_eq!(tickets.queue.len(), MANY - REMOVED_MAX);
        // Neither the maximum nor the share of the token counts expired tickets.
        assert_eq!(tickets.put("new", grant(), one, TIME, MANY, 30), Ok(()));
        assert_eq!(tickets.queue.len(), MANY + 1 - 2 * REMOVED_MAX);
        for calls in 1.. {
            assert!(tickets.take("new", false, 30).is_some());
            if tickets.queue.len() == 1 {
                assert_eq!(calls, (MANY - 2 * REMOVED_MAX).div_ceil(REMOVED_MAX));
                break;
            }
        }
        assert_eq!(tickets.by_token[&1].len(), 1);
        assert!(tickets.take("new", false, 60).is_none());
        assert!(tickets.by_token.is_empty() && tickets.by_name.is_empty());
    }

    #[test]
    fn a_token_with_its_share_waits_for_its_own_oldest_ticket() {
        let mut tickets = Tickets::default();
        tickets.put("other", grant(), None, TIME, 10, 0).unwrap();
        tickets.put("own", grant(), Some(1), TIME, 10, 10).unwrap();
        let retry_after = Duration::from_millis(20);
        let full = Err(Refused::TicketsTooMany { retry_after });
        assert_eq!(tickets.put("more", grant(), Some(1), TIME, 10, 20), full);
    }

    #[test]
    fn tickets_are_long_and_random() {
        let store = TicketStore::new();
        let [one, other] = [(); 2].map(|()| store.make(grant(), None, TIME, 9).unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(!format!("{store:?}").contains(&one));
    }
}
