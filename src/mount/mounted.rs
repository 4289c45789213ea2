//! The response to a mounted request: its head as values, its body as pieces.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::mounted_request::MountError;
use super::pipe::{Chunk, Reader};
use crate::hub::engine_thread::EngineThread;

/// Headers of a response that describe a connection, or that the program's server writes
/// itself.
const NOT_PASSED_ON: [&str; 4] = ["connection", "date", "keep-alive", "transfer-encoding"];

/// Maximum header lines of a response.
const HEADERS_MAX: usize = 256;

/// A response: to be sent on by the program's server.
#[derive(Debug)]
#[non_exhaustive]
pub struct Mounted<C = Arc<[u8]>> {
    /// The status.
    pub status: u16,
    /// The headers, in order. None of them describes the connection.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: MountedBody<C>,
}

/// The body of a response, in pieces. Dropping it disconnects the client.
pub struct MountedBody<C = Arc<[u8]>>(Reader<C>);

impl<C> fmt::Debug for MountedBody<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountedBody").finish_non_exhaustive()
    }
}

impl<C: Chunk> MountedBody<C> {
    /// Returns the next piece of the body, or `None` at its end.
    pub fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<C>> {
        self.0.poll_read(context)
    }

    /// Waits for the next piece of the body. `None` at its end.
    ///
    /// # Panics
    /// In a handler or a callback, whose thread would wait for itself.
    pub fn next_bytes(&mut self) -> Option<C> {
        block_on(|context| self.poll_bytes(context))
    }

    /// Returns whether the body has ended and all of it was returned.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.0.is_read()
    }
}

/// A response that is being made: a future.
#[must_use = "it is a future: await it, or wait for it"]
pub struct Answering<C = Arc<[u8]>>(State<C>);

enum State<C> {
    Reading {
        reader: Reader<C>,
        /// The bytes of the head so far.
        head: Vec<u8>,
    },
    Failed(MountError),
    Over,
}

impl<C> fmt::Debug for Answering<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").finish_non_exhaustive()
    }
}

impl<C: Chunk> Answering<C> {
    pub(super) fn new(reader: Reader<C>) -> Answering<C> {
        Answering(State::Reading {
            reader,
            head: Vec::new(),
        })
    }

    pub(super) fn failed(error: MountError) -> Answering<C> {
        Answering(State::Failed(error))
    }

    /// Waits for the response.
    ///
    /// # Errors
    /// When the mount was shut down, or the request is invalid.
    ///
    /// # Panics
    /// In a handler or a callback, whose thread would wait for itself.
    pub fn wait(self) -> Result<Mounted<C>, MountError> {
        let mut answering = pin!(self);
        block_on(|context| answering.as_mut().poll(context))
    }
}

impl<C> Unpin for Answering<C> {}

impl<C: Chunk> Future for Answering<C> {
    type Output = Result<Mounted<C>, MountError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let (reader, mut head) = match std::mem::replace(&mut self.0, State::Over) {
                State::Reading { reader, head } => (reader, head),
                State::Failed(error) => return Poll::Ready(Err(error)),
                State::Over => panic!("a response is returned once"),
            };
            match reader.poll_read(context) {
                Poll::Pending => {
                    self.0 = State::Reading { reader, head };
                    return Poll::Pending;
                }
                Poll::Ready(None) => return Poll::Ready(Err(MountError::Ended)),
                Poll::Ready(Some(piece)) => head.extend_from_slice(piece.as_ref()),
            }
            let Some((status, headers, length)) = parse(&head) else {
                self.0 = State::Reading { reader, head };
                continue;
            };
            let rest = head.split_off(length);
            if !rest.is_empty() {
                reader.put_back(rest.into());
            }
            return Poll::Ready(Ok(Mounted {
                status,
                headers,
                body: MountedBody(reader),
            }));
        }
    }
}

/// The status, the headers and the length of a head.
type Head = (u16, Vec<(String, String)>, usize);

/// Returns the head at the beginning of a response of the reactor's, if it is complete.
fn parse(bytes: &[u8]) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).expect("the engine's heads are valid");
    let httparse::Status::Complete(length) = parsed else {
        return None;
    };
    let is_passed_on = |header: &&mut httparse::Header<'_>| {
        let is_it = |name: &str| name.eq_ignore_ascii_case(header.name);
        !NOT_PASSED_ON.into_iter().any(is_it)
    };
    let headers = response
        .headers
        .iter_mut()
        .filter(is_passed_on)
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_owned(), value)
        });
    Some((response.code.unwrap_or(500), headers.collect(), length))
}

/// Polls until there is a result, and sleeps in between.
pub(super) fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    assert!(
        !EngineThread::is_current(),
        "an engine's own thread cannot wait for a stream. Read it on another thread"
    );
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = poll(&mut context) {
            return value;
        }
        thread::park();
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
