//! [`Connection`]: commands to a server, and their replies, each by a deadline.
//!
//! The invariant to remember: *a connection that failed once is never used again*. A reply
//! that comes late would be taken for that of the next command.

use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

use redis::{Cmd, ServerError, Value};

use crate::replies::{Replies, ReplyError};
use crate::stream::Stream;

/// The most bytes of a reply that is not one of blocks.
pub(crate) const REPLY_BYTES_MAX: usize = 1 << 20;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Connection {
    replies: Replies<Stream>,
    /// The commands that are being written.
    output: Vec<u8>,
    has_failed: bool,
}

impl Connection {
    pub(crate) fn new(stream: Stream) -> Connection {
        Connection {
            replies: Replies::new(stream),
            output: Vec::new(),
            has_failed: false,
        }
    }

    /// Sends a command and returns its reply, of at most `bytes_max`.
    ///
    /// # Errors
    /// When there is no reply in time, or when it is an error.
    pub(crate) fn call(
        &mut self,
        command: &Cmd,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Value, Fault> {
        self.send(&[command], deadline)?;
        self.receive(bytes_max)?
    }

    /// Sends several commands together, and returns the reply of each.
    ///
    /// # Errors
    /// When a reply does not come in time.
    pub(crate) fn call_all(
        &mut self,
        commands: &[&Cmd],
        deadline: Instant,
    ) -> Result<Vec<Result<Value, Fault>>, Fault> {
        self.send(commands, deadline)?;
        let replies = commands.iter().map(|_| self.receive(REPLY_BYTES_MAX));
        replies.collect()
    }

    fn send(&mut self, commands: &[&Cmd], deadline: Instant) -> Result<(), Fault> {
        if self.has_failed {
            let closed =
                io::Error::new(io::ErrorKind::NotConnected, "the connection failed before");
            return Err(Fault::Gone(ReplyError::Io(closed)));
        }
        self.output.clear();
        for command in commands {
            command.write_packed_command(&mut self.output);
        }
        let stream = self.replies.get_mut();
        stream.set_deadline(deadline);
        let written = stream.write_all(&self.output).and_then(|()| stream.flush());
        self.output.shrink_to(OUTPUT_BYTES_KEPT);
        written.map_err(|error| {
            self.has_failed = true;
            Fault::Gone(ReplyError::Io(error))
        })
    }

    /// The inner result is what the server says. With the outer one the connection is over.
    fn receive(&mut self, bytes_max: usize) -> Result<Result<Value, Fault>, Fault> {
        match self.replies.next(bytes_max) {
            Ok(Value::ServerError(error)) => Ok(Err(Fault::Server(error))),
            Ok(value) => Ok(Ok(value)),
            Err(error) => {
                self.has_failed = true;
                Err(Fault::Gone(error))
            }
        }
    }
}

/// What the buffer of commands keeps after a large one.
const OUTPUT_BYTES_KEPT: usize = 512 << 10;

/// Why a command has no result.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection is over. The command may have been carried out.
    Gone(ReplyError),
    /// The server did not carry it out.
    Server(ServerError),
    /// The reply is not one of this command.
    Unexpected(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Gone(error) => error.fmt(f),
            Fault::Server(error) => {
                f.write_str(error.code())?;
                error
                    .details()
                    .map_or(Ok(()), |details| write!(f, " {details}"))
            }
            Fault::Unexpected(what) => write!(f, "an unexpected reply ({what})"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Gone(ReplyError::Io(error))
    }
}

/// Returns the bytes of a string.
pub(crate) fn bytes(value: Value) -> Result<Vec<u8>, Fault> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Okay => Ok(b"OK".into()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        _ => Err(Fault::Unexpected("not a string")),
    }
}

/// Returns a string.
pub(crate) fn text(value: Value) -> Result<String, Fault> {
    let text = String::from_utf8(bytes(value)?);
    text.map_err(|_| Fault::Unexpected("not text"))
}

/// Returns a number that is not negative, also one that is text.
pub(crate) fn number(value: Value) -> Result<u64, Fault> {
    const WHY: Fault = Fault::Unexpected("not a number");
    match value {
        Value::Int(number) => u64::try_from(number).map_err(|_| WHY),
        other => text(other)?.parse().map_err(|_| WHY),
    }
}

/// Returns the items of an array.
pub(crate) fn items(value: Value) -> Result<std::vec::IntoIter<Value>, Fault> {
    match value {
        Value::Array(values) => Ok(values.into_iter()),
        _ => Err(Fault::Unexpected("not an array")),
    }
}

/// Returns the next item.
pub(crate) fn next(items: &mut std::vec::IntoIter<Value>) -> Result<Value, Fault> {
    items
        .next()
        .ok_or(Fault::Unexpected("an array is too short"))
}
