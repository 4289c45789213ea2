//! `GET /metrics`: the engine's figures in the text format of Prometheus.
//!
//! All names and all values of labels are fixed, so no client can create a series.
//! `docs/observability.md` describes each figure.

mod cluster;
mod page;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

use self::page::{Page, exact};
use super::access::KeyFetches;
use super::context::Context;
use super::errors::Problem;
use super::process::Process;
use super::readiness;
use pushwheel::cluster::ClusterStatus;
use pushwheel::{Backlog, JournalStatus, Metrics, Request, Response};

/// `GET /metrics`
pub(super) fn metrics(request: &Request, context: &Context) -> Result<Response, Problem> {
    let mut registry = Registry::default();
    let metrics = request.metrics();
    registry.register_collector(Box::new(Figures {
        is_ready: readiness::problem(request, context, &metrics).is_none(),
        metrics,
        backlog: request.channels().backlog(),
        process: Process::read(),
        key_fetches: context.access.key_fetches(),
        journal: request.channels().journal_status(),
        cluster: request.channels().cluster_status(),
    }));
    let mut text = String::new();
    match prometheus_text::encode(&mut text, &registry) {
        Ok(()) => Ok(Response::typed(
            prometheus_text::CONTENT_TYPE,
            text.into_bytes(),
        )),
        Err(error) => {
            log::error!("cannot write the metrics ({error})");
            Err(Problem::no_metrics())
        }
    }
}

#[derive(Debug)]
struct Figures {
    is_ready: bool,
    metrics: Metrics,
    backlog: Backlog,
    process: Process,
    /// `None` if keys for tokens are not fetched.
    key_fetches: Option<KeyFetches>,
    journal: Option<JournalStatus>,
    cluster: Option<ClusterStatus>,
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.write_server(&mut page)?;
        self.write_key_fetches(&mut page)?;
        self.write_connections(&mut page)?;
        self.write_events(&mut page)?;
        self.write_backlog(&mut page)?;
        self.write_times(&mut page)?;
        self.write_process(&mut page)?;
        if let Some(journal) = &self.journal {
            write_journal(&mut page, journal)?;
        }
        match &self.cluster {
            Some(cluster) => cluster::write(&mut page, cluster),
            None => Ok(()),
        }
    }
}

impl Figures {
    fn write_server(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.labelled_gauge("pushwheel_build_info", "The server's version", version, 1)?;
        let uptime = self.metrics.uptime.as_secs_f64();
        page.gauge("pushwheel_uptime_seconds", "Time since the start", uptime)?;
        page.gauge(
            "pushwheel_ready",
            "1 if more clients can be served and events published, as GET /ready reports, else 0",
            f64::from(u8::from(self.is_ready)),
        )
    }

    fn write_key_fetches(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(fetches) = self.key_fetches else {
            return Ok(());
        };
        page.counters(
            "pushwheel_token_key_fetches",
            "Fetches of the key set for tokens, by result",
            "result",
            [("ok", fetches.done), ("failed", fetches.failed)].into_iter(),
        )?;
        page.whole(
            "pushwheel_token_keys_fetched_timestamp_seconds",
            "Time of the last successful fetch of the key set, in seconds since 1970",
            fetches.done_at_s,
        )
    }

