//! One channel, as the hub's lock protects it: its log, its members, and where it is
//! in its life.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::audience::{Audience, Choice};
use super::client::{ClientInfo, Member};
use super::clock::Clock;
use super::dropped::Dropped;
use super::ids::Ids;
use super::log::Log;
use super::looks::LOOKS_MAX;
use super::members::{Freed, Members};
use super::memory::Counted;
use super::options::ChannelOptions;
use super::published::PublishError;
use super::rate::Bucket;
use super::reactors::{DisconnectCall, Progress};
use super::remembered::ALL;
use super::sink_signal::SinkSignal;
use super::stats::ChannelStats;

/// The purpose of a channel.
pub(super) enum Kind {
    /// Clients subscribe by its name.
    Named(Arc<str>),
    /// It is the stream of one client, and is removed with it.
    Private(Arc<SinkSignal>),
}

/// How a channel was finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    /// Its last entry is at or before this. A client that has been sent everything up
    /// to here is done.
    pub(super) through: u64,
    /// Until when it keeps its name, for clients that come back.
    pub(super) until_ms: u64,
}

/// The stage of a channel's life. It only goes on to a later stage.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    /// It accepts events.
    Open,
    /// It accepts no more events. Clients can subscribe to what it has.
    Finishing(Finish),
    /// Its name is free for another channel, and no client can join. It is there for
    /// the clients that it has, and removed with the last of them.
    Over {
        /// As in [`Finish`].
        through: u64,
    },
    /// It is being removed: its clients are being disconnected, some at a time.
    Closing,
}

impl Life {
    /// Returns the last sequence number that its clients are owed, if it accepts no
    /// more events.
    pub(super) fn through(&self) -> Option<u64> {
        match self {
            Life::Open | Life::Closing => None,
            Life::Finishing(finish) => Some(finish.through),
            Life::Over { through } => Some(*through),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Life::Open)
    }

    /// Returns whether its name is free, and no client can join.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Life::Over { .. } | Life::Closing)
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Life::Closing)
    }
}

/// Events, deliveries and gaps, since the channel was made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) gaps: u64,
}

/// See the [module](self).
pub(super) struct ChannelState {
    pub(super) generation: u32,
    pub(super) kind: Kind,
    pub(super) life: Life,
    pub(super) options: Arc<ChannelOptions>,
    pub(super) log: Log,
    /// A channel that was restored has everything up to this number of what is applied
    /// again.
    pub(super) restored_through: u64,
    /// Whether a record of the log that this process has applied was for it.
    pub(super) is_recorded: bool,
    pub(super) members: Members,
    /// The members whose stream has this channel as its first.
    pub(super) streams: usize,
    /// By reactor.
    pub(super) progress: Vec<Progress>,
    pub(super) counts: Counts,
    /// Held by the handles to it: while there is one, the channel is not cleaned up.
    pub(super) handles: Weak<()>,
    /// Since when it has had no clients.
    pub(super) empty_since_ms: u64,
    /// What is left of the rate at which it may be published to.
    pub(super) bucket: Option<Bucket>,
    /// The source of requests that this unpublished channel is counted for.
    pub(super) source: Option<u64>,
    pub(super) counted: Counted,
}

impl ChannelState {
    pub(super) fn new(
        generation: u32,
        kind: Kind,
        options: Arc<ChannelOptions>,
        log: Log,
        now_ms: u64,
    ) -> ChannelState {
        ChannelState {
            generation,
            kind,
            life: Life::Open,
            log,
            restored_through: 0,
            is_recorded: false,
            members: Members::new(&options.indexed),
            streams: 0,
            options,
            progress: Vec::new(),
            counts: Counts::default(),
            handles: Weak::new(),
            empty_since_ms: now_ms,
            bucket: None,
            source: None,
            counted: Counted::default(),
        }
    }

