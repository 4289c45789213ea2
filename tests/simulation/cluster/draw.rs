//! What a seed draws of a cluster.

use fastrand::Rng;

use super::broker;
use super::client::{Begins, Behavior, Client};
use crate::draw::draw_faults;
use crate::network::Faults;

/// What happens at some moment.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A node is cut off from the broker, or all are, for so long.
    Cut(Option<usize>, u64),
    /// Another server takes over that lacks so many changes, and the one before goes on for
    /// so long.
    FailOver(usize, u64),
    /// The broker loses everything.
    Flush,
    /// A process ends, and another one begins.
    Kill(usize),
    /// A process stands still for so long.
    Freeze(usize, u64),
}

/// What a seed draws.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub channels: usize,
    pub clients: usize,
    pub duration_ms: u64,
    /// How long publishers pause, and parts of nodes that have nothing to do, at most.
    pub pause_ms_max: u64,
    pub idle_ms_max: u64,
    /// How much is published to all channels, in a thousand.
    pub for_all: u32,
    /// How much has own ids, in a thousand, and how much of that is published again.
    pub own_ids: u32,
    pub again: u32,
    pub timeout_ms: u64,
    pub stall_ms: u64,
    pub heartbeat_ms: u64,
    /// The time between two snapshots, and the time for which blocks are kept then.
    pub snapshot_ms: u64,
    pub retention_ms: u64,
    pub network: Faults,
    pub broker: broker::Faults,
    /// Whether nothing goes wrong with the broker and the nodes.
    pub is_calm: bool,
    pub happenings: Vec<(u64, Happening)>,
}

impl Plan {
    pub fn draw(rng: &mut Rng) -> Plan {
        let mut network = draw_faults(rng);
        // A node has all of its clients, and no descriptor is wanting.
        network.descriptors_max = usize::MAX;
        network.failed_registrations = 0;
        network.send_bytes_max = network.send_bytes_max.max(1_000);
        let nodes = [1, 2, 2, 3, 3, 3][rng.usize(0..6)];
        let duration_ms = rng.u64(2_000..12_000);
        let is_calm = rng.u32(0..6) == 0;
        let (broker, happenings) = match is_calm {
            true => Default::default(),
            false => (draw_broker(rng), draw_happenings(rng, nodes, duration_ms)),
        };
        Plan {
            nodes,
            channels: rng.usize(1..=4),
            clients: rng.usize(1..=12),
            duration_ms,
            pause_ms_max: [10, 40, 150][rng.usize(0..3)],
            idle_ms_max: [2, 10, 40][rng.usize(0..3)],
            for_all: [0, 0, 30, 200][rng.usize(0..4)],
            own_ids: 0,
            again: 0,
            timeout_ms: [1_000, 5_000, 5_000][rng.usize(0..3)],
            stall_ms: rng.u64(2_000..5_000),
            heartbeat_ms: [300, 1_000, 4_000][rng.usize(0..3)],
            snapshot_ms: [50, 300, 60_000][rng.usize(0..3)],
            retention_ms: [500, 5_000, 600_000][rng.usize(0..3)],
            network,
            broker,
            is_calm,
            happenings,
        }
    }
}

impl Plan {
    /// Draws how much has own ids. The log loses nothing: an event that is published again after
    /// a loss has one id and two numbers.
    #[must_use]
    pub fn with_own_ids(self, rng: &mut Rng) -> Plan {
        let is_of_log =
            |what: &Happening| matches!(what, Happening::FailOver(..) | Happening::Flush);
        let mut happenings = self.happenings;
        happenings.retain(|(_, happening)| !is_of_log(happening));
        Plan {
            own_ids: [300, 1_000][rng.usize(0..2)],
            again: [0, 100, 400][rng.usize(0..3)],
            happenings,
            ..self
        }
    }
}

fn draw_broker(rng: &mut Rng) -> broker::Faults {
    // Each kind is absent in half of the runs.
    let mut chance = |max: u32| if rng.bool() { rng.u32(0..=max) } else { 0 };
    broker::Faults {
        stalls: chance(3),
        lost_requests: chance(30),
        lost_answers: chance(30),
        torn_reads: chance(30),
        repeated: chance(30),
        full: chance(20),
        call_ms_max: [0, 5, 50, 300][rng.usize(0..4)],
    }
}

/// Draws what happens, and when.
fn draw_happenings(rng: &mut Rng, nodes: usize, duration_ms: u64) -> Vec<(u64, Happening)> {
    let count = rng.usize(0..7);
    let one = |_| {
        let at_ms = rng.u64(200..duration_ms);
        let node = rng.usize(0..nodes);
        let long_ms = [500, 3_000, 9_000][rng.usize(0..3)];
        let happening = match rng.u32(0..12) {
            0 => Happening::Cut(None, rng.u64(100..long_ms)),
            1 | 2 => Happening::Cut(Some(node), rng.u64(100..long_ms)),
            3 => Happening::FailOver(0, 0),
            4 | 5 => Happening::FailOver(rng.usize(1..50), 0),
            6 => Happening::FailOver(rng.usize(0..50), rng.u64(100..long_ms)),
            7 => Happening::Flush,
            8..10 => Happening::Kill(node),
            _ => Happening::Freeze(node, rng.u64(100..long_ms)),
        };
        (at_ms, happening)
    };
    (0..count).map(one).collect()
}

/// Draws a client.
pub fn client(rng: &mut Rng, number: usize, plan: &Plan) -> Client {
    let mut channels: Vec<usize> = (0..plan.channels).collect();
    rng.shuffle(&mut channels);
    channels.truncate(rng.usize(1..=plan.channels));
    let mut chance = |max: u32| if rng.bool() { rng.u32(0..=max) } else { 0 };
    let behavior = Behavior {
        leaves: chance(300),
        stalls: chance(200),
        read_max: [100, 2_000, 100_000][rng.usize(0..3)],
        asks_for_positions: rng.bool(),
    };
    let begins = match rng.u32(0..4) {
        0 => Begins::Earliest,
        _ => Begins::Live,
    };
    Client::new(number, channels, begins, behavior)
}