    fn write_connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.metrics;
        page.whole(
            "pushwheel_connections",
            "Open connections, streams and others",
            metrics.connections,
        )?;
        page.counter(
            "pushwheel_connections_accepted",
            "Accepted connections",
            metrics.connections_accepted,
        )?;
        page.counter(
            "pushwheel_connections_refused",
            "Connections that could not be accepted",
            metrics.connections_refused,
        )?;
        page.whole(
            "pushwheel_batch_senders",
            "Threads that write to many clients with one system call, by io_uring",
            metrics.batch_senders,
        )?;
        page.whole(
            "pushwheel_clients",
            "Clients, each with an open stream",
            metrics.clients,
        )?;
        page.counter(
            "pushwheel_streams_opened",
            "Opened streams",
            metrics.streams_opened,
        )?;
        let reasons = metrics.streams_ended.iter();
        page.counters(
            "pushwheel_streams_ended",
            "Ended streams, by reason",
            "reason",
            reasons.map(|(reason, count)| (reason.as_str(), *count)),
        )?;
        page.counters(
            "pushwheel_responses",
            "Responses, by class of the status",
            "class",
            CLASSES.into_iter().zip(metrics.answers),
        )?;
        page.counters(
            "pushwheel_refusals",
            "Refused requests, by code of the error",
            "code",
            metrics.refusals.iter().copied(),
        )?;
        page.counter(
            "pushwheel_read_bytes",
            "Bytes read from all connections",
            metrics.bytes_read,
        )?;
        page.counter(
            "pushwheel_written_bytes",
            "Bytes written to all connections",
            metrics.bytes_written,
        )
    }

    fn write_events(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.metrics;
        page.whole("pushwheel_channels", "Channels", metrics.channels)?;
        page.whole(
            "pushwheel_channels_unpublished",
            "Channels that subscriptions created and no publisher has published to",
            metrics.channels_unpublished,
        )?;
        page.counter(
            "pushwheel_channels_displaced",
            "Unpublished channels that were closed to make room for a publisher's channel",
            metrics.channels_displaced,
        )?;
        page.counter(
            "pushwheel_events_published",
            "Published events",
            metrics.events_published,
        )?;
        page.counter(
            "pushwheel_published_bytes",
            "Bytes of published events, as one client receives them",
            metrics.event_bytes_published,
        )?;
        page.counter(
            "pushwheel_deliveries",
            "Events written whole, counted for each client",
            metrics.deliveries,
        )?;
        page.counter(
            "pushwheel_gaps",
            "Gaps sent to clients, which missed events for good",
            metrics.gaps,
        )?;
        page.counter(
            "pushwheel_heartbeats",
            "Sent heartbeats",
            metrics.heartbeats,
        )
    }

    fn write_backlog(&self, page: &mut Page<'_>) -> fmt::Result {
        page.whole(
            "pushwheel_clients_behind",
            "Clients that have not received all events for them yet",
            self.metrics.clients_behind,
        )?;
        let backlog = &self.backlog;
        page.whole(
            "pushwheel_backlog_events",
            "Events that a client has not received yet",
            backlog.events,
        )?;
        page.whole(
            "pushwheel_backlog_bytes",
            "Bytes of the events that a client has not received yet",
            backlog.bytes,
        )?;
        page.whole(
            "pushwheel_log_events",
            "Events in the logs of all channels",
            backlog.log_events,
        )?;
        page.whole(
            "pushwheel_log_bytes",
            "Bytes of the logs of all channels, including overhead",
            backlog.log_bytes,
        )?;
        let max = self.metrics.log_bytes_max;
        page.gauge(
            "pushwheel_log_bytes_max",
            "Maximum bytes of the logs of all channels: --history-total-bytes",
            max.map_or(f64::INFINITY, exact),
        )?;
        page.counter(
            "pushwheel_events_evicted",
            "Events evicted because all channels together reached --history-total-bytes",
            self.metrics.events_evicted,
        )?;
        page.counter(
            "pushwheel_keys_evicted",
            "Keys evicted from conflating channels",
            self.metrics.keys_evicted,
        )
    }

    fn write_times(&self, page: &mut Page<'_>) -> fmt::Result {
        page.histogram(
            "pushwheel_loop_turn_seconds",
            "Busy time of each turn of the event loop, without its sleep",
            &self.metrics.turns,
        )?;
        page.histogram(
            "pushwheel_delivery_latency_seconds",
            "Time from a publish to the write to the last client that keeps up",
            &self.metrics.latency,
        )
    }

    /// With the names that all clients of Prometheus use.
    fn write_process(&self, page: &mut Page<'_>) -> fmt::Result {
        let process = &self.process;
        if let Some(bytes) = process.resident_bytes {
            page.whole(
                "process_resident_memory_bytes",
                "Resident memory of the process",
                bytes,
            )?;
        }
        if let Some(bytes) = process.virtual_bytes {
            page.whole(
                "process_virtual_memory_bytes",
                "Virtual memory of the process",
                bytes,
            )?;
        }
        if let Some(used) = process.cpu_seconds {
            page.fraction_counter("process_cpu_seconds", "Processor time of the process", used)?;
        }
        if let Some(time) = process.started_at {
            page.gauge(
                "process_start_time_seconds",
                "Start time of the process, in seconds since 1970",
                time,
            )?;
        }
        if let Some(threads) = process.threads {
            page.whole("process_threads", "Threads of the process", threads)?;
        }
        if let Some(open) = process.descriptors {
            page.whole("process_open_fds", "Open descriptors", open)?;
        }
        if let Some(max) = process.descriptors_max {
            page.gauge("process_max_fds", "Maximum descriptors", max)?;
        }
        Ok(())
    }
}

fn write_journal(page: &mut Page<'_>, journal: &JournalStatus) -> fmt::Result {
    page.gauge(
        "pushwheel_journal_up",
        "1 if the journal accepts events, 0 after a write or a sync has failed",
        f64::from(u8::from(journal.is_writable)),
    )?;
    page.whole(
        "pushwheel_journal_bytes",
        "Size of the journal's files, in bytes",
        journal.bytes,
    )?;
    page.whole(
        "pushwheel_journal_queue_records",
        "Publishes and other changes that wait to be written",
        journal.queued as u64,
    )?;
    page.whole(
        "pushwheel_journal_queue_bytes",
        "Size of the publishes and other changes that wait to be written, in bytes",
        journal.queued_bytes as u64,
    )?;
    page.counter(
        "pushwheel_journal_refused",
        "Publishes and other changes that the journal refused or did not confirm in time",
        journal.refused,
    )?;
    page.histogram(
        "pushwheel_journal_append_seconds",
        "Time of each write, with its sync if --journal-sync is always",
        &journal.appends,
    )?;
    page.histogram(
        "pushwheel_journal_sync_seconds",
        "Time of each sync that is made beside writes",
        &journal.syncs,
    )
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
