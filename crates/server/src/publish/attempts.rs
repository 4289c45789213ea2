//! A second attempt where another thread has just removed the channel of a publish: the
//! attempt creates the channel again.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::errors::Problem;
use pushwheel::{PublishError, Published};

/// What receives the outcome of an attempt.
pub(super) type Then = Box<dyn FnOnce(Result<Published, PublishError>) + Send>;

/// Publishes with `publish`, which opens the channels.
pub(super) fn attempt(
    publish: impl Fn() -> Result<Published, Problem>,
) -> Result<Published, Problem> {
    match publish() {
        Err(Problem::Publish(PublishError::Closed)) => publish(),
        published => published,
    }
}

/// Publishes with `publish`, which opens the channels, and passes the outcome to `respond` when
/// it is there. That a channel is closed is known before `publish` returns.
pub(super) fn attempt_then(
    publish: impl Fn(Then) -> Result<(), Problem>,
    respond: impl FnOnce(Result<Published, Problem>) + Send + 'static,
) {
    let waiting = Arc::new(Mutex::new(Some(respond)));
    for is_last in [false, true] {
        let is_closed = Arc::new(AtomicBool::new(false));
        let (waits, closed) = (waiting.clone(), is_closed.clone());
        let then = move |published| match published {
            Err(PublishError::Closed) if !is_last => closed.store(true, Relaxed),
            published => pass_on(&waits, published.map_err(Problem::from)),
        };
        if let Err(problem) = publish(Box::new(then)) {
            return pass_on(&waiting, Err(problem));
        }
        if !is_closed.load(Relaxed) {
            return;
        }
    }
}

fn pass_on<R: FnOnce(Result<Published, Problem>)>(
    waiting: &Mutex<Option<R>>,
    outcome: Result<Published, Problem>,
) {
    let respond = waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(respond) = respond {
        respond(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc;

    use super::*;

    fn published() -> Published {
        let channels = pushwheel::ChannelManager::new();
        let channel = channels.get_or_create("a").unwrap();
        channel.broadcast(pushwheel::Event::message("x")).unwrap()
    }

    #[test]
    fn there_are_two_attempts_at_most_and_one_outcome() {
        let closed = || Problem::from(PublishError::Closed);
        let outcomes = [
            (vec![Ok(published())], Ok(published()), 1),
            (
                vec![Err(PublishError::Closed), Ok(published())],
                Ok(published()),
                2,
            ),
            (vec![Err(PublishError::Closed); 3], Err(closed()), 2),
            (
                vec![Err(PublishError::Finished)],
                Err(PublishError::Finished.into()),
                1,
            ),
        ];
        let shown = |outcome: Result<Published, Problem>| outcome.map(|done| done.events);
        for (results, wanted, attempts) in outcomes {
            let made = Cell::new(0);
            let next = || results[made.replace(made.get() + 1)].clone();
            let outcome = attempt(|| next().map_err(Problem::from));
            assert_eq!(
                (shown(outcome), made.get()),
                (shown(wanted.clone()), attempts)
            );

            let (sender, receiver) = mpsc::channel();
            made.set(0);
            let publish = |then: Then| {
                then(next());
                Ok(())
            };
            attempt_then(publish, move |outcome| sender.send(outcome).unwrap());
            let outcomes: Vec<_> = receiver.iter().map(shown).collect();
            assert_eq!((outcomes, made.get()), (vec![shown(wanted)], attempts));
        }
        // A channel that cannot be opened is an outcome too.
        let (sender, receiver) = mpsc::channel();
        attempt_then(
            |_| Err(closed()),
            move |outcome| sender.send(outcome).unwrap(),
        );
        assert_eq!(
            receiver.iter().map(shown).collect::<Vec<_>>(),
            [Err(closed())]
        );
    }
}
