//! [`Nodes`]: the nodes of a cluster, by the probes that are in its log.
//!
//! A node is alive while its newest probe is younger than [`ALIVE_MS`] by the clock of the
//! broker. No clock of a node is compared with another's.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use crate::cluster::{NodeStatus, WRITERS_MAX, WriterEnd};
use crate::journal::probe::Probe;

/// How old the newest probe of a node is at most.
const ALIVE_MS: u64 = 5_000;

/// The time after the newest block of a writer after which its blocks are forgotten.
const WRITER_MS: u64 = 3_600_000;

#[derive(Clone, Debug)]
struct Writer {
    end: WriterEnd,
    wall_ms: u64,
    probe: Option<(Probe, u64)>,
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    writers: HashMap<u128, Writer>,
    /// The newest time of the log.
    wall_ms: u64,
}

impl Nodes {
    /// Notes a block, and the probe that it has.
    pub(super) fn note(&mut self, end: WriterEnd, wall_ms: u64, probe: Option<Probe>) {
        self.wall_ms = self.wall_ms.max(wall_ms);
        if self.writers.len() >= WRITERS_MAX && !self.writers.contains_key(&end.writer) {
            self.forget_oldest();
        }
        let writer = self.writers.entry(end.writer).or_insert(Writer {
            end,
            wall_ms,
            probe: None,
        });
        if end.n >= writer.end.n {
            writer.end = end;
        }
        writer.wall_ms = writer.wall_ms.max(wall_ms);
        if let Some(probe) = probe {
            writer.probe = Some((probe, wall_ms));
        }
    }

    fn forget_oldest(&mut self) {
        let by_age = |(writer, known): &(&u128, &Writer)| (known.wall_ms, **writer);
        let oldest = self.writers.iter().min_by_key(by_age);
        if let Some(oldest) = oldest.map(|(writer, _)| *writer) {
            self.writers.remove(&oldest);
        }
    }

    /// Takes the newest blocks of writers from a snapshot, each with its time, and forgets all
    /// others: they may be of a branch that is lost.
    pub(super) fn reset(&mut self, ends: Vec<(WriterEnd, u64)>) {
        let mut before = std::mem::take(&mut self.writers);
        for (end, wall_ms) in ends {
            let probe = before.remove(&end.writer).and_then(|writer| writer.probe);
            self.wall_ms = self.wall_ms.max(wall_ms);
            let writer = Writer {
                end,
                wall_ms,
                probe,
            };
            self.writers.insert(end.writer, writer);
        }
    }

    /// Returns the newest block of each writer with its time, for a snapshot.
    pub(super) fn timed_ends(&self) -> Vec<(WriterEnd, u64)> {
        let ends = self.writers.values();
        let mut ends: Vec<_> = ends.map(|writer| (writer.end, writer.wall_ms)).collect();
        ends.sort_unstable_by_key(|(end, _)| end.writer);
        ends
    }

    /// Returns the newest block of each writer, in the order of the writers.
    pub(super) fn ends(&self) -> Vec<WriterEnd> {
        let mut ends: Vec<_> = self.writers.values().map(|writer| writer.end).collect();
        ends.sort_unstable_by_key(|end| end.writer);
        ends
    }

    /// Forgets the writers that have not written for an hour, and returns them.
    pub(super) fn forget_old(&mut self) -> Vec<u128> {
        let newest_ms = self.wall_ms;
        let is_old = |writer: &Writer| newest_ms.saturating_sub(writer.wall_ms) > WRITER_MS;
        let old = self.writers.iter().filter(|(_, writer)| is_old(writer));
        let mut old: Vec<u128> = old.map(|(writer, _)| *writer).collect();
        old.sort_unstable();
        for writer in &old {
            self.writers.remove(writer);
        }
        old
    }

    /// Returns the nodes that are alive, by name. `this` is the random number of this one.
    pub(super) fn alive(&self, this: u128, options_digest: u64) -> Vec<NodeStatus> {
        let mut nodes = Vec::new();
        for (id, writer) in &self.writers {
            let Some((probe, wall_ms)) = &writer.probe else {
                continue;
            };
            let age_ms = self.wall_ms.saturating_sub(*wall_ms);
            if age_ms > ALIVE_MS {
                continue;
            }
            nodes.push(NodeStatus {
                id: Uuid::from_u128(*id),
                name: probe.name.clone(),
                version: probe.version.clone(),
                is_this: *id == this,
                applied: probe.applied,
                clients: probe.clients,
                channels: probe.channels,
                is_draining: probe.is_draining,
                has_other_options: probe.options_digest != options_digest,
                age: Duration::from_millis(age_ms),
            });
        }
        nodes.sort_unstable_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(writer: u128, n: u64) -> WriterEnd {
        let first = n;
        WriterEnd { writer, n, first }
    }

    fn probe(name: &str) -> Option<Probe> {
        Some(Probe {
            name: name.to_owned(),
            version: "1".to_owned(),
            applied: 1,
            clients: 2,
            channels: 3,
            options_digest: 4,
            is_draining: false,
        })
    }

    #[test]
    fn a_node_is_alive_while_its_probes_are_new() {
        let mut nodes = Nodes::default();
        nodes.note(end(1, 1), 10_000, probe("b"));
        nodes.note(end(2, 1), 12_000, probe("a"));
        let names = |nodes: &Nodes| -> Vec<String> {
            let alive = nodes.alive(2, 4).into_iter();
            alive.map(|node| node.name).collect()
        };
        assert_eq!(names(&nodes), ["a", "b"]);
        nodes.note(end(2, 2), 15_001, None);
        assert_eq!(names(&nodes), ["a"]);
        let alive = nodes.alive(2, 5);
        assert!(alive[0].is_this && alive[0].has_other_options);
        assert_eq!(alive[0].age, Duration::from_millis(3_001));
        assert_eq!(nodes.ends(), [end(1, 1), end(2, 2)]);
    }

    #[test]
    fn writers_that_are_gone_are_forgotten_and_there_is_room_for_new_ones() {
        let mut nodes = Nodes::default();
        for n in 0..=WRITERS_MAX as u64 {
            nodes.note(end(n.into(), 1), 1_000 + n, None);
        }
        assert_eq!(nodes.ends().len(), WRITERS_MAX);
        assert_eq!(nodes.ends()[0].writer, 1);
        nodes.note(end(7, 2), WRITER_MS + 1_004, None);
        assert_eq!(nodes.forget_old(), [1, 2, 3]);
        assert_eq!(nodes.ends().len(), WRITERS_MAX - 3);
    }
}
