//! A thread for queries and cleanups whose cost grows with the number of channels or
//! clients, so that they delay no event.
//!
//! Publishing and closing a channel are not among them: they run on the engine's thread, in
//! locked sections of bounded size. `POST /channels` visits every channel there.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use super::errors::Problem;
use pushwheel::{Request, Responder, Response};

/// Maximum requests that wait for the worker. The next one is answered `503`.
const JOBS_MAX: usize = 64;

/// A handler that runs on the worker.
pub(super) type Handler = Arc<dyn Fn(&Request) -> Result<Response, Problem> + Send + Sync>;

/// Sends requests to the thread. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Worker {
    jobs: SyncSender<Job>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

struct Job {
    request: Request,
    handler: Handler,
    responder: Responder,
}

impl Job {
    fn run(self) {
        self.responder.respond((self.handler)(&self.request));
    }
}

impl Worker {
    pub(super) fn start() -> Worker {
        let (jobs, queue) = sync_channel::<Job>(JOBS_MAX);
        let work = move || {
            for job in queue {
                // A panic drops the responder, which answers 500.
                if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
                    log::error!("a request on the worker panicked");
                }
            }
        };
        let thread = thread::Builder::new().name("pushwheel-worker".into());
        if let Err(error) = thread.spawn(work) {
            log::warn!(
                "cannot start a thread for slow requests ({error}). They run on the engine's \
                 thread and may delay events"
            );
        }
        Worker { jobs }
    }

    /// Answers a request on the worker; on this thread if there is no worker.
    pub(super) fn answer(&self, request: &Request, handler: Handler) -> Response {
        let jobs = self.jobs.clone();
        let request = request.clone();
        Response::deferred(move |responder| {
            let job = Job {
                request,
                handler,
                responder,
            };
            match jobs.try_send(job) {
                Ok(()) => {}
                Err(TrySendError::Full(job)) => job.responder.respond(Problem::busy()),
                Err(TrySendError::Disconnected(job)) => job.run(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pushwheel::Engine;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    #[test]
    fn one_request_too_many_is_503() {
        let (jobs, queue) = sync_channel(1);
        let worker = Worker { jobs };
        let builder = Engine::builder();
        let builder = builder.get("/slow", move |request| {
            worker.answer(request, Arc::new(|_: &Request| Ok(Response::text("done"))))
        });
        let engine = builder.bind("127.0.0.1:0").unwrap();
        let running = engine.spawn().unwrap();
        let ask = || {
            let mut socket = TcpStream::connect(running.local_addr()).unwrap();
            let request = b"GET /slow HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
            socket.write_all(request).unwrap();
            socket
        };
        let read = |mut socket: TcpStream| {
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            answer
        };
        let deadline = Duration::from_secs(30);
        // Of two requests at once, one has a place. Which one is open.
        let (first, second) = (ask(), ask());
        let busy = is_first_answered(&first, &second);
        queue.recv_timeout(deadline).unwrap().run();
        let (busy, answered) = match busy {
            true => (first, second),
            false => (second, first),
        };
        let busy = read(busy);
        assert!(
            busy.starts_with("HTTP/1.1 503") && busy.contains("\"busy\""),
            "{busy}"
        );
        assert!(read(answered).ends_with("done"));
        running.shutdown(Duration::ZERO).unwrap();
    }

    /// Waits until one of the two is answered, and returns whether it is the first.
    fn is_first_answered(first: &TcpStream, second: &TcpStream) -> bool {
        let has_answer = |socket: &TcpStream| {
            socket.set_nonblocking(true).unwrap();
            let has_answer = socket.peek(&mut [0]).is_ok();
            socket.set_nonblocking(false).unwrap();
            has_answer
        };
        loop {
            match (has_answer(first), has_answer(second)) {
                (true, _) => return true,
                (_, true) => return false,
                _ => thread::yield_now(),
            }
        }
    }
}
