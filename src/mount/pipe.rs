//! A pipe: the socket of a mounted stream. A reactor has one end, the program's server
//! the other.
//!
//! It holds what a small socket buffer would: one piece of any size, or up to
//! [`PIECES_MAX`] with [`BYTES_MAX`] together. A shared piece is held by reference. So a
//! client whose server takes nothing costs no queue: it is behind, and has a cursor in
//! the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::inbox::Inbox;
use crate::exchange::Exchange;
use crate::reactor::net::Readiness;

/// Bytes of a stream, shared by all that hold them: `Arc<[u8]>`, or `Bytes` of the crate
/// `bytes`. A clone copies nothing.
pub trait Chunk: AsRef<[u8]> + From<Vec<u8>> + Clone + Send + Sync + 'static {}

impl<C: AsRef<[u8]> + From<Vec<u8>> + Clone + Send + Sync + 'static> Chunk for C {}

/// Maximum pieces that wait in a pipe.
const PIECES_MAX: usize = 4;
/// Maximum bytes of these, if there are several.
const BYTES_MAX: usize = 16 << 10;

/// See the [module](self).
pub(super) struct Pipe<C> {
    state: Mutex<State<C>>,
    inbox: Arc<Inbox<Arrival<C>>>,
}

/// A request, and the reactor's end of the pipe for its response.
pub(super) type Arrival<C> = (Writer<C>, Exchange);

/// The reactor's end of a pipe. The stream ends when this is dropped.
pub(super) struct Writer<C>(Arc<Pipe<C>>);

/// The reader's end of a pipe.
pub(super) struct Reader<C>(Arc<Pipe<C>>);

struct State<C> {
    /// The piece that is read next. Apart from the others, so that the usual pipe
    /// allocates nothing.
    first: Option<C>,
    #[allow(clippy::box_collection, reason = "the size of an idle pipe counts")]
    rest: Option<Box<VecDeque<C>>>,
    /// The reader that waits.
    waker: Option<Waker>,
    /// The token of the connection, once it is registered.
    token: Option<u64>,
    /// Whether a piece waits to be read before the next one is accepted: it would be
    /// stale by then.
    is_limited: bool,
    /// Whether the writer waits for room.
    wants_room: bool,
    /// Whether nothing more is written.
    has_ended: bool,
    /// Whether nothing more is read.
    is_dropped: bool,
}

/// Returns the ends of a new pipe, whose news go to `inbox`.
pub(super) fn pipe<C: Chunk>(inbox: &Arc<Inbox<Arrival<C>>>) -> (Writer<C>, Reader<C>) {
    let state = State {
        first: None,
        rest: None,
        waker: None,
        token: None,
        is_limited: false,
        wants_room: false,
        has_ended: false,
        is_dropped: false,
    };
    let pipe = Arc::new(Pipe {
        state: Mutex::new(state),
        inbox: inbox.clone(),
    });
    (Writer(pipe.clone()), Reader(pipe))
}