    /// Returns the name, if it has ever had one.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Named(name) => Some(name),
            Kind::Private(_) => None,
        }
    }

    /// Returns the scope of the own ids of its events: its name.
    pub(super) fn scope(&self) -> &str {
        self.name().map_or(ALL, |name| name)
    }

    /// Returns the name, if clients can subscribe by it.
    pub(super) fn current_name(&self) -> Option<&Arc<str>> {
        self.name().filter(|_| !self.life.is_over())
    }

    /// Returns whether it is there only for the clients that it has.
    pub(super) fn ends_with_last_member(&self) -> bool {
        matches!(self.kind, Kind::Private(_)) || self.life.is_over()
    }

    // ---- log ----

    /// Returns the number behind which its log begins, if no record has made it yet. The next
    /// one says it.
    pub(super) fn begins_after(&self) -> Option<u64> {
        (!self.is_recorded).then(|| self.log.began_after())
    }

    /// Returns the newest number of a change that the channel has.
    pub(super) fn through(&self) -> u64 {
        let head = self.log.head().max(self.restored_through);
        self.life
            .through()
            .map_or(head, |through| through.max(head))
    }

    /// Returns the position up to which all members have been sent everything.
    pub(super) fn needed_after(&self) -> u64 {
        let active = self.progress.iter().filter(|progress| progress.members > 0);
        let sent_through = active.map(|progress| progress.sent_through).min();
        sent_through.unwrap_or(u64::MAX)
    }

    /// Returns the position up to which entries may be evicted for the sake of other
    /// channels. The newest event of the channel that is published to stays.
    pub(super) fn evictable_through(&self, is_published: bool, is_backlog: bool) -> u64 {
        let sent_through = match is_backlog {
            true => u64::MAX,
            false => self.needed_after(),
        };
        match is_published {
            true => sent_through.min(self.log.head().saturating_sub(1)),
            false => sent_through,
        }
    }

    /// Returns whether there is more to trim than `dropped` had room for.
    pub(super) fn trim(&mut self, now_ms: u64, dropped: &mut Dropped) -> bool {
        let needed_after = self.needed_after();
        let mut bounds = self.options.bounds();
        if !self.life.is_open() || matches!(self.kind, Kind::Private(_)) {
            // What is finished does not grow, and a sink waits for room: nothing
            // is lost to make some.
            bounds.backlog_bytes_max = usize::MAX;
        }
        if matches!(self.life, Life::Finishing(_)) {
            // It has a time of its own: until then, clients that come back receive all of it.
            bounds.history.age_max = Duration::MAX;
            bounds.keyed.age_max = Duration::MAX;
        }
        self.log.trim(&bounds, needed_after, now_ms, dropped)
    }

    // ---- publishing ----

    /// # Errors
    /// When the channel does not accept events, or none of this size.
    pub(super) fn check(&self, largest: Option<usize>) -> Result<(), PublishError> {
        match self.life {
            Life::Open => {}
            Life::Finishing(_) => return Err(PublishError::Finished),
            Life::Over { .. } | Life::Closing => return Err(PublishError::Closed),
        }
        let max = self.options.event_bytes_max;
        match largest {
            Some(bytes) if bytes > max => Err(PublishError::TooLarge { bytes, max }),
            _ => Ok(()),
        }
    }

    /// Takes tokens from the bucket of the channel's rate, if it has one.
    ///
    /// # Errors
    /// When too few are left: the time after which there are enough.
    pub(super) fn take_tokens(&mut self, count: usize, now_ms: u64) -> Result<(), Duration> {
        let Some(rate) = self.options.publish_rate else {
            return Ok(());
        };
        let bucket = self.bucket.get_or_insert_with(|| Bucket::new(rate, now_ms));
        bucket.take(rate, count, now_ms)
    }

    /// Returns the members that an event is for, unless that needs a search of more
    /// than one step.
    pub(super) fn matched(&self, audience: &Audience) -> Option<Matched> {
        if let Some(count) = self.members.count(audience) {
            let has_generated_id = false;
            return Some(Matched {
                count,
                has_generated_id,
            });
        }
        let mut matched = Matched::default();
        let is_one_step = self.members.looks(audience) <= LOOKS_MAX;
        is_one_step.then(|| {
            self.members
                .visit(audience, 0, |member| matched.add(member));
            matched
        })
    }

    // ---- members ----

    pub(super) fn progress_mut(&mut self, reactor: u16) -> &mut Progress {
        let reactor = usize::from(reactor);
        if self.progress.len() <= reactor {
            self.progress.resize(reactor + 1, Progress::default());
        }
        &mut self.progress[reactor]
    }

    /// Returns how many of its members a reactor has.
    pub(super) fn members_of(&self, reactor: u16) -> u32 {
        let progress = self.progress.get(usize::from(reactor));
        progress.map_or(0, |progress| progress.members)
    }

    pub(super) fn remove_member(
        &mut self,
        slot: u32,
        now_ms: u64,
    ) -> Option<(Member, Option<Freed>)> {
        let member = self.members.remove(slot)?;
        self.progress_mut(member.reactor).members -= 1;
        self.streams -= usize::from(member.is_first);
        if !self.members.is_empty() {
            return Some((member, None));
        }
        self.empty_since_ms = now_ms;
        Some((member, Some(self.members.free())))
    }

    pub(super) fn info(&self, member: &Member, clock: &Clock) -> ClientInfo {
        ClientInfo {
            id: member.id.clone(),
            metadata: member.metadata().cloned().unwrap_or_default(),
            address: member.address(),
            since: clock.wall(member.since_ms()),
            behind: self.log.count_after(member.seen),
        }
    }

    pub(super) fn disconnect_call(
        &self,
        member: &mut Member,
        clock: &Clock,
    ) -> Option<DisconnectCall> {
        let hook = member.extra.as_mut()?.on_disconnect.take()?;
        let info = self.info(member, clock);
        Some(DisconnectCall { info, hook })
    }

    pub(super) fn stats(&self, ids: &Ids) -> ChannelStats {
        let id_of = |entry| ids.of_entry(entry);
        ChannelStats {
            name: self.name().cloned().unwrap_or_default(),
            clients: self.members.len(),
            published: self.counts.published,
            delivered: self.counts.delivered,
            gaps: self.counts.gaps,
            history_events: self.log.len(),
            history_bytes: self.log.bytes(),
            keys: self.log.keyed().len(),
            keys_evicted: self.log.keyed().evictions(),
            oldest: self.log.oldest().map(id_of),
            newest: self.log.newest().map(id_of),
        }
    }
}

