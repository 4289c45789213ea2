//! `GET /metrics`: the engine's figures as Prometheus reads them.
//!
//! Every name and every label's values are fixed: nothing that a client says
//! makes a series. What each means is in `docs/observability.md`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::errors::Problem;
use pushwheel::{Backlog, Histogram, Metrics, Request, Response};

/// `GET /metrics`
pub(super) fn metrics(request: &Request) -> Result<Response, Problem> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures {
        is_draining: request.is_draining(),
        metrics: request.metrics(),
        backlog: request.channels().backlog(),
    }));
    #[cfg(target_os = "linux")]
    registry.register_collector(Box::new(process::Process));
    let mut text = String::new();
    match prometheus_text::encode(&mut text, &registry) {
        Ok(()) => Ok(Response::typed(
            prometheus_text::CONTENT_TYPE,
            text.into_bytes(),
        )),
        Err(error) => {
            log::error!("the metrics cannot be written: {error}");
            let message = "the metrics cannot be written; the log says why";
            Ok(Response::error(500, "internal_error", message))
        }
    }
}

#[derive(Debug)]
struct Figures {
    is_draining: bool,
    metrics: Metrics,
    backlog: Backlog,
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.tell_server(&mut page)?;
        self.tell_connections(&mut page)?;
        self.tell_events(&mut page)?;
        self.tell_backlog(&mut page)?;
        self.tell_times(&mut page)
    }
}

impl Figures {
    fn tell_server(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.labelled_gauge("pushwheel_build_info", "The server's version", version, 1)?;
        let uptime = self.metrics.uptime.as_secs_f64();
        page.gauge(
            "pushwheel_uptime_seconds",
            "For how long it has run",
            uptime,
        )?;
        let is_ready = !self.is_draining && !self.metrics.is_full;
        page.gauge(
            "pushwheel_ready",
            "1 while more clients can be served, as GET /ready tells",
            f64::from(u8::from(is_ready)),
        )
    }

    fn tell_connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.metrics;
        page.whole(
            "pushwheel_connections",
            "Connections that are open, streams and others",
            metrics.connections,
        )?;
        page.counter(
            "pushwheel_connections_accepted",
            "Connections that were accepted",
            metrics.connections_accepted,
        )?;
        page.counter(
            "pushwheel_connections_refused",
            "How often a connection could not be accepted",
            metrics.connections_refused,
        )?;
        page.whole(
            "pushwheel_clients",
            "Clients: streams that are open",
            metrics.clients,
        )?;
        page.counter(
            "pushwheel_streams_opened",
            "Streams that began",
            metrics.streams_opened,
        )?;
        let reasons = metrics.streams_ended.iter();
        page.counters(
            "pushwheel_streams_ended",
            "Streams that ended, by why they did",
            "reason",
            reasons.map(|(reason, count)| (reason.as_str(), *count)),
        )?;
        page.counters(
            "pushwheel_responses",
            "Requests that were answered, by the class of the status",
            "class",
            CLASSES.into_iter().zip(metrics.answers),
        )?;
        page.counters(
            "pushwheel_refusals",
            "Requests that were refused, by the code of the error",
            "code",
            metrics.refusals.iter().copied(),
        )?;
        page.counter(
            "pushwheel_read_bytes",
            "Bytes that were read from all connections",
            metrics.bytes_read,
        )?;
        page.counter(
            "pushwheel_written_bytes",
            "Bytes that were written to all connections",
            metrics.bytes_written,
        )
    }

    fn tell_events(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.metrics;
        page.whole("pushwheel_channels", "Channels", metrics.channels)?;
        page.whole(
            "pushwheel_channels_unpublished",
            "Channels that subscriptions made and no publisher has published to",
            metrics.channels_unpublished,
        )?;
        page.counter(
            "pushwheel_channels_displaced",
            "Such channels that were closed to make room for a publisher's channel",
            metrics.channels_displaced,
        )?;
        page.counter(
            "pushwheel_events_published",
            "Events that were published",
            metrics.events_published,
        )?;
        page.counter(
            "pushwheel_published_bytes",
            "Bytes of the events that were published, as one client gets them",
            metrics.event_bytes_published,
        )?;
        page.counter(
            "pushwheel_deliveries",
            "Events that were written whole, once for each client",
            metrics.deliveries,
        )?;
        page.counter(
            "pushwheel_gaps",
            "Gaps that clients were told of: they missed events for good",
            metrics.gaps,
        )?;
        page.counter(
            "pushwheel_heartbeats",
            "Heartbeats that were sent",
            metrics.heartbeats,
        )
    }

    fn tell_backlog(&self, page: &mut Page<'_>) -> fmt::Result {
        page.whole(
            "pushwheel_clients_behind",
            "Clients that have not taken all that there is for them",
            self.metrics.clients_behind,
        )?;
        let backlog = &self.backlog;
        page.whole(
            "pushwheel_backlog_events",
            "Events that some client has yet to be sent",
            backlog.events,
        )?;
        page.whole(
            "pushwheel_backlog_bytes",
            "Bytes of the events that some client has yet to be sent",
            backlog.bytes,
        )?;
        page.whole(
            "pushwheel_log_events",
            "Events that the channels' logs hold",
            backlog.log_events,
        )?;
        page.whole(
            "pushwheel_log_bytes",
            "Bytes that these take, bookkeeping included",
            backlog.log_bytes,
        )?;
        let max = self.metrics.log_bytes_max;
        page.gauge(
            "pushwheel_log_bytes_max",
            "Bytes that these may take: --history-total-bytes",
            max.map_or(f64::INFINITY, exact),
        )?;
        page.counter(
            "pushwheel_events_evicted",
            "Events that were evicted because all channels together reached --history-total-bytes",
            self.metrics.events_evicted,
        )?;
        page.counter(
            "pushwheel_keys_evicted",
            "Keys that were evicted from channels that conflate",
            self.metrics.keys_evicted,
        )
    }

    fn tell_times(&self, page: &mut Page<'_>) -> fmt::Result {
        page.histogram(
            "pushwheel_loop_turn_seconds",
            "How long the loop was busy in each turn, without its sleep",
            &self.metrics.turns,
        )?;
        page.histogram(
            "pushwheel_delivery_latency_seconds",
            "From publishing until the last client that keeps up was written to",
            &self.metrics.latency,
        )
    }
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is written to.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn begin(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// `_total` is put behind its name.
    fn counter(&mut self, name: &'static str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters(
        &mut self,
        name: &'static str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Counter)?;
        for (value, count) in values {
            let labels = [(label, value)];
            let mut series = metric.encode_family(&labels)?;
            series.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &'static str, help: &str, value: f64) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    /// A counter that is no whole number.
    #[cfg(target_os = "linux")]
    fn fraction_counter(&mut self, name: &'static str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A gauge of a number of things.
    fn whole(&mut self, name: &'static str, help: &str, value: u64) -> fmt::Result {
        self.gauge(name, help, exact(value))
    }

    fn labelled_gauge(
        &mut self,
        name: &'static str,
        help: &str,
        labels: [(&'static str, &'static str); 1],
        value: i64,
    ) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Gauge)?;
        metric.encode_family(&labels)?.encode_gauge(&value)
    }

    fn histogram(&mut self, name: &'static str, help: &str, times: &Histogram) -> fmt::Result {
        let classes = times.classes().map(|(bound, count)| {
            let bound = bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
            (bound, count)
        });
        let classes: Vec<(f64, u64)> = classes.collect();
        let mut metric = self.begin(name, help, MetricType::Histogram)?;
        let sum = times.sum().as_secs_f64();
        metric.encode_histogram::<NoLabelSet>(sum, times.count(), &classes, None)
    }
}

#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn exact(number: u64) -> f64 {
    number as f64
}