impl<C> Pipe<C> {
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a piece, and wakes the reader.
fn push<C: Chunk>(mut state: MutexGuard<'_, State<C>>, piece: C) {
    match state.first {
        None => state.first = Some(piece),
        Some(_) => state.rest.get_or_insert_default().push_back(piece),
    }
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<C: Chunk> Writer<C> {
    /// Writes a piece of `len` bytes, which `make` returns. Returns whether it was
    /// written. If not, or if `has_more` follows, room is reported when the pipe is
    /// empty.
    ///
    /// # Errors
    /// When the reader has gone.
    pub(super) fn write(
        &self,
        len: usize,
        has_more: bool,
        make: impl FnOnce() -> C,
    ) -> Result<bool, Gone> {
        let mut state = self.0.lock();
        if state.is_dropped {
            return Err(Gone);
        }
        if !state.has_room(len) {
            state.wants_room = true;
            return Ok(false);
        }
        state.wants_room |= has_more;
        push(state, make());
        Ok(true)
    }

    /// Writes a piece for which there may be no room: one of the last few of a stream.
    ///
    /// # Errors
    /// When the reader has gone.
    pub(super) fn write_last(&self, piece: C) -> Result<(), Gone> {
        let state = self.0.lock();
        if state.is_dropped {
            return Err(Gone);
        }
        push(state, piece);
        Ok(())
    }
}

impl<C> Writer<C> {
    /// Sets the token under which the pipe is reported.
    pub(super) fn register(&self, token: u64) {
        let mut state = self.0.lock();
        state.token = Some(token);
        let is_dropped = state.is_dropped;
        drop(state);
        if is_dropped {
            self.0.inbox.report(readable(token));
        }
    }

    /// Holds one piece at a time from now on.
    pub(super) fn limit(&self) {
        self.0.lock().is_limited = true;
    }

    /// Returns whether the reader has gone.
    pub(super) fn is_dropped(&self) -> bool {
        self.0.lock().is_dropped
    }

    /// Ends the stream behind what was written.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<C> Drop for Writer<C> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<C: Chunk> Reader<C> {
    /// Returns the next piece; `None` at the end of the stream.
    pub(super) fn poll_read(&self, context: &mut Context<'_>) -> Poll<Option<C>> {
        let mut state = self.0.lock();
        let Some(piece) = state.first.take() else {
            if state.has_ended {
                return Poll::Ready(None);
            }
            match &mut state.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Poll::Pending;
        };
        state.first = state.rest.as_mut().and_then(|rest| rest.pop_front());
        let is_empty = state.first.is_none();
        if is_empty {
            // What a burst needed is given back.
            state.rest = None;
        }
        let has_room = is_empty && std::mem::take(&mut state.wants_room);
        let token = state.token.filter(|_| has_room);
        drop(state);
        if let Some(token) = token {
            self.0.inbox.report(Readiness {
                token,
                is_readable: false,
                is_writable: true,
            });
        }
        Poll::Ready(Some(piece))
    }
}

impl<C> Reader<C> {
    /// Puts a piece back, which is read next.
    pub(super) fn put_back(&self, piece: C) {
        let mut state = self.0.lock();
        if let Some(second) = state.first.replace(piece) {
            state.rest.get_or_insert_default().push_front(second);
        }
    }

    /// Returns whether the stream has ended and all of it was read.
    pub(super) fn is_read(&self) -> bool {
        let state = self.0.lock();
        state.has_ended && state.first.is_none()
    }
}

impl<C> Drop for Reader<C> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_dropped = true;
        let pieces = (state.first.take(), state.rest.take());
        let (waker, token) = (state.waker.take(), state.token);
        drop(state);
        drop((pieces, waker));
        if let Some(token) = token {
            self.0.inbox.report(readable(token));
        }
    }
}

/// The reader has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl<C: Chunk> State<C> {
    fn has_room(&self, len: usize) -> bool {
        let Some(first) = &self.first else {
            return true;
        };
        let rest = self.rest.iter().flat_map(|rest| rest.iter());
        let pieces = std::iter::once(first).chain(rest);
        let bytes = pieces.clone().map(|piece| piece.as_ref().len());
        !self.is_limited && pieces.count() < PIECES_MAX && bytes.sum::<usize>() + len <= BYTES_MAX
    }
}

