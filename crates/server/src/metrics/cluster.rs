//! The figures of a node of a cluster.

use std::fmt;

use super::page::Page;
use pushwheel::cluster::ClusterStatus;

pub(super) fn write(page: &mut Page<'_>, cluster: &ClusterStatus) -> fmt::Result {
    let flag = |is: bool| f64::from(u8::from(is));
    page.gauge(
        "pushwheel_broker_up",
        "1 while what this node appends to the log of the cluster comes back to it, else 0",
        flag(cluster.is_connected),
    )?;
    page.gauge(
        "pushwheel_broker_stopped",
        "1 if this node follows the log no longer, and has to be started again",
        flag(cluster.stopped.is_some()),
    )?;
    page.whole(
        "pushwheel_broker_applied",
        "Newest number of the log that this node has applied",
        cluster.applied,
    )?;
    page.gauge(
        "pushwheel_broker_lag_seconds",
        "Time from the newest probe of this node to its return from the broker",
        cluster.lag.as_secs_f64(),
    )?;
    page.whole(
        "pushwheel_broker_queue_records",
        "Publishes and other changes that wait for the broker",
        cluster.queued as u64,
    )?;
    page.whole(
        "pushwheel_broker_queue_bytes",
        "Size of the publishes and other changes that wait for the broker, in bytes",
        cluster.queued_bytes as u64,
    )?;
    write_counters(page, cluster)?;
    page.whole(
        "pushwheel_broker_waiting_joins",
        "Requests for streams that wait until this node has what their id names",
        cluster.waiting_joins as u64,
    )?;
    page.gauge(
        "pushwheel_broker_keeper",
        "1 if this node makes snapshots and trims the log",
        flag(cluster.is_keeper),
    )?;
    page.whole(
        "pushwheel_cluster_nodes",
        "Nodes of the cluster, this one included",
        cluster.nodes.len() as u64,
    )?;
    let differs = cluster.nodes.iter().any(|node| node.has_other_options);
    page.gauge(
        "pushwheel_cluster_options_differ",
        "1 if a node has other options of channels than this one",
        flag(differs),
    )?;
    page.histogram(
        "pushwheel_broker_append_seconds",
        "Time of each append to the log of the cluster",
        &cluster.appends,
    )
}

fn write_counters(page: &mut Page<'_>, cluster: &ClusterStatus) -> fmt::Result {
    let counters = [
        (
            "pushwheel_broker_refused",
            "Publishes and other changes that were refused, or not confirmed in time",
            cluster.refused,
        ),
        (
            "pushwheel_broker_blocks_read",
            "Blocks of the log that were read",
            cluster.blocks,
        ),
        (
            "pushwheel_broker_read_bytes",
            "Bytes of the blocks that were read",
            cluster.block_bytes,
        ),
        (
            "pushwheel_broker_repeats",
            "Blocks that were sent again because an answer was missing, and were there",
            cluster.repeated,
        ),
        (
            "pushwheel_broker_sessions",
            "Sessions that were opened with the broker",
            cluster.sessions,
        ),
        (
            "pushwheel_broker_terms",
            "Restarts, failovers and losses of the broker since this node has joined",
            cluster.terms,
        ),
        (
            "pushwheel_broker_lost_events",
            "Events that this node had, and the broker has lost",
            cluster.lost,
        ),
        (
            "pushwheel_broker_resyncs",
            "Times that this node has fallen behind what the log keeps",
            cluster.resyncs,
        ),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, value)?;
    }
    Ok(())
}
