//! Whether the server can take more clients and more events, for `GET /ready` and the figures.

use super::context::Context;
use super::errors::Problem;
use pushwheel::{Metrics, Request};

/// Returns the reason why the server is not ready, if it is not.
pub(super) fn problem(request: &Request, context: &Context, metrics: &Metrics) -> Option<Problem> {
    if request.is_draining() {
        return Some(Problem::draining());
    }
    let journal = request.channels().journal_status();
    if journal.is_some_and(|journal| !journal.is_writable) {
        return Some(Problem::journal_failed());
    }
    let cluster = context.cluster.as_ref();
    if cluster.is_some_and(|cluster| cluster.is_cut_off(request.channels())) {
        return Some(Problem::cut_off());
    }
    metrics.is_full.then(Problem::not_ready)
}