/// The report that the reader has gone.
fn readable(token: u64) -> Readiness {
    Readiness {
        token,
        is_readable: true,
        is_writable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    type Bytes = Arc<[u8]>;
    type Ends = (Arc<Inbox<Arrival<Bytes>>>, Writer<Bytes>, Reader<Bytes>);

    fn ends() -> Ends {
        let inbox = Arc::new(Inbox::new());
        let (writer, reader) = pipe(&inbox);
        writer.register(7);
        (inbox, writer, reader)
    }

    fn write(writer: &Writer<Bytes>, bytes: &[u8]) -> Result<bool, Gone> {
        writer.write(bytes.len(), false, || bytes.into())
    }

    /// Returns the length of the piece that is read.
    fn read(reader: &Reader<Bytes>) -> Poll<Option<usize>> {
        let read = reader.poll_read(&mut Context::from_waker(Waker::noop()));
        read.map(|piece| piece.map(|piece| piece.len()))
    }

    /// Returns whether each report is that the reader has gone, and that there is room.
    fn reports(inbox: &Inbox<Arrival<Bytes>>) -> Vec<(bool, bool)> {
        let mut ready = Vec::new();
        inbox.wait(Some(Duration::ZERO), &mut ready, &mut VecDeque::new());
        assert!(ready.iter().all(|readiness| readiness.token == 7));
        let reports = ready.iter().map(|r| (r.is_readable, r.is_writable));
        reports.collect()
    }

    #[test]
    fn a_pipe_holds_a_few_small_pieces_or_one_of_any_size() {
        let (inbox, writer, reader) = ends();
        for _ in 0..PIECES_MAX {
            assert_eq!(write(&writer, b"x"), Ok(true));
        }
        assert_eq!(write(&writer, b"y"), Ok(false));
        for _ in 1..PIECES_MAX {
            assert_eq!(read(&reader), Poll::Ready(Some(1)));
            assert_eq!(reports(&inbox), [], "room is reported when it is empty");
        }
        assert_eq!(read(&reader), Poll::Ready(Some(1)));
        assert_eq!(reports(&inbox), [(false, true)]);
        assert_eq!(read(&reader), Poll::Pending);
        assert_eq!(write(&writer, &[0; 100_000]), Ok(true));
        assert_eq!(write(&writer, b"y"), Ok(false));
        assert_eq!(read(&reader), Poll::Ready(Some(100_000)));
        assert_eq!(write(&writer, &[0; BYTES_MAX]), Ok(true));
        assert_eq!(write(&writer, b"y"), Ok(false));
    }

    #[test]
    fn a_piece_that_is_put_back_is_read_next() {
        let (_inbox, writer, reader) = ends();
        for bytes in [&b"x"[..], b"yy"] {
            assert_eq!(write(&writer, bytes), Ok(true));
        }
        reader.put_back(b"put back"[..].into());
        let read = [8, 1, 2].map(|_| read(&reader));
        assert_eq!(read, [8, 1, 2].map(|len| Poll::Ready(Some(len))));
    }

    #[test]
    fn the_last_bytes_of_a_stream_need_no_room() {
        let (_inbox, writer, reader) = ends();
        writer.limit();
        assert_eq!(write(&writer, &[0; 100_000]), Ok(true));
        assert_eq!(write(&writer, b"y"), Ok(false));
        assert_eq!(writer.write_last(b"end"[..].into()), Ok(()));
        drop(writer);
        let read = [read(&reader), read(&reader), read(&reader)];
        let expected = [Some(100_000), Some(3), None];
        assert_eq!(read, expected.map(Poll::Ready));
    }

    #[test]
    fn room_is_reported_to_a_writer_that_has_more() {
        let (inbox, writer, reader) = ends();
        assert_eq!(writer.write(1, true, || b"x"[..].into()), Ok(true));
        assert_eq!(read(&reader), Poll::Ready(Some(1)));
        assert_eq!(reports(&inbox), [(false, true)]);
    }

    #[test]
    fn a_limited_pipe_holds_one_piece() {
        let (inbox, writer, reader) = ends();
        writer.limit();
        assert_eq!(write(&writer, b"x"), Ok(true));
        assert_eq!(write(&writer, b"y"), Ok(false));
        assert_eq!(read(&reader), Poll::Ready(Some(1)));
        assert_eq!(reports(&inbox), [(false, true)]);
        assert_eq!(write(&writer, b"y"), Ok(true));
    }

    #[test]
    fn what_was_written_is_read_before_the_end() {
        let (inbox, writer, reader) = ends();
        assert_eq!(write(&writer, b"x"), Ok(true));
        drop(writer);
        assert!(!reader.is_read());
        assert_eq!(read(&reader), Poll::Ready(Some(1)));
        assert_eq!((read(&reader), reader.is_read()), (Poll::Ready(None), true));
        assert_eq!(reports(&inbox), []);
    }

    #[test]
    fn a_reader_that_goes_is_reported_also_before_there_is_a_token() {
        let (inbox, writer, reader) = ends();
        assert_eq!(write(&writer, b"x"), Ok(true));
        drop(reader);
        assert_eq!(
            (write(&writer, b"y"), writer.is_dropped()),
            (Err(Gone), true)
        );
        assert_eq!(reports(&inbox), [(true, false)]);
        let (early, reader) = pipe(&inbox);
        drop(reader);
        assert_eq!(reports(&inbox), []);
        early.register(7);
        assert_eq!(reports(&inbox), [(true, false)]);
    }
}
