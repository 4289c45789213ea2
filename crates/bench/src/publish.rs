//! `bench publish`: the rate of publishing without subscribers.

use std::time::Instant;

use super::Result;
use super::figure::{Case, EVENTS, PUBLISH_CPU, REQUESTS, counted};
use super::histogram::Histogram;
use super::load::Together;
use super::options::Publish;
use super::run::Run;

/// Publishes events, `batch` per request, on one connection, with several requests in
/// flight.
pub(crate) fn measure(run: &mut Run<'_>, options: &Publish, batch: usize) -> Result<()> {
    run.deliver_one()?;
    run.load.publisher.set_keyed(options.keyed && run.has_keys);
    let requests = options.events.div_ceil(batch);
    // The same number of bytes in flight, for each size of request.
    let depth = (options.depth / batch).max(DEPTH_MIN);
    run.say(format!(
        "{} of {}",
        counted(requests, "request"),
        counted(batch, "event")
    ));
    let before_ns = run.settled_cpu_ns()?;
    let begun = Instant::now();
    let mut asked = 0;
    loop {
        let room = depth.saturating_sub(run.load.publisher.unanswered());
        // Half of the requests at a time: a few large writes.
        if room >= depth / 2 {
            let more = room.min(requests - asked);
            for _ in 0..more {
                run.load.add(batch, options.bytes, Together::Ndjson);
            }
            asked += more;
            run.load.send()?;
        }
        if asked == requests {
            run.load.await_answers()?;
            break;
        }
        run.load.await_answers_but(depth - depth / 2)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let spent_ns = run.settled_cpu_ns_since(before_ns)?;
    let events = (requests * batch) as f64;
    let case = Case {
        event_bytes: options.bytes,
        together: batch,
        ..Case::default()
    };
    let figures = vec![
        (REQUESTS, requests as f64 / seconds),
        (EVENTS, events / seconds),
        (PUBLISH_CPU, spent_ns as f64 / events / 1e3),
    ];
    run.add(case, figures, Histogram::default());
    Ok(())
}

const DEPTH_MIN: usize = 4;
