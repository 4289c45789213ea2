//! Requests whose body is read line by line, while it arrives.

use std::fmt;

/// Reads the lines of a request's body as they arrive; see
/// [`Response::lines`](crate::Response::lines).
pub trait ReadLines: Send {
    /// Receives the next line, without its end, and its number. Numbers begin at 1 and
    /// count empty lines, which are left out. It is called on the engine's thread and must
    /// return at once. At most 256 lines wait for their replies at a time.
    fn line(&mut self, number: u64, line: &[u8], reply: LineReply);

    /// Returns the last line of the response, when the body is complete and each line has
    /// its reply.
    fn end(&mut self) -> Option<String> {
        None
    }
}

type PassOn = Box<dyn FnOnce(Option<String>, bool) + Send + Sync>;

/// Replies to one line of a request, from any thread. If it is dropped, the line has no
/// reply of its own.
#[must_use = "the reply to a line is a part of the response"]
pub struct LineReply {
    /// Called once. `None` after that.
    send: Option<PassOn>,
}

impl fmt::Debug for LineReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReply").finish_non_exhaustive()
    }
}

impl LineReply {
    /// `send` receives the reply, and whether it is the last one.
    pub(crate) fn new(
        send: impl FnOnce(Option<String>, bool) + Send + Sync + 'static,
    ) -> LineReply {
        LineReply {
            send: Some(Box::new(send)),
        }
    }

    /// Replies with a line of the response, without its end. If the client does not read,
    /// replies may be left out, but not the last one.
    pub fn send(mut self, line: impl Into<String>) {
        self.pass_on(Some(line.into()), false);
    }

    /// Replies with the last line of the response, behind the replies to the lines before.
    /// No further line is passed on, and the connection is closed. Lines that were passed on
    /// before are not taken back.
    pub fn end(mut self, line: impl Into<String>) {
        self.pass_on(Some(line.into()), true);
    }

    fn pass_on(&mut self, line: Option<String>, is_last: bool) {
        if let Some(send) = self.send.take() {
            send(line, is_last);
        }
    }
}

impl Drop for LineReply {
    fn drop(&mut self) {
        self.pass_on(None, false);
    }
}