/// The members that an event is for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Matched {
    pub(super) count: usize,
    /// Whether the engine generated the id of one of them.
    has_generated_id: bool,
}

impl Matched {
    pub(super) fn add(&mut self, member: &Member) {
        self.count += 1;
        self.has_generated_id |= member.has_generated_id;
    }

    /// Notes in the audience whether one of its named clients has a generated id.
    pub(super) fn note_in(self, audience: &mut Arc<Audience>) {
        if self.has_generated_id
            && let Some(Audience::Clients { choice, .. }) = Arc::get_mut(audience)
            && *choice == Choice::Named
        {
            *choice = Choice::Generated;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rate;
    use crate::hub::client::{ClientId, ConnectionId};

    fn channel(options: ChannelOptions) -> ChannelState {
        let kind = Kind::Named("a".into());
        ChannelState::new(1, kind, Arc::new(options), Log::new(0), 0)
    }

    fn member(id: &str, reactor: u16) -> Member {
        let connection = ConnectionId { token: 1, reactor };
        let address = "127.0.0.1:9".parse().unwrap();
        Member::new(ClientId::lookup(id), connection, address, 0, None)
    }

    #[test]
    fn a_log_is_needed_by_the_reactor_that_has_sent_the_least() {
        let mut channel = channel(ChannelOptions::new());
        assert_eq!(channel.needed_after(), u64::MAX);
        for (reactor, sent_through) in [(0, 9), (2, 5)] {
            channel
                .members
                .insert(member(&reactor.to_string(), reactor));
            let progress = channel.progress_mut(reactor);
            (progress.members, progress.sent_through) = (1, sent_through);
        }
        assert_eq!(channel.needed_after(), 5);
        assert_eq!([0, 1, 2, 9].map(|r| channel.members_of(r)), [1, 0, 1, 0]);
        let slot = channel.members.find(&ClientId::lookup("2")).unwrap();
        channel.remove_member(slot, 7).unwrap();
        assert_eq!((channel.needed_after(), channel.empty_since_ms), (9, 0));
        assert!(channel.remove_member(slot, 8).is_none());
    }

    #[test]
    fn a_channel_accepts_events_of_its_size_and_rate_until_it_is_finished() {
        let options = ChannelOptions::new().event_bytes_max(10);
        let mut channel = channel(options.publish_rate(Rate::per_second(1.0)));
        assert_eq!(channel.check(Some(10)), Ok(()));
        let too_large = PublishError::TooLarge { bytes: 11, max: 10 };
        assert_eq!(channel.check(Some(11)), Err(too_large));
        assert_eq!(channel.take_tokens(1, 0), Ok(()));
        assert_eq!(channel.take_tokens(1, 250), Err(Duration::from_millis(750)));
        channel.life = Life::Finishing(Finish {
            through: 0,
            until_ms: 9,
        });
        assert_eq!(channel.check(Some(1)), Err(PublishError::Finished));
        assert!(channel.current_name().is_some());
        for life in [Life::Over { through: 0 }, Life::Closing] {
            channel.life = life;
            assert_eq!(channel.check(Some(1)), Err(PublishError::Closed));
            assert!(channel.current_name().is_none() && channel.ends_with_last_member());
        }
    }
}
