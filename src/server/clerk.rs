//! The clerk: a thread for answers whose cost grows with the number of
//! channels or clients, so that asking for them delays nobody's events.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use super::errors::Problem;
use super::manage::Look;
use crate::{Request, Responder, Response};

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
