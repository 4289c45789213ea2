//! Pages: what the channels hold for a client, as far as one answer goes.
//!
//! A subscription that is [answered once](crate::Subscription::answer_once) reads the same
//! logs from the same position as a stream would. A client for which there is nothing yet
//! becomes a member of its channels in the locked section that finds this out, so an event
//! that is published meanwhile is not missed.

use std::sync::Arc;
use std::time::SystemTime;

use super::Hub;
use super::beginning::Beginning;
use super::client::{ConnectionId, DisconnectReason, Extra};
use super::gap::{Gap, GapReason};
use super::id::EventId;
use super::join::{Join, JoinError, Joined, Start};
use super::joining::add_member;
use super::key::ChannelKey;
use super::lock::Locked;
use super::merged::{ChannelReader, Merged};
use super::reading::{Read, Span};
use super::state::{Removed, State};
use crate::event::Event;

/// Maximum bytes of frames on one page, except that one event always has room: encoding
/// them takes less than a millisecond of the thread that answers.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// The answer to a subscription that is answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) events: Vec<PagedEvent>,
    /// The id after which the next page begins: that of the channels' newest event if
    /// there is no more.
    pub(crate) newest: EventId,
    pub(crate) gap: Option<Gap>,
    /// Whether nothing follows for good: all channels are finished.
    pub(crate) is_finished: bool,
    /// Whether the channels hold more.
    pub(crate) has_more: bool,
    /// Everything up to here is on this page, or on an earlier one.
    pub(crate) reached: u64,
}

/// An event of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PagedEvent {
    /// The index of its channel.
    pub(crate) channel_index: usize,
    pub(crate) channel: Arc<str>,
    pub(crate) id: EventId,
    pub(crate) at: SystemTime,
    pub(crate) event: Event<'static>,
}

impl Page {
    /// Returns whether a client that waits for news has none.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.gap.is_none() && !self.is_finished
    }
}

/// What a client does that asks for a page.
pub(crate) enum Asking<'a> {
    /// It reads its page now.
    Reads(Reading<'a>),
    /// It has become a member of its channels and waits for its first event.
    Waits(Joined),
}

/// What is read for one page.
pub(crate) struct Reading<'a> {
    join: Join<'a>,
    readers: Vec<ChannelReader>,
    span: Span,
    gap: Option<Gap>,
}

