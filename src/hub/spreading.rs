//! Publishing to all channels: one number and one encoding for all of them.
//!
//! The numbers are given in one locked section. From then on each channel is served
//! before its log is read or appended to. The calling thread walks all channels, some
//! under each lock, so that their clients receive the events at once. A thread that
//! publishes to all channels meanwhile first helps to finish the walk: one is on its way
//! at a time.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Hub;
use super::audience::Audience;
use super::channel_state::Matched;
use super::dropped::Dropped;
use super::for_all::{Held, NAME_OF_ALL};
use super::id::EventId;
use super::idempotency::{IdempotencyKey, Keyed, record_of, repeated};
use super::lock::Locked;
use super::looks::LOOKS_MAX;
use super::own_ids::OwnIds;
use super::published::{PublishError, Published};
use super::reactors::Wake;
use super::ready::Ready;
use super::remembered::{ALL, OwnId, key_of};
use super::retention::History;
use super::seeding::LOOKS_A_PLACE;
use super::state::State;
use super::target::Target;
use crate::event::Event;
use crate::frame::Frame;

/// What the events of one publish to all channels have in common.
#[derive(Clone, Copy)]
pub(super) struct PlacingInAll<'a> {
    /// The own ids of the events, if they have any.
    pub(super) own_ids: Option<&'a OwnIds>,
    /// The clients that the events are for; `None`: all.
    pub(super) audience: Option<&'a Arc<Audience>>,
    /// The time at which they are published, in microseconds.
    pub(super) at_us: u64,
    /// What is kept for channels that are made later.
    pub(super) history: History,
    /// The term of a loss whose gap it is. A channel that has the gap already does not get it.
    pub(super) lost_in: Option<u64>,
}

/// The result of a publish to all channels.
pub(super) struct PlacedInAll {
    /// The id of the last event.
    pub(super) last: EventId,
    /// The number of events that were published before.
    pub(super) duplicates: usize,
    /// The number of streams that the others are for, if they are for all clients.
    pub(super) streams: usize,
}

impl State {
    /// Serves some channels more, and puts them on the lists of their reactors.
    fn spread(&mut self, now_ms: u64, dropped: &mut Dropped) -> Wake {
        let mut wake = Wake::default();
        let Some((mut slot, now_us)) = self.for_all.next_slot() else {
            return wake;
        };
        let (mut looks, mut streams) = (0, 0);
        while looks < LOOKS_MAX && slot < self.slots_end() {
            looks += 1;
            slot += 1;
            let Some((key, channel)) = self.at(slot - 1) else {
                continue;
            };
            if channel.life.is_open() && channel.name().is_some() {
                streams += channel.streams;
                looks += LOOKS_A_PLACE * self.serve(key, dropped);
                // It may have been served before, and its reactors do not know.
                wake.merge(self.mark_dirty(key, now_us));
            }
        }
        self.for_all.advance(slot, streams);
        if slot >= self.slots_end() {
            self.for_all.end(now_ms, dropped);
        }
        self.shrink(None, dropped);
        wake
    }
}

impl Hub {
    /// Goes on until no events for all channels are on their way, with the lock open
    /// between two steps.
    fn finish_spread<'a>(&'a self, mut state: Locked<'a, State>) -> Locked<'a, State> {
        while state.for_all.is_spreading() {
            let events = state.for_all.len_on_the_way();
            state.allow_batch(events);
            let mut dropped = Dropped::for_batch(events);
            let wake = state.spread(self.clock.now_ms(), &mut dropped);
            drop(state);
            self.wake(wake);
            drop(dropped);
            self.give_way();
            state = self.lock();
        }
        state
    }

