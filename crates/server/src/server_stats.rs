//! `GET /stats?server`: the figures of the server and its process that the page at `/` shows
//! beside the channels. A subset of `/metrics`, for programs that do not read Prometheus.

use std::collections::BTreeMap;

use serde::Serialize;

use super::context::Context;
use super::process::Process;
use super::readiness;
use pushwheel::{Histogram, Metrics, Request};

#[derive(Serialize)]
pub(super) struct ServerBody {
    /// As `GET /ready`.
    ready: bool,
    connections_refused: u64,
    /// What writes to many clients: `io_uring` or `send`.
    sends_by: &'static str,
    /// Busy time of the event loops.
    loop_seconds: f64,
    delivery_latency: LatencyBody,
    streams_opened: u64,
    streams_ended: BTreeMap<&'static str, u64>,
    /// The codes that have been returned.
    rejections: BTreeMap<&'static str, u64>,
    /// Unknown figures are null.
    process: ProcessBody,
}

#[derive(Serialize)]
struct LatencyBody {
    count: u64,
    /// In the order of time, without the empty ones.
    buckets: Vec<BucketBody>,
}

#[derive(Serialize)]
struct BucketBody {
    /// `None` for the last one, which has no bound.
    seconds_max: Option<f64>,
    count: u64,
}

#[derive(Serialize)]
struct ProcessBody {
    memory_bytes: Option<u64>,
    cpu_seconds: Option<f64>,
    threads: Option<u64>,
    descriptors: Option<u64>,
    /// `None` without a limit too.
    descriptors_max: Option<f64>,
}

impl ServerBody {
    pub(super) fn of(request: &Request, context: &Context, metrics: &Metrics) -> ServerBody {
        let ended = metrics.streams_ended.iter();
        let rejected = metrics.refusals.iter().filter(|(_, count)| *count > 0);
        ServerBody {
            ready: readiness::problem(request, context, metrics).is_none(),
            connections_refused: metrics.connections_refused,
            sends_by: match metrics.batch_senders {
                0 => "send",
                _ => "io_uring",
            },
            loop_seconds: metrics.turns.sum().as_secs_f64(),
            delivery_latency: LatencyBody::from(&metrics.latency),
            streams_opened: metrics.streams_opened,
            streams_ended: ended
                .map(|(reason, count)| (reason.as_str(), *count))
                .collect(),
            rejections: rejected.copied().collect(),
            process: ProcessBody::from(Process::read()),
        }
    }
}

impl From<&Histogram> for LatencyBody {
    fn from(times: &Histogram) -> LatencyBody {
        let filled = times.classes().filter(|(_, count)| *count > 0);
        LatencyBody {
            count: times.count(),
            buckets: filled
                .map(|(bound, count)| BucketBody {
                    seconds_max: bound.map(|bound| bound.as_secs_f64()),
                    count,
                })
                .collect(),
        }
    }
}

impl From<Process> for ProcessBody {
    fn from(process: Process) -> ProcessBody {
        ProcessBody {
            memory_bytes: process.resident_bytes,
            cpu_seconds: process.cpu_seconds,
            threads: process.threads,
            descriptors: process.descriptors,
            descriptors_max: process.descriptors_max.filter(|max| max.is_finite()),
        }
    }
}
