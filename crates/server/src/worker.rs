//! The clerk: a thread for answers whose cost grows with the number of
//! channels or clients, so that asking for them delays nobody's events.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use super::errors::Problem;
use super::manage::Look;
use pushwheel::{Request, Responder, Response};

/// How many questions may wait. One more is answered `503`.
const QUESTIONS_MAX: usize = 64;

/// Hands questions to the thread. It ends when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Clerk {
    questions: SyncSender<Question>,
}

impl fmt::Debug for Clerk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clerk").finish_non_exhaustive()
    }
}

struct Question {
    request: Request,
    look: Look,
    responder: Responder,
}

impl Question {
    fn answer(self) {
        let Question {
            request,
            look,
            responder,
        } = self;
        responder.respond(look(&request));
    }
}

impl Clerk {
    pub(super) fn hire() -> Clerk {
        let (questions, inbox) = sync_channel::<Question>(QUESTIONS_MAX);
        let work = move || {
            for question in inbox {
                // A panic drops the responder, which answers 500.
                if catch_unwind(AssertUnwindSafe(|| question.answer())).is_err() {
                    log::error!("an answer about the channels panicked");
                }
            }
        };
        let clerk = thread::Builder::new().name("pushwheel-clerk".into());
        if let Err(error) = clerk.spawn(work) {
            log::warn!("no thread for slow answers, the engine's own gives them: {error}");
        }
        Clerk { questions }
    }

    pub(super) fn answer(&self, request: &Request, look: Look) -> Response {
        let questions = self.questions.clone();
        let request = request.clone();
        Response::deferred(move |responder| {
            let question = Question {
                request,
                look,
                responder,
            };
            match questions.try_send(question) {
                Ok(()) => {}
                Err(TrySendError::Full(question)) => question.responder.respond(Problem::busy()),
                Err(TrySendError::Disconnected(question)) => question.answer(),
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
    fn one_question_too_many_is_503() {
        let (questions, inbox) = sync_channel(1);
        let clerk = Clerk { questions };
        let builder = Engine::builder();
        let builder = builder.get("/look", move |request| {
            clerk.answer(request, |_| Ok(Response::text("looked")))
        });
        let engine = builder.bind("127.0.0.1:0").unwrap();
        let running = engine.spawn().unwrap();
        let ask = || {
            let mut socket = TcpStream::connect(running.local_addr()).unwrap();
            let request = b"GET /look HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
            socket.write_all(request).unwrap();
            socket
        };
        let read = |mut socket: TcpStream| {
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            answer
        };
        let patience = Duration::from_secs(30);
        // Of two that come at once one has a place, whichever it is.
        let (first, second) = (ask(), ask());
        let busy = read_either(&first, &second);
        let question = inbox.recv_timeout(patience).unwrap();
        question.answer();
        let (busy, answered) = match busy {
            true => (first, second),
            false => (second, first),
        };
        let busy = read(busy);
        assert!(
            busy.starts_with("HTTP/1.1 503") && busy.contains("\"busy\""),
            "{busy}"
        );
        assert!(read(answered).ends_with("looked"));
        running.shutdown(Duration::ZERO).unwrap();
    }

    /// Waits until one of the two is answered; says whether it is the first.
    fn read_either(first: &TcpStream, second: &TcpStream) -> bool {
        let has_come = |socket: &TcpStream| {
            socket.set_nonblocking(true).unwrap();
            let has_come = socket.peek(&mut [0]).is_ok();
            socket.set_nonblocking(false).unwrap();
            has_come
        };
        loop {
            match (has_come(first), has_come(second)) {
                (true, _) => return true,
                (_, true) => return false,
                _ => thread::yield_now(),
            }
        }
    }
}