/// What the system says of the process, by the names that all of Prometheus'
/// clients give these.
#[cfg(target_os = "linux")]
mod process {
    use std::fmt;

    use procfs::process::{LimitValue, Process as Own};
    use procfs::{boot_time_secs, page_size, ticks_per_second};
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::DescriptorEncoder;

    use super::Page;

    #[derive(Debug)]
    pub(super) struct Process;

    impl Collector for Process {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            // A system that hides /proc has nothing to tell.
            let Ok(own) = Own::myself() else {
                return Ok(());
            };
            tell(&mut Page(encoder), &own)
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    fn tell(page: &mut Page<'_>, own: &Own) -> fmt::Result {
        if let Ok(stat) = own.stat() {
            let ticks = ticks_per_second() as f64;
            page.gauge(
                "process_resident_memory_bytes",
                "Memory that the process has in RAM",
                (stat.rss * page_size()) as f64,
            )?;
            page.whole(
                "process_virtual_memory_bytes",
                "Memory that the process has addresses for",
                stat.vsize,
            )?;
            let used = (stat.utime + stat.stime) as f64 / ticks;
            page.fraction_counter(
                "process_cpu_seconds",
                "Processor time that the process has used",
                used,
            )?;
            if let Ok(booted) = boot_time_secs() {
                page.gauge(
                    "process_start_time_seconds",
                    "When the process began, in seconds since 1970",
                    booted as f64 + stat.starttime as f64 / ticks,
                )?;
            }
            page.gauge(
                "process_threads",
                "Threads that the process has",
                stat.num_threads as f64,
            )?;
        }
        if let Ok(count) = own.fd_count() {
            page.whole(
                "process_open_fds",
                "Descriptors that are open",
                count as u64,
            )?;
        }
        if let Ok(limits) = own.limits() {
            let max = match limits.max_open_files.soft_limit {
                LimitValue::Value(max) => max as f64,
                LimitValue::Unlimited => f64::INFINITY,
            };
            page.gauge("process_max_fds", "Descriptors that there may be", max)?;
        }
        Ok(())
    }
}