    /// Publishes events to all named channels that are open, and to those that are made
    /// later.
    pub(crate) fn publish_to_all<'a, E: Borrow<Event<'a>>>(
        &self,
        events: &[E],
        target: &Target,
        key: Option<IdempotencyKey>,
    ) -> Result<Published, PublishError> {
        let encode = |event: &E| self.encode(event.borrow(), None);
        let all = events.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let options = self.options_of_name(NAME_OF_ALL);
        let mut audience = target.clone().into_audience();
        let keyed = key.map(|key| Keyed::of(key, ALL, &all, audience.as_deref(), false));
        let mut own_ids = OwnIds::of(&all, audience.as_deref(), &self.ids)?;
        let matched = audience
            .as_mut()
            .map(|audience| self.match_in_all(audience));
        // The result of a publish that may be repeated is remembered before it is done.
        let counted = keyed.map(|_| matched.unwrap_or_else(|| self.streams()));
        let now_us = self.clock.now_us();
        let (now_ms, count) = (now_us / 1000, all.len());
        let (mut state, packed) = self.lock_for_all(&all);
        if let Some(keyed) = keyed
            && let Some(first) = repeated(&state.keys, keyed, now_ms, &all, &self.ids)?
        {
            return Ok(first);
        }
        if let Some(own_ids) = &mut own_ids {
            own_ids.find_repetitions(&state.remembered, ALL, now_ms)?;
            if let Some(id) = own_ids.last_if_all_are_repeated(&all)
                && keyed.is_none()
            {
                return Ok(Published::repeated(id, count));
            }
        }
        let max = options.event_bytes_max;
        if let Some(bytes) = Ready::largest(&all).filter(|bytes| *bytes > max) {
            return Err(PublishError::TooLarge { bytes, max });
        }
        state
            .for_all
            .take_tokens(options.publish_rate, count, now_ms)
            .map_err(|retry_after| PublishError::RateLimited { retry_after })?;
        if let Some(keyed) = keyed {
            let appended = count - own_ids.as_ref().map_or(0, |own_ids| own_ids.duplicates());
            if appended == 0 {
                state.next_sequence();
            }
            let last = state.sequence + appended as u64;
            let record = record_of(keyed, last, now_ms, appended, counted.unwrap_or_default());
            state.keys.insert(keyed.id, record);
        }
        let placing = PlacingInAll {
            own_ids: own_ids.as_deref(),
            audience: audience.as_ref(),
            at_us: now_us,
            history: options.history,
            lost_in: None,
        };
        let number = |state: &mut State, _| state.next_sequence();
        let events = all.into_iter().zip(packed);
        let placed = self.place_in_all(state, placing, events, number);
        Ok(Published {
            id: Some(placed.last),
            events: count - placed.duplicates,
            clients: counted.or(matched).unwrap_or(placed.streams),
            duplicates: placed.duplicates,
            is_repeated: false,
        })
    }

    /// Returns the lock when no events for all channels are on their way, and the packed
    /// frame of each event, if a channel compresses.
    pub(super) fn lock_for_all(&self, events: &[Ready]) -> (Locked<'_, State>, Vec<Option<Frame>>) {
        let mut packed = vec![None; events.len()];
        let mut packed_from = None;
        loop {
            let state = self.finish_spread(self.lock());
            let compress_from = state.for_all.compress_from();
            let Some(bytes) = compress_from.filter(|_| packed_from.is_none()) else {
                return (state, packed);
            };
            drop(state);
            packed_from = compress_from;
            packed = events.iter().map(|r| Some(r.frame.pack(bytes))).collect();
        }
    }

    /// Places the events of one publish in all channels, each with its packed frame,
    /// except those that were published already. `state` is from
    /// [`lock_for_all`](Self::lock_for_all). `number` gives an event its number, which is
    /// higher than any before.
    pub(super) fn place_in_all(
        &self,
        mut state: Locked<'_, State>,
        placing: PlacingInAll<'_>,
        events: impl ExactSizeIterator<Item = (Ready, Option<Frame>)>,
        mut number: impl FnMut(&mut State, usize) -> u64,
    ) -> PlacedInAll {
        let PlacingInAll {
            own_ids,
            audience,
            at_us,
            history,
            lost_in,
        } = placing;
        state.allow_batch(events.len());
        let streams = state.for_all.begin(at_us, history);
        let (mut last, mut duplicates) = (None, 0);
        for (index, (mut ready, packed)) in events.enumerate() {
            if let Some(own_ids) = own_ids {
                own_ids.count_target(&mut ready);
                if own_ids.is_repeated(index) {
                    duplicates += 1;
                    last = ready.own_id().map(OwnId::event_id);
                    continue;
                }
            }
            if let Some(audience) = audience {
                ready.set_audience(audience.clone());
            }
            let sequence = number(&mut state, index);
            last = Some(self.hold(&mut state, sequence, ready, packed, at_us / 1000));
            if let Some(term) = lost_in {
                state.for_all.note_loss(sequence, term);
            }
        }
        let last = last.unwrap_or_else(|| self.ids.id_of(state.sequence));
        drop(self.finish_spread(state));
        PlacedInAll {
            last,
            duplicates,
            streams: streams.load(Relaxed),
        }
    }

