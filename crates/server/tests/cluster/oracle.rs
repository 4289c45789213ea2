//! What clients have received, against what publishers were answered and what the nodes have
//! in the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::accepted::{Published, Seen, compare};
use crate::clients::{BEGIN, Client, END, Item, Received};
use crate::common::Subscriber;
use crate::nodes::Node;

/// The end of a run.
pub(crate) struct Outcome {
    /// The names of the channels.
    pub(crate) channels: Vec<String>,
    pub(crate) received: Received,
    /// Of each publisher, which published to the channel of its index.
    pub(crate) published: Vec<Published>,
}

/// Sums of a run, for its report.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) accepted: usize,
    pub(crate) doubtful: usize,
    pub(crate) refused: usize,
    pub(crate) delivered: usize,
    pub(crate) streams: usize,
    /// Accepted events that are not in the log in the end.
    pub(crate) lost: usize,
    /// Gaps that clients were told, by their reasons.
    pub(crate) gaps: BTreeMap<String, usize>,
}

impl Outcome {
    fn of_channel(&self, channel: usize) -> Vec<&Published> {
        let published = self.published.iter().skip(channel);
        published.step_by(self.channels.len()).collect()
    }

    fn clients(&self, channel: usize) -> impl Iterator<Item = &Client> {
        let clients = self.received.clients.iter();
        clients.filter(move |client| client.channel == channel)
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for one in &self.published {
            sums.accepted += one.accepted.len();
            sums.doubtful += one.doubtful.len();
            sums.refused += one.refused.len();
        }
        for client in &self.received.clients {
            sums.streams += client.streams;
            for item in &client.story {
                match item {
                    Item::Events(range) => sums.delivered += range.len(),
                    Item::Gap { reason, .. } => {
                        *sums.gaps.entry(reason.clone()).or_default() += 1;
                    }
                }
            }
        }
        sums
    }

    /// Checks that no id was given twice, in all channels together.
    fn check_ids(&self) {
        let mut given = HashMap::new();
        for event in self
            .received
            .channels
            .iter()
            .flat_map(|known| &known.events)
        {
            if let Some(number) = event.number() {
                let other = given.insert(number, event);
                assert!(other.is_none(), "one id: {other:?} and {event:?}");
            }
        }
    }

    /// Checks that each node has what the clients have received.
    pub(crate) fn check_nodes(&self, nodes: &[Node]) {
        for (name, known) in self.channels.iter().zip(&self.received.channels) {
            for node in nodes {
                // Clients begin behind the mark.
                let log = history(node, name).split_off(1);
                check_same(name, &known.events, &log, "the clients", &node.name);
            }
        }
    }

    /// Checks a run in which Redis has kept all that it had accepted: each client has
    /// received each event of its channel, once, in the one order, without a gap.
    pub(crate) fn check_that_nothing_is_lost(&self) -> Sums {
        self.check_ids();
        for (channel, name) in self.channels.iter().enumerate() {
            let events = &self.received.channels[channel].events;
            let whole = [Item::Events(0..events.len())];
            // By what each kind of clients has: one that differs may have an event that no
            // other one has.
            let mut others: BTreeMap<String, Vec<&Client>> = BTreeMap::new();
            for client in self.clients(channel).filter(|one| one.story != whole) {
                let story = format!("{:?}", client.story);
                others.entry(story).or_default().push(client);
            }
            if !others.is_empty() {
                let others: Vec<String> = others
                    .values()
                    .map(|clients| {
                        let missing = clients[0].missing(events);
                        let count = clients.len();
                        format!("{count} as {:?}, without {missing:?}", clients[0])
                    })
                    .collect();
                let count = events.len();
                panic!("{name}: not all of {count} events:\n{}", others.join("\n"));
            }
            let missing = compare(name, events, &self.of_channel(channel));
            assert!(missing.is_empty(), "{name}: accepted and lost: {missing:?}");
        }
        self.sums()
    }

