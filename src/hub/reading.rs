//! Reading the logs: what a reactor asks the hub for.

use std::sync::Arc;

use super::Hub;
use super::audience::Audience;
use super::batch::Batch;
use super::channel_state::Kind;
use super::client::{ConnectionId, DisconnectReason, Member};
use super::dropped::Dropped;
use super::entry::Entry;
use super::key::{ChannelKey, MemberKey};
use super::log::{Evicted, Log};
use super::looks::LOOKS_MAX;
use super::merged::{ChannelReader, Lag, Merged};
use super::reactors::Work;
use super::state::State;

/// The number of looks that cost as much as one client that looks for itself.
const LOOKS_A_CLIENT: usize = 16;

/// The clients that a gathering is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipients {
    pub(crate) reactor: u16,
    /// Their number.
    pub(crate) clients: usize,
}

/// What is read, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Source<'a> {
    pub(crate) channels: &'a [ChannelKey],
    pub(crate) form: Form,
}

/// The form in which clients receive events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// A stream of frames as the log has them.
    #[default]
    Plain,
    /// A compressed stream.
    Packed,
    /// A stream of frames that begin with the name of their channel.
    Named,
    /// One [page](super::page).
    Page,
}

impl Source<'_> {
    /// Adds the frame of an entry in this form to a batch of about `bytes_max`. Returns
    /// whether there was room. Names are [written](Batch::write_names) when the lock is
    /// open.
    fn add(
        &self,
        state: &State,
        (channel_index, entry): (usize, &Entry),
        bytes_max: usize,
        batch: &mut Batch,
    ) -> bool {
        let frame = match self.form {
            Form::Plain | Form::Page => &entry.frame,
            Form::Packed => entry.packed_frame(),
            Form::Named => {
                let channel = state.get(self.channels[channel_index]);
                let name = channel.and_then(|channel| channel.name());
                let name = name.cloned().unwrap_or_default();
                let has_room = batch.has_room(entry.frame.named_len(&name), bytes_max);
                if has_room {
                    batch.push_named(entry.sequence, channel_index, entry.frame.clone(), name);
                }
                return has_room;
            }
        };
        let has_room = batch.has_room(frame.len(), bytes_max);
        if has_room {
            batch.push(entry.sequence, channel_index, frame.clone());
        }
        has_room
    }
}

/// What [`Hub::gather`] found beside the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gathered {
    /// The batch covers everything up to here.
    pub(crate) through: u64,
    /// There was more than fits.
    pub(crate) has_more: bool,
    /// The newest entry that is gone from the logs.
    pub(crate) evicted_through: u64,
    /// There is a directed entry, and each client has to look for itself whether it is
    /// for it: the clients are few, in channels that have many.
    pub(crate) is_for_some: bool,
    /// Why streams of these channels end with this batch, if they do.
    pub(crate) ends: Option<DisconnectReason>,
}

/// The search for the clients that one directed entry is for, where it has several steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Search {
    channel: ChannelKey,
    audience: Arc<Audience>,
    /// Where to continue.
    next: u32,
}

/// What a cursor reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// What comes after this,
    pub(crate) seen: u64,
    /// up to here;
    pub(crate) through: u64,
    /// up to here only what has a key.
    pub(crate) keyed_through: u64,
}

impl Span {
    /// Returns whether a log has lost entries that are in it. `forgiven`: the loss that
    /// was reported before.
    pub(super) fn has_lost(&self, log: &Log, forgiven: Evicted) -> bool {
        // Of the history up to `keyed_through` it has nothing.
        let history = self.seen.max(self.keyed_through).max(forgiven.history);
        let keyed = self.seen.max(forgiven.keyed);
        log.evicted().is_loss(history, keyed)
    }
}

/// What [`Hub::read`] found beside the frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The batch covers everything up to here.
    Through(u64),
    /// Entries are gone that the reader has not seen.
    Lagged(Lag),
    /// A channel was removed.
    Closed,
    /// The reader was sent away, and its connection is about to end.
    Departed,
}

/// A reactor's report of its progress with one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Events written whole since the last report.
    pub(crate) delivered: u64,
    /// Gap events written since the last report.
    pub(crate) gaps: u64,
    /// All of its members have been sent everything up to here, if that is
    /// known.
    pub(crate) sent_through: Option<u64>,
}

/// What a report has made of the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// Entries that were evicted.
    pub(crate) evicted: usize,
    /// There is more to evict. It goes with the next report, or with a sweep.
    pub(crate) has_more: bool,
}

