//! The text format of Prometheus.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use pushwheel::Histogram;

/// The text that is written.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

impl Page<'_> {
    fn begin(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// Writes a counter. The encoder appends `_total` to its name.
    pub(super) fn counter(&mut self, name: &'static str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn counters(
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

    pub(super) fn gauge(&mut self, name: &'static str, help: &str, value: f64) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    /// Writes a counter that is not a whole number.
    pub(super) fn fraction_counter(
        &mut self,
        name: &'static str,
        help: &str,
        value: f64,
    ) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// Writes a gauge of a whole number.
    pub(super) fn whole(&mut self, name: &'static str, help: &str, value: u64) -> fmt::Result {
        self.gauge(name, help, exact(value))
    }

    pub(super) fn labelled_gauge(
        &mut self,
        name: &'static str,
        help: &str,
        labels: [(&'static str, &'static str); 1],
        value: i64,
    ) -> fmt::Result {
        let mut metric = self.begin(name, help, MetricType::Gauge)?;
        metric.encode_family(&labels)?.encode_gauge(&value)
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        times: &Histogram,
    ) -> fmt::Result {
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
pub(super) fn exact(number: u64) -> f64 {
    number as f64
}