    /// Checks a run in which Redis may have lost what it had accepted.
    ///
    /// What the nodes have in the end is the truth, and one for all. A client has received
    /// that, once and in order, or a gap in the place of what it has not received. What it has
    /// received and is not there any more was followed by the gap `lost`. So was the channel
    /// of each event that was answered 200 and is not there; `has_witness` is whether a node
    /// that knew it has lived on.
    pub(crate) fn check_that_losses_are_told(&self, nodes: &[&Node], has_witness: bool) -> Sums {
        self.check_ids();
        let mut sums = self.sums();
        for (channel, name) in self.channels.iter().enumerate() {
            let log = history(nodes[0], name);
            for node in &nodes[1..] {
                check_same(name, &log, &history(node, name), &nodes[0].name, &node.name);
            }
            let published = self.of_channel(channel);
            let missing = compare(name, &log, &published);
            sums.lost += missing.len();
            let places: HashMap<&Seen, usize> = log
                .iter()
                .enumerate()
                .map(|(at, event)| (event, at))
                .collect();
            for client in self.clients(channel) {
                let events = &self.received.channels[channel].events;
                let is_told = check_story(name, client, events, &places);
                if has_witness && !missing.is_empty() {
                    assert!(
                        is_told,
                        "{name}: {missing:?} are lost, and not told: {client:?}"
                    );
                }
            }
            for event in &self.received.channels[channel].events {
                let refused = |one: &&Published| one.refused.contains_key(&event.data);
                assert!(
                    !published.iter().any(refused),
                    "{name}: refused and delivered: {event:?}"
                );
            }
        }
        sums
    }
}

/// Checks what a client has received against the log in the end, and returns whether it was
/// told that something is lost.
fn check_story(
    name: &str,
    client: &Client,
    events: &[Seen],
    places: &HashMap<&Seen, usize>,
) -> bool {
    // Clients begin behind the mark, if that has survived.
    let mut next = usize::from(places.keys().any(|event| event.data == BEGIN));
    let mut is_told = false;
    let mut has_gap = false;
    let mut untold = None;
    let mut ids = BTreeSet::new();
    for item in &client.story {
        match item {
            Item::Gap { reason, id } => {
                has_gap = true;
                if matches!(&**reason, "lost" | "restart") {
                    is_told = true;
                    untold = None;
                    assert!(ids.insert(id), "{name}: {id} was told twice: {client:?}");
                }
            }
            Item::Events(range) => {
                for event in &events[range.clone()] {
                    let Some(place) = places.get(event) else {
                        untold = Some(event);
                        continue;
                    };
                    assert!(
                        *place >= next,
                        "{name}: {event:?} came twice or late: {client:?}"
                    );
                    assert!(
                        *place == next || has_gap,
                        "{name}: events are missing before {event:?}, without a gap: {client:?}"
                    );
                    next = place + 1;
                    has_gap = false;
                }
            }
        }
    }
    assert!(
        untold.is_none(),
        "{name}: {untold:?} is lost, and not told: {client:?}"
    );
    assert_eq!(next, places.len(), "{name}: {client:?}");
    is_told
}

fn check_same(name: &str, log: &[Seen], other: &[Seen], node: &str, other_node: &str) {
    let length = log.len().max(other.len());
    if let Some(at) = (0..length).find(|at| log.get(*at) != other.get(*at)) {
        panic!(
            "{name}, event {at}: {:?} of {node}, {:?} of {other_node}",
            log.get(at),
            other.get(at)
        );
    }
}

/// Returns what a node has of a channel, up to its end.
pub(crate) fn history(node: &Node, channel: &str) -> Vec<Seen> {
    let path = format!("/channels/{channel}?last_event_id=earliest");
    let mut subscriber = Subscriber::open(node.address, &path, &[]);
    let mut events = Vec::new();
    loop {
        let event = subscriber.next();
        if event.name != "message" {
            continue;
        }
        let (id, data) = (event.last_event_id, crate::accepted::short(&event.data));
        let is_end = data == END;
        events.push(Seen { id, data });
        if is_end {
            return events;
        }
    }
}
