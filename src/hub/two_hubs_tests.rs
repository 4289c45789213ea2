//! Two hubs apply one log. Their clocks, options, sweeps and members differ: every record has
//! the same outcome in both, and what both channels have is the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use proptest::prelude::*;

use super::applying::BlockTime;
use super::client::{ConnectionId, DisconnectReason};
use super::clock::Clock;
use super::manager::ChannelManager;
use super::state::State;
use super::{Hub, Join, MemberKey, Randomness};
use crate::journal::block::{Block, Sealed};
use crate::journal::generated::{ID_PREFIX, changes, ids};
use crate::journal::record::{Change, Record};
use crate::{Channel, ChannelOptions, History, KeyedState, LagPolicy, Start};

const PLACE: ConnectionId = ConnectionId {
    token: 1,
    reactor: 0,
};

/// A hub, its clock, and what it does on its own.
struct Node {
    manager: ChannelManager,
    now_ms: Arc<AtomicU64>,
    /// Its clock's time less that of the log; `None`: its clock goes on by itself, as if the
    /// log's had been set.
    ahead_ms: Option<u64>,
    handles: Vec<Channel>,
    members: Vec<MemberKey>,
}

/// What a node does on its own between two blocks.
#[derive(Clone, Debug)]
enum Local {
    Nothing,
    Sweep,
    /// A program makes a channel and keeps its handle.
    Make(&'static str),
    /// It drops all its handles.
    Drop,
    /// A client joins a channel, which is made for it, or all clients leave.
    Join(&'static str),
    Leave,
    /// A history is trimmed to this many events.
    Trim(&'static str, usize),
}

fn local() -> impl Strategy<Value = Local> {
    let name = || prop::sample::select(&["news", "b", "c d"][..]);
    prop_oneof![
        4 => Just(Local::Nothing),
        3 => Just(Local::Sweep),
        1 => name().prop_map(Local::Make),
        1 => Just(Local::Drop),
        2 => name().prop_map(Local::Join),
        1 => Just(Local::Leave),
        1 => (name(), 0..3_usize).prop_map(|(name, events)| Local::Trim(name, events)),
    ]
}

fn options(name: &str, history: History, is_packed: bool) -> ChannelOptions {
    let options = ChannelOptions::new()
        .history(history)
        .finished_for(Duration::from_millis(50));
    let options = match is_packed {
        true => options.compress_from(1),
        false => options,
    };
    match name {
        "b" => options
            .lag_policy(LagPolicy::Conflate)
            .keyed_state(KeyedState::keys(2)),
        _ => options,
    }
}

impl Node {
    fn new(ahead_ms: Option<u64>, history: History, is_packed: bool) -> Node {
        let now_ms = Arc::new(AtomicU64::new(ahead_ms.unwrap_or(0)));
        let builder = ChannelManager::builder()
            .empty_after(Some(Duration::from_millis(20)))
            .options_by_name(move |name| options(name, history, is_packed));
        let mut state = State::new(builder.settings);
        state.remembered.follow_log();
        state.keys.follow_log();
        let hub = Hub::with_ids(
            ids(),
            0,
            Clock::manual(now_ms.clone()),
            Randomness::System,
            state,
            builder.options_by_name,
            None,
        );
        hub.attach_idle();
        Node {
            manager: ChannelManager {
                _handles: None,
                hub,
            },
            now_ms,
            ahead_ms,
            handles: Vec::new(),
            members: Vec::new(),
        }
    }

    /// Applies a block. Returns what its records have done, but for the number of clients.
    fn apply(&self, (first, wall_ms, bytes): &(u64, u64, Vec<u8>)) -> Vec<String> {
        match self.ahead_ms {
            Some(ahead_ms) => self.now_ms.fetch_max(wall_ms + ahead_ms, Relaxed),
            None => self.now_ms.fetch_add(7, Relaxed),
        };
        let at_ms = self.now_ms.load(Relaxed);
        let block = Block::decode(bytes, ID_PREFIX).unwrap();
        let mut outcomes = Vec::new();
        let time = BlockTime {
            wall_ms: *wall_ms,
            at_ms,
        };
        let records = block.records.into_iter().map(|record| (record, ()));
        let hub = self.manager.hub();
        hub.apply(*first, time, records, |(), outcome| {
            let outcome = outcome.map(|done| (done.id, done.events, done.duplicates));
            // A hub may know the newest event by its own id or by its number.
            let outcome = outcome.map_err(|error| error.code());
            outcomes.push(format!("{outcome:?}"));
        });
        outcomes
    }

    fn act(&mut self, local: &Local) {
        match local {
            Local::Nothing => {}
            Local::Sweep => {
                // A later time than that of the log.
                self.now_ms.fetch_add(60, Relaxed);
                let mut left = self.manager.hub().channels_capacity();
                while left > 0 {
                    left = self.manager.hub().sweep(left);
                }
            }
            Local::Make(name) => self.handles.extend(self.manager.get_or_create(name)),
            Local::Drop => self.handles.clear(),
            Local::Join(name) => self.members.extend(self.join(name)),
            Local::Leave => {
                for member in self.members.drain(..) {
                    let hub = self.manager.hub();
                    hub.leave(&[member], PLACE, DisconnectReason::Gone);
                }
            }
            Local::Trim(name, events) => {
                if let Some(channel) = self.manager.get(name) {
                    channel.set_options(options(name, History::events(*events), false));
                }
            }
        }
    }

    fn join(&self, name: &str) -> Option<MemberKey> {
        let channel = self.manager.get_or_create(name).ok()?;
        let hub = self.manager.hub();
        let joined = hub.join(Join {
            id: hub.new_client_id(),
            has_generated_id: true,
            ..Join::of(&[channel.key()], PLACE.token, &Start::Live)
        });
        // A finished channel may not take it.
        let slot = joined.ok()?.readers[0].slot;
        Some(MemberKey {
            channel: channel.key(),
            slot,
        })
    }

    /// Returns the entries of a channel, and the newest number that it has evicted. Nothing
    /// of a finished one, which another hub may have swept: a new channel can have its name.
    fn entries(&self, name: &str) -> (Vec<(u64, String)>, u64) {
        let state = self.manager.hub().lock();
        let channel = state.names.get(name).and_then(|key| state.get(*key));
        let Some(channel) = channel.filter(|channel| channel.life.is_open()) else {
            return (Vec::new(), u64::MAX);
        };
        let entries = channel.log.after(0).map(|entry| {
            let (audience, own_id, key) = (entry.audience(), entry.own_id(), entry.key());
            let what = format!("{:?} {audience:?} {own_id:?} {key:?}", entry.frame);
            (entry.sequence, what)
        });
        (entries.collect(), channel.log.evicted_through())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn two_hubs_make_the_same_of_one_log(
        blocks in prop::collection::vec(
            (
                prop_oneof![9 => 0..40_u64, 1 => 0..100_000_000_u64],
                prop::collection::vec((changes(), 0..4_u64), 1..4),
                [local(), local()],
            ),
            1..24,
        ),
    ) {
        let mut nodes = [
            Node::new(None, History::events(1_000_000), false),
            Node::new(Some(90_000), History::events(2).age_max(Duration::from_millis(30)), true),
        ];
        let (mut next, mut wall_ms) = (1, 1_000);
        let mut log = Vec::new();
        for (n, (passed_ms, changes, locals)) in blocks.into_iter().enumerate() {
            wall_ms += passed_ms;
            let first = next;
            let mut records = Vec::new();
            for (change, lag) in changes {
                // The end of a finished channel is soon.
                let change = match change {
                    Change::Finish { channel, last, until_ms, begins_after } => Change::Finish {
                        channel,
                        last,
                        until_ms: wall_ms + until_ms % 50,
                        begins_after,
                    },
                    other => other,
                };
                let basis = (next - 1_u64).saturating_sub(lag);
                next += change.width();
                records.push(Record { basis, change });
            }
            let block = Sealed::new(1, n as u64 + 1, records.iter()).bytes;
            log.push(format!("{first} at {wall_ms}: {records:?}, then {locals:?}"));
            let block = (first, wall_ms, block);
            let [one, other] = [&nodes[0], &nodes[1]].map(|node| node.apply(&block));
            prop_assert_eq!(one, other, "{:#?}", log);
            for (node, local) in nodes.iter_mut().zip(&locals) {
                node.act(local);
            }
            for name in ["news", "b", "c d"] {
                let [one, other] = [&nodes[0], &nodes[1]].map(|node| node.entries(name));
                let evicted_through = one.1.max(other.1);
                let [one, other] = [one.0, other.0].map(|mut entries| {
                    entries.retain(|(number, _)| *number > evicted_through);
                    entries
                });
                prop_assert_eq!(one, other, "{}: {:#?}", name, log);
            }
        }
    }
}