/// What a client has seen of one of its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) member_key: MemberKey,
    pub(crate) token: u64,
    /// [`CAUGHT_UP`](super::client::CAUGHT_UP) if it keeps up.
    pub(crate) seen: u64,
}

impl Hub {
    /// Copies the entries for all clients in `(after, now]` into `batch`, up to about
    /// `bytes_max`, and the connections that directed entries are for to `targets`. An
    /// entry whose clients are many to look for is gathered alone, and its clients are
    /// yet to be [found](Self::find_targets). Returns `None` if the reactor has clients that it has yet to disconnect: these
    /// must not be sent later entries, because they would miss earlier ones that were
    /// for them alone without a gap.
    pub(crate) fn gather(
        &self,
        recipients: Recipients,
        source: Source<'_>,
        after: u64,
        bytes_max: usize,
        batch: &mut Batch,
        targets: &mut Vec<u64>,
    ) -> Option<(Gathered, Option<Search>)> {
        let channels = source.channels;
        let state = self.lock_served(channels);
        if state.reactors.has_departures(recipients.reactor) {
            return None;
        }
        let merged = Merged::new(&state, channels);
        let mut is_for_some = false;
        let mut looks = 0;
        let mut search = None;
        let mut searched: Option<&Arc<Audience>> = None;
        let (through, has_more) = merged.walk(after, merged.now(), |channel_index, entry| {
            match entry.audience() {
                None => {
                    if !source.add(&state, (channel_index, entry), bytes_max, batch) {
                        return false;
                    }
                }
                Some(_) if is_for_some => {}
                // The next of a batch, whose targets are known.
                Some(audience) if searched.is_some_and(|a| Arc::ptr_eq(a, audience)) => {}
                Some(audience) => {
                    let Some(channel) = state.get(channels[channel_index]) else {
                        return true;
                    };
                    let more = channel.members.looks(audience).max(1);
                    if more > LOOKS_A_CLIENT * recipients.clients {
                        is_for_some = true;
                        return true;
                    }
                    if looks + more > LOOKS_MAX {
                        // It goes alone.
                        let is_first = looks == 0 && batch.is_empty();
                        let channel = channels[channel_index];
                        search = is_first.then(|| (entry.sequence, channel, audience.clone()));
                        return false;
                    }
                    looks += more;
                    searched = Some(audience);
                    channel.members.visit(audience, 0, |member| {
                        if member.reactor == recipients.reactor {
                            targets.push(member.token);
                        }
                    });
                }
            }
            true
        });
        let ends = match has_more {
            true => None,
            false => merged.ends(through),
        };
        let gathered = Gathered {
            through,
            has_more,
            evicted_through: merged.evicted_through(),
            is_for_some,
            ends,
        };
        drop(state);
        batch.write_names();
        let Some((through, channel, audience)) = search else {
            return Some((gathered, None));
        };
        let search = Search {
            channel,
            audience,
            next: 0,
        };
        let gathered = Gathered {
            through,
            ..gathered
        };
        Some((gathered, Some(search)))
    }

    /// Takes a step of a search for the connections of a reactor. Returns whether it was
    /// the last one. A client that joins or leaves meanwhile may be missed: it joins with
    /// a position behind the entry, or reads by itself; or it is disconnected before it
    /// is sent anything newer.
    pub(crate) fn find_targets(
        &self,
        reactor: u16,
        search: &mut Search,
        targets: &mut Vec<u64>,
    ) -> bool {
        let state = self.lock();
        let next = state.get(search.channel).and_then(|channel| {
            channel
                .members
                .visit(&search.audience, search.next, |member| {
                    if member.reactor == reactor {
                        targets.push(member.token);
                    }
                })
        });
        search.next = next.unwrap_or_default();
        next.is_none()
    }