    /// Adds an event for all channels under the number that its caller gives. Returns its
    /// id.
    fn hold(
        &self,
        state: &mut State,
        sequence: u64,
        ready: Ready,
        packed: Option<Frame>,
        at_ms: u64,
    ) -> EventId {
        let is_doubtful = self.is_doubtful(at_ms) || state.may_be_republished(ALL);
        let numbered = ready.numbered(&self.ids, sequence, at_ms, is_doubtful);
        state.totals.published += 1;
        state.totals.published_bytes += numbered.entry.frame.len() as u64;
        let packed = packed.map(|mut packed| {
            packed.stamp(self.ids.prefix(), self.ids.number(sequence));
            packed
        });
        if let Some((id, record)) = numbered.entry.record() {
            state.remembered.insert(key_of(ALL, &id), record);
        }
        state.for_all.push(Held {
            entry: numbered.entry,
            packed,
            removes: numbered.removes,
            lost_in: None,
        });
        numbered.id
    }

    /// Returns the number of streams of open channels.
    pub(super) fn streams(&self) -> usize {
        let mut streams = 0;
        self.for_each_channel(|_, channel| {
            let is_counted = channel.name().is_some() && channel.life.is_open();
            streams += if is_counted { channel.streams } else { 0 };
        });
        streams
    }