impl Hub {
    /// Finds where the page of a client begins. If `waits`, and there is nothing for the
    /// client yet, the client becomes a member.
    pub(crate) fn ask<'a>(&self, join: Join<'a>, waits: bool) -> Result<Asking<'a>, JoinError> {
        let before_last = self.position_before_last(&join);
        let now_ms = self.clock.now_ms();
        let mut state = self.lock_served(join.channels);
        let beginning = Beginning::new(&state, &join, &self.ids);
        let lives = beginning.lives()?;
        let mut joined = beginning.joined(before_last);
        let has_news =
            joined.gap.is_some() || lives.are_finished || beginning.has_after(joined.seen);
        if has_news || !waits {
            let span = Span {
                seen: joined.seen,
                through: joined.now,
                keyed_through: joined.keyed_through,
            };
            drop(state);
            return Ok(Asking::Reads(Reading {
                join,
                readers: joined.readers,
                span,
                gap: joined.gap,
            }));
        }
        if lives.are_full {
            return Err(JoinError::Full);
        }
        let (now, mut removed) = ((now_ms, &self.clock), Removed::new());
        add_member(&mut state, join, &mut joined, now, &mut removed);
        drop(state);
        self.finish_removals(removed);
        Ok(Asking::Waits(joined))
    }

    /// Reads the page of a client that is not a member.
    pub(crate) fn page(&self, reading: Reading<'_>) -> Page {
        let Reading {
            join,
            readers,
            span,
            gap,
        } = reading;
        let state = self.lock_served(join.channels);
        let merged = Merged::new(&state, join.channels);
        let forgiven = readers.iter().map(|reader| reader.forgiven);
        let has_lost = merged
            .logs()
            .zip(forgiven)
            .any(|(log, forgiven)| span.has_lost(log, forgiven));
        let gap = gap.or_else(|| {
            let seen = self.ids.id_of(span.seen).text();
            let gap = || {
                merged.gap(
                    Some(&seen),
                    GapReason::Evicted,
                    |e| join.admits(e),
                    &self.ids,
                )
            };
            has_lost.then(gap)
        });
        self.read_page(state, &join, span, gap)
    }

    /// Reads the page of a member that has waited for it.
    ///
    /// # Errors
    /// When the client is not a member any longer, or one of the channels was removed.
    pub(crate) fn page_of_member(
        &self,
        channels: &[ChannelKey],
        readers: &[ChannelReader],
        connection: ConnectionId,
        mut span: Span,
    ) -> Result<Page, Read> {
        let state = self.lock_served(channels);
        let (mut waiting, mut has_lost) = (None, false);
        for (key, reader) in channels.iter().zip(readers) {
            let channel = state.get(*key).ok_or(Read::Closed)?;
            let member = channel.members.get(reader.slot);
            let member = member.filter(|member| member.connection() == connection);
            waiting = Some(member.ok_or(Read::Departed)?);
            has_lost |= span.has_lost(&channel.log, reader.forgiven);
        }
        let member = waiting.expect("a stream has a channel");
        let metadata = member.metadata().cloned();
        let join = Join {
            channels,
            id: member.id.clone(),
            has_generated_id: member.has_generated_id,
            connection,
            address: member.address(),
            extra: metadata.map(|metadata| {
                Box::new(Extra {
                    metadata,
                    on_disconnect: None,
                })
            }),
            start: &Start::Live,
        };
        let gap = has_lost.then(|| {
            let merged = Merged::new(&state, channels);
            let mut lag = merged.lag(|entry| join.admits(entry), &self.ids);
            lag.gap.requested = Some(self.ids.id_of(span.seen).text());
            (span.seen, span.keyed_through) = (lag.seen, lag.keyed_through);
            lag.gap
        });
        Ok(self.read_page(state, &join, span, gap))
    }

    /// Copies what the logs hold, and decodes it when the lock is open.
    fn read_page(
        &self,
        state: Locked<'_, State>,
        join: &Join<'_>,
        span: Span,
        gap: Option<Gap>,
    ) -> Page {
        let merged = Merged::new(&state, join.channels);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let (reached, has_more) = merged.walk(span.seen, span.through, |channel_index, entry| {
            if (entry.sequence <= span.keyed_through && !entry.has_key()) || !join.admits(entry) {
                return true;
            }
            bytes += entry.frame.len();
            if bytes > PAGE_BYTES_MAX && !entries.is_empty() {
                return false;
            }
            let channel = state.get(join.channels[channel_index]);
            let name = channel.and_then(|channel| channel.name()).cloned();
            let id = self.ids.of_entry(entry);
            let channel = name.unwrap_or_default();
            entries.push((channel_index, channel, id, entry.at_ms, entry.frame.clone()));
            true
        });
        // Events may have come after those that this page is for.
        let newest = merged.head().max(merged.evicted_through());
        let has_more = has_more || reached < newest;
        let newest = Beginning::new(&state, join, &self.ids).id_at(newest.min(reached));
        let is_whole = merged.channels().count() == join.channels.len();
        let ends = || merged.ends(reached) == Some(DisconnectReason::Finished);
        let is_finished = !has_more && is_whole && ends();
        drop(state);
        let paged = entries
            .into_iter()
            .map(|(channel_index, channel, id, at_ms, frame)| PagedEvent {
                channel_index,
                channel,
                id,
                at: self.clock.wall(at_ms),
                event: frame.decode(),
            });
        Page {
            events: paged.collect(),
            newest,
            gap,
            is_finished,
            has_more,
            reached,
        }
    }
}