    /// Copies the entries for one client into `batch`, up to about `bytes_max`.
    pub(crate) fn read(
        &self,
        source: Source<'_>,
        readers: &[ChannelReader],
        connection: ConnectionId,
        span: Span,
        bytes_max: usize,
        batch: &mut Batch,
    ) -> Read {
        let channels = source.channels;
        let Span {
            seen,
            through,
            keyed_through,
        } = span;
        let state = self.lock();
        let merged = Merged::new(&state, channels);
        for (key, reader) in channels.iter().zip(readers) {
            let Some(channel) = state.get(*key) else {
                return Read::Closed;
            };
            // Another member may have its slot, and the entries for that one are not for
            // it. It is sent its own when it comes back.
            let member = channel.members.get(reader.slot);
            if member.is_none_or(|member| member.connection() != connection) {
                return Read::Departed;
            }
            if span.has_lost(&channel.log, reader.forgiven) {
                let mut lag = merged.lag(|entry| is_for(entry, member), &self.ids);
                drop(state);
                lag.gap.requested = Some(self.ids.id_of(seen).text());
                return Read::Lagged(lag);
            }
        }
        let (reached, _) = merged.walk(seen, through, |channel_index, entry| {
            if entry.sequence <= keyed_through && !entry.has_key() {
                return true;
            }
            let member = || {
                let channel = state.get(channels[channel_index])?;
                channel.members.get(readers[channel_index].slot)
            };
            let is_for_it = entry.audience().is_none() || is_for(entry, member());
            !is_for_it || source.add(&state, (channel_index, entry), bytes_max, batch)
        });
        drop(state);
        batch.write_names();
        Read::Through(reached)
    }

    /// Returns the newest position of which a client that was sent everything `through`
    /// here has missed nothing. `None` if a channel has something newer, if its events
    /// have own ids, which are the positions that its clients know, or if a channel is
    /// gone: another one may have its name.
    pub(crate) fn quiet_through(&self, channels: &[ChannelKey], through: u64) -> Option<u64> {
        let state = self.lock_served(channels);
        let is_quiet = channels.iter().all(|key| {
            let channel = state.get(*key).filter(|channel| !channel.life.is_over());
            channel.is_some_and(|channel| {
                channel.log.head() <= through && state.newest_own_id(channel).is_none()
            })
        });
        is_quiet.then(|| Merged::new(&state, channels).now().max(through))
    }

    /// Notes the positions of clients of a reactor.
    pub(crate) fn note_positions(&self, reactor: u16, positions: &[Position]) {
        for some in positions.chunks(LOOKS_MAX) {
            let mut state = self.lock();
            for position in some {
                let MemberKey { channel, slot } = position.member_key;
                let channel = state.get_mut(channel);
                let connection = ConnectionId {
                    token: position.token,
                    reactor,
                };
                if let Some(member) = channel.and_then(|c| c.members.get_mut(slot))
                    && member.connection() == connection
                {
                    member.seen = position.seen;
                }
            }
            drop(state);
            self.give_way();
        }
    }

    /// Counts what a reactor reports, and evicts what need not be kept for its members
    /// any longer.
    pub(crate) fn report(
        &self,
        reactor: u16,
        reports: impl IntoIterator<Item = (ChannelKey, Report)>,
        now_ms: u64,
    ) -> Trimmed {
        // A sink's channel is on a stream of its own.
        let mut signal = None;
        let (mut dropped, mut has_more) = (Dropped::new(), false);
        let room = dropped.room();
        let mut state = self.lock();
        for (key, report) in reports {
            state.totals.delivered += report.delivered;
            state.totals.gaps += report.gaps;
            let Some(channel) = state.get_mut(key) else {
                continue;
            };
            channel.counts.delivered += report.delivered;
            channel.counts.gaps += report.gaps;
            if let Some(sent_through) = report.sent_through {
                channel.progress_mut(reactor).sent_through = sent_through;
            }
            if let Kind::Private(its) = &channel.kind {
                signal = Some(its.clone());
            }
            // A reactor whose last client has gone kept the log for no other one.
            has_more |= state.trim(key, now_ms, &mut dropped);
        }
        drop(state);
        if let Some(signal) = signal {
            signal.notify();
        }
        let evicted = room - dropped.room();
        dropped.free();
        Trimmed { evicted, has_more }
    }

    /// Swaps a reactor's work with the empty `work`. From now on until
    /// [`may_sleep`](Self::may_sleep) it is not woken.
    pub(crate) fn take_work(&self, reactor: u16, work: &mut Work) {
        self.lock().reactors.take_work(reactor, work);
    }

    /// Returns whether there are clients that a reactor has yet to disconnect.
    pub(crate) fn has_departures(&self, reactor: u16) -> bool {
        self.lock().reactors.has_departures(reactor)
    }

    /// Returns whether a reactor has nothing to do. If so, it is woken for its next work.
    pub(crate) fn may_sleep(&self, reactor: u16) -> bool {
        self.lock().reactors.may_sleep(reactor)
    }
}

/// Returns whether an entry is for a member.
fn is_for(entry: &Entry, member: Option<&Member>) -> bool {
    entry.audience().is_none_or(|audience| {
        member.is_some_and(|member| {
            let metadata = member.metadata().map(|metadata| &**metadata);
            audience.admits(&member.id, metadata)
        })
    })
}