    /// Counts the streams of open channels that an audience admits, with the lock open
    /// between two steps. A client that comes or goes meanwhile may be counted or not.
    pub(super) fn match_in_all(&self, audience: &mut Arc<Audience>) -> usize {
        let mut keys = Vec::new();
        self.for_each_channel(|key, channel| {
            if channel.name().is_some() && channel.life.is_open() && !channel.members.is_empty() {
                keys.push(key);
            }
        });
        let (mut matched, mut streams) = (Matched::default(), 0);
        for key in keys {
            self.visit_in_steps(key, audience, |member| {
                matched.add(member);
                streams += usize::from(member.is_first);
            });
        }
        matched.note_in(audience);
        streams
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::hub::batch::Batch;
    use crate::hub::client::{ClientId, ConnectionId};
    use crate::hub::{Form, Gathered, Join, Joined, Recipients, Source, Start};
    use crate::{Channel, ChannelManager, ChannelOptions, Condition, KeyedState, LagPolicy};

    fn keeping(events: usize) -> ChannelOptions {
        ChannelOptions::new().history(History::events(events))
    }

    fn manager(options: ChannelOptions) -> ChannelManager {
        let manager = ChannelManager::builder()
            .defaults(options)
            .republish_window(Duration::ZERO)
            .build();
        manager.hub().attach_idle();
        manager
    }

    /// Gives an event for all channels its number, and serves none of them.
    fn begin(manager: &ChannelManager, data: &str) -> EventId {
        let hub = manager.hub();
        let ready = hub.encode(&Event::message(data), None).unwrap();
        let mut state = hub.lock();
        state.for_all.begin(0, History::events(10));
        let sequence = state.next_sequence();
        hub.hold(&mut state, sequence, ready, None, 0)
    }

    fn finish(manager: &ChannelManager) {
        let hub = manager.hub();
        drop(hub.finish_spread(hub.lock()));
    }

    /// What a channel's log holds, as it is.
    fn held(channel: &Channel) -> Vec<(u64, String)> {
        let state = channel.hub().lock();
        let log = &state.get(channel.key()).unwrap().log;
        let entries = log.after(0);
        let shown = entries.map(|e| (e.sequence, e.frame.decode().data().to_owned()));
        shown.collect()
    }

    fn data(channel: &Channel) -> Vec<String> {
        held(channel).into_iter().map(|(_, data)| data).collect()
    }

    fn join(channels: &[&Channel], token: u64, start: &Start) -> Joined {
        let keys: Vec<_> = channels.iter().map(|channel| channel.key()).collect();
        let join = Join::of(&keys, token, start);
        channels[0].hub().join(join).unwrap()
    }

    fn gather(channels: &[&Channel], after: u64) -> (Gathered, Vec<u64>) {
        let keys: Vec<_> = channels.iter().map(|channel| channel.key()).collect();
        let recipients = Recipients {
            reactor: 0,
            clients: 1,
        };
        let source = Source {
            channels: &keys,
            form: Form::Plain,
        };
        let (mut batch, mut targets) = (Batch::default(), Vec::new());
        let hub = channels[0].hub();
        let gathered = hub.gather(recipients, source, after, 1 << 20, &mut batch, &mut targets);
        let numbers = batch.pieces().iter().map(|piece| piece.sequence);
        (gathered.unwrap().0, numbers.collect())
    }

    #[test]
    fn an_event_for_all_channels_has_one_number_and_one_frame() {
        let manager = manager(keeping(10));
        let [a, b] = ["a", "b"].map(|name| manager.get_or_create(name).unwrap());
        a.broadcast(Event::message("1")).unwrap();
        let published = manager.broadcast_all(Event::message("2")).unwrap();
        assert_eq!(published.id, Some(manager.hub().id_of(2)));
        b.broadcast(Event::message("3")).unwrap();
        let of = |number: u64, data: &str| (number, data.to_owned());
        assert_eq!(held(&a), [of(1, "1"), of(2, "2")]);
        assert_eq!(held(&b), [of(2, "2"), of(3, "3")]);
        let state = manager.hub().lock();
        let frame = |channel: &Channel| {
            let log = &state.get(channel.key()).unwrap().log;
            log.at_or_before(2).unwrap().frame.as_bytes().as_ptr()
        };
        assert_eq!(frame(&a), frame(&b));
        assert_eq!(state.totals.published, 3);
    }

    #[test]
    fn whatever_touches_a_channel_serves_it_first() {
        let manager = manager(keeping(10));
        let names = [
            "published",
            "finished",
            "joined",
            "gathered",
            "asked",
            "saved",
        ];
        let channels = names.map(|name| manager.get_or_create(name).unwrap());
        let [published, finished, joined, gathered, asked, saved] = &channels;
        for (channel, token) in [gathered, asked].into_iter().zip(1..) {
            join(&[channel], token, &Start::Live);
        }
        begin(&manager, "all");
        for channel in &channels {
            assert!(data(channel).is_empty());
        }
        published.broadcast(Event::message("next")).unwrap();
        assert_eq!(data(published), ["all", "next"]);
        finished.finish(Some(Event::message("last"))).unwrap();
        assert_eq!(data(finished), ["all", "last"]);
        let place = join(&[joined], 3, &Start::Earliest);
        assert_eq!((place.seen, place.head, data(joined).len()), (0, 1, 1));
        let (batch, numbers) = gather(&[gathered], 0);
        assert_eq!((batch.through, numbers), (3, vec![1]));
        assert_eq!(manager.hub().quiet_through(&[asked.key()], 0), None);
        assert_eq!(data(asked), ["all"]);
        manager.save(&mut Vec::new()).unwrap();
        assert_eq!(data(saved), ["all"]);
        // The rest finds that all have it, and that it is news for their clients.
        let hub = manager.hub();
        let mut work = crate::hub::Work::default();
        hub.take_work(0, &mut work);
        assert!(work.dirty.is_empty());
        finish(&manager);
        hub.take_work(0, &mut work);
        assert_eq!(work.dirty.len(), 3, "of those with clients");
        assert!(channels.iter().all(|c| data(c)[0] == "all"));
    }

    #[test]
    fn a_publish_to_all_first_helps_to_finish_the_one_before() {
        let manager = manager(keeping(10));
        let a = manager.get_or_create("a").unwrap();
        begin(&manager, "1");
        manager.broadcast_all(Event::message("2")).unwrap();
        assert_eq!(data(&a), ["1", "2"]);
        assert!(!manager.hub().lock().for_all.is_spreading());
    }

    #[test]
    fn a_stream_of_several_channels_is_sent_an_event_for_all_of_them_once() {
        let conflating = keeping(10)
            .lag_policy(LagPolicy::Conflate)
            .keyed_state(KeyedState::keys(10));
        let manager = manager(keeping(10));
        let [a, b] = ["a", "b"].map(|name| manager.get_or_create(name).unwrap());
        let keyed = manager.get_or_create_with("c", || conflating).unwrap();
        let all = [&a, &keyed, &b];
        join(&all, 1, &Start::Live);
        join(&[&b], 2, &Start::Live);
        for (key, clients) in [("k", 2), ("l", 2)] {
            let event = Event::message("x").with_key(key);
            assert_eq!(manager.broadcast_all(event).unwrap().clients, clients);
        }
        b.broadcast(Event::message("b")).unwrap();
        assert_eq!(gather(&all, 0).1, [1, 2, 3]);
        assert_eq!(join(&all, 3, &Start::Last(2)).seen, 1);
        // The state of the second channel is sent whole, and that of the others is not.
        let joined = join(&all, 4, &Start::Live);
        assert_eq!((joined.seen, joined.keyed_through), (0, 3));
        let place = ConnectionId {
            token: 4,
            reactor: 0,
        };
        let keys: Vec<_> = all.iter().map(|channel| channel.key()).collect();
        let span = crate::hub::Span {
            seen: joined.seen,
            through: joined.now,
            keyed_through: joined.keyed_through,
        };
        let source = Source {
            channels: &keys,
            form: Form::Plain,
        };
        let mut batch = Batch::default();
        let hub = manager.hub();
        hub.read(source, &joined.readers, place, span, 1 << 20, &mut batch);
        let numbers: Vec<u64> = batch.pieces().iter().map(|p| p.sequence).collect();
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn a_channel_that_is_made_later_begins_with_what_is_kept_since_its_past() {
        let manager = manager(keeping(2));
        let old = manager.get_or_create("old").unwrap();
        manager.broadcast_all(Event::message("1")).unwrap();
        assert_eq!(data(&old), ["1"]);
        manager.remove("old");
        manager.broadcast_all(Event::message("2")).unwrap();
        let [old, new] = ["old", "new"].map(|name| manager.get_or_create(name).unwrap());
        assert_eq!(
            (data(&old), data(&new)),
            (vec!["2".into()], vec!["1".into(), "2".into()])
        );
        assert!(join(&[&new], 1, &Start::Earliest).gap.is_none());
        manager.broadcast_all(Event::message("3")).unwrap();
        let newer = manager.get_or_create("newer").unwrap();
        assert_eq!(data(&newer), ["2", "3"]);
        // A client that has not seen the first one has missed it.
        let after = |number| Start::After(manager.hub().id_of(number).to_string());
        let missed = join(&[&newer], 2, &after(0));
        assert!(missed.gap.is_some() && join(&[&newer], 3, &after(1)).gap.is_none());
        // Nothing was published to it.
        assert_eq!(newer.stats().unwrap().published, 0);
    }

    #[test]
    fn a_removal_for_all_removes_the_key_from_state_only() {
        let manager = manager(keeping(10));
        let conflating = || {
            let options = keeping(10).lag_policy(LagPolicy::Conflate);
            options.keyed_state(KeyedState::keys(10))
        };
        let plain = manager.get_or_create("plain").unwrap();
        let keyed = manager.get_or_create_with("keyed", conflating).unwrap();
        manager
            .broadcast_all(Event::message("1").with_key("k"))
            .unwrap();
        assert_eq!(keyed.stats().unwrap().keys, 1);
        manager.broadcast_all(Event::removal("k")).unwrap();
        let later = manager.get_or_create_with("later", conflating).unwrap();
        for channel in [&keyed, &later] {
            let stats = channel.stats().unwrap();
            assert_eq!((stats.keys, stats.history_events), (0, 1));
        }
        assert_eq!(plain.stats().unwrap().history_events, 2);
    }

    #[test]
    fn an_own_id_has_one_outcome_for_all_channels() {
        let manager = manager(keeping(3));
        let [a, b] = ["a", "b"].map(|name| manager.get_or_create(name).unwrap());
        let own = |data: &'static str| Event::message(data).with_id("order-17");
        a.broadcast(own("x")).unwrap();
        // The first one to all, which the channel with an event of that id has too.
        let published = manager.broadcast_all(own("y")).unwrap();
        assert_eq!((published.events, published.duplicates), (1, 0));
        assert_eq!(
            (data(&a), data(&b)),
            (vec!["x".into(), "y".into()], vec!["y".into()])
        );
        let again = manager.broadcast_all(own("y")).unwrap();
        assert_eq!((again.events, again.clients, again.duplicates), (0, 0, 1));
        assert_eq!(again.id.unwrap(), "order-17");
        let reused = Err(PublishError::IdReused {
            id: "order-17".into(),
        });
        assert_eq!(manager.broadcast_all(own("x")), reused);
        // It is known in each channel, also in one that is made later.
        assert_eq!(b.broadcast(own("y")).unwrap().duplicates, 1);
        assert_eq!(a.broadcast(own("x")).unwrap().duplicates, 1);
        for n in 0..5 {
            manager
                .broadcast_all(Event::message(n.to_string()))
                .unwrap();
        }
        let later = manager.get_or_create("later").unwrap();
        assert_eq!(data(&later), ["2", "3", "4"]);
        assert_eq!(later.broadcast(own("y")).unwrap().duplicates, 1);
        assert_eq!(later.broadcast(own("x")), reused);
        // Its place is that of the first event, until that is gone.
        let mut state = Vec::new();
        manager.save(&mut state).unwrap();
        let restored = ChannelManager::builder().defaults(keeping(3));
        let restored = restored.restore(&*state).unwrap();
        assert_eq!(restored.broadcast_all(own("y")).unwrap().duplicates, 1);
    }

    #[test]
    fn a_target_is_for_the_streams_of_all_channels_that_it_admits() {
        let manager = manager(keeping(10));
        let [a, b] = ["a", "b"].map(|name| manager.get_or_create(name).unwrap());
        join(&[&a, &b], 1, &Start::Live);
        join(&[&b], 2, &Start::Live);
        let target = Target::Client(ClientId::lookup("client 1"));
        let published = manager.publish(&[Event::message("x")], target).unwrap();
        assert_eq!(published.clients, 1);
        let no_client = Target::Where(vec![Condition::new("role", "admin")]);
        let published = manager.publish(&[Event::message("x")], no_client).unwrap();
        assert_eq!((published.events, published.clients), (1, 0));
    }

    #[test]
    fn a_channel_that_compresses_has_packed_frames_whenever_it_was_made() {
        let manager = manager(keeping(10));
        let long = "the same again, ".repeat(100);
        manager.broadcast_all(Event::message(&*long)).unwrap();
        let compressing = || keeping(10).compress_from(100);
        let packed = manager.get_or_create_with("packed", compressing).unwrap();
        let plain = manager.get_or_create("plain").unwrap();
        manager.broadcast_all(Event::message(&*long)).unwrap();
        let state = manager.hub().lock();
        let lens = |channel: &Channel| -> Vec<Option<usize>> {
            let log = &state.get(channel.key()).unwrap().log;
            let packed = log
                .after(0)
                .map(|entry| entry.attributes.as_ref()?.packed.as_ref());
            packed.map(|packed| packed.map(Frame::len)).collect()
        };
        assert_eq!(lens(&plain), [None, None]);
        let lens = lens(&packed);
        assert!(
            lens[0] > Some(long.len()) && lens[1] < Some(200),
            "{lens:?}"
        );
    }

    #[test]
    fn numbers_rise_in_each_channel_with_several_publishers() {
        const CHANNELS: usize = 3_000;
        const EACH: usize = 200;
        let manager = manager(keeping(10_000));
        let channels: Vec<Channel> = (0..CHANNELS)
            .map(|n| manager.get_or_create(&n.to_string()).unwrap())
            .collect();
        let is_over = AtomicBool::new(false);
        let read = thread::scope(|scope| {
            let to_all = ["x", "y"].map(|name| {
                let manager = &manager;
                scope.spawn(move || {
                    for n in 0..EACH / 10 {
                        let event = Event::message(format!("{name}{n}"));
                        manager.broadcast_all(event).unwrap();
                    }
                })
            });
            let to_one = scope.spawn(|| {
                for n in 0..EACH {
                    let at = CHANNELS - 1 - n % 7;
                    channels[at].broadcast(Event::message("z")).unwrap();
                }
            });
            let reader = scope.spawn(|| {
                let few: Vec<&Channel> = channels.iter().rev().take(3).collect();
                join(&few, 1, &Start::Live);
                let (mut after, mut numbers) = (0, Vec::new());
                loop {
                    let was_over = is_over.load(Relaxed);
                    let (gathered, more) = gather(&few, after);
                    numbers.extend(more);
                    after = gathered.through;
                    if was_over && !gathered.has_more {
                        return numbers;
                    }
                }
            });
            to_all.into_iter().for_each(|thread| thread.join().unwrap());
            to_one.join().unwrap();
            is_over.store(true, Relaxed);
            reader.join().unwrap()
        });
        assert!(read.is_sorted_by(|a, b| a < b));
        let of_three = (0..EACH).filter(|n| n % 7 < 3).count();
        assert_eq!(read.len(), 2 * (EACH / 10) + of_three);
        for channel in &channels {
            let held = held(channel);
            assert!(held.is_sorted_by(|a, b| a.0 < b.0));
            let all = held.iter().filter(|(_, data)| data != "z").count();
            assert_eq!(all, 2 * (EACH / 10));
        }
    }
}
