//! [`Replies`]: the replies of a server, each within a limit of its size.
//!
//! Nothing that a server sends is trusted: a reply that is too large, is not of the
//! protocol or ends too soon is an error, and memory grows only with bytes that have come.

#![cfg_attr(
    not(feature = "internals"),
    allow(unreachable_pub, reason = "for the fuzz target")
)]

use std::error::Error;
use std::fmt;
use std::io::{self, Read};

use redis::{Parser, Value};

/// The bytes that are read at a time, at most.
const READ_BYTES: usize = 64 << 10;

/// Reads replies. After an error no more may be read.
pub struct Replies<R> {
    reader: Counted<R>,
    parser: Parser,
}

impl<R: Read> Replies<R> {
    /// Returns the replies that come from a reader.
    pub fn new(reader: R) -> Replies<R> {
        Replies {
            reader: Counted {
                reader,
                buffer: vec![0; READ_BYTES].into(),
                filled: 0..0,
                left: 0,
                failure: None,
            },
            parser: Parser::new(),
        }
    }

    /// Returns the reader.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.reader.reader
    }

    /// Reads the next reply, of at most `bytes_max`. A reply that is an error of the server
    /// is returned as [`Value::ServerError`].
    ///
    /// # Errors
    /// When there is no whole reply.
    pub fn next(&mut self, bytes_max: usize) -> Result<Value, ReplyError> {
        self.reader.left = bytes_max;
        let parsed = self.parser.parse_value(&mut self.reader);
        match (parsed, self.reader.failure.take()) {
            (Ok(value), _) => Ok(value),
            (Err(_), Some(failure)) => Err(failure),
            (Err(_), None) => Err(ReplyError::Invalid),
        }
    }
}

impl<R> fmt::Debug for Replies<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").finish_non_exhaustive()
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub enum ReplyError {
    /// The connection failed, or its time is over.
    Io(io::Error),
    /// The server closed the connection.
    Ended,
    /// The reply is larger than it may be.
    TooLarge,
    /// It is not a reply of Redis.
    Invalid,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                f.write_str("no reply in time")
            }
            ReplyError::Io(error) => error.fmt(f),
            ReplyError::Ended => f.write_str("the server closed the connection"),
            ReplyError::TooLarge => f.write_str("the reply is too large"),
            ReplyError::Invalid => f.write_str("the reply is not that of a Redis server"),
        }
    }
}

impl Error for ReplyError {}

/// Counts what is read for a reply, and reads more than the parser asks for.
struct Counted<R> {
    reader: R,
    buffer: Box<[u8]>,
    /// The part of the buffer that the parser does not have yet.
    filled: std::ops::Range<usize>,
    /// How many bytes the reply may still have.
    left: usize,
    failure: Option<ReplyError>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.failure = Some(ReplyError::TooLarge);
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.filled.is_empty() {
            match self.read_more() {
                // An error, so that the parser does not ask again.
                Ok(0) => {
                    self.failure = Some(ReplyError::Ended);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(_) => {}
                Err(error) => {
                    let kind = error.kind();
                    self.failure = Some(ReplyError::Io(error));
                    return Err(kind.into());
                }
            }
        }
        let count = self.filled.len().min(into.len()).min(self.left);
        let from = &self.buffer[self.filled.start..][..count];
        into[..count].copy_from_slice(from);
        self.filled.start += count;
        self.left -= count;
        Ok(count)
    }
}

impl<R: Read> Counted<R> {
    fn read_more(&mut self) -> io::Result<usize> {
        loop {
            match self.reader.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    self.filled = 0..*read.as_ref().unwrap_or(&0);
                    return read;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    fn parsed(bytes: &[u8]) -> Result<Value, ReplyError> {
        Replies::new(bytes).next(MAX)
    }

    /// A reader that returns few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(into.len()).min(self.0.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn replies_follow_each_other_however_they_arrive() {
        let bytes = b"*2\r\n$2\r\nok\r\n:7\r\n+OK\r\n$-1\r\n*-1\r\n-OOM no memory\r\n";
        for step in 1..=bytes.len() {
            let mut replies = Replies::new(Slow(bytes, step));
            let array = Value::Array(vec![Value::BulkString(b"ok".into()), Value::Int(7)]);
            assert_eq!(replies.next(MAX).unwrap(), array);
            assert_eq!(replies.next(MAX).unwrap(), Value::Okay);
            assert_eq!(replies.next(MAX).unwrap(), Value::Nil);
            assert_eq!(replies.next(MAX).unwrap(), Value::Nil);
            let Value::ServerError(error) = replies.next(MAX).unwrap() else {
                panic!("this is an error");
            };
            assert_eq!((error.code(), error.details()), ("OOM", Some("no memory")));
            assert!(matches!(replies.next(MAX), Err(ReplyError::Ended)));
        }
    }

    #[test]
    fn a_reply_has_a_maximum_size() {
        let bytes = [b"$1000\r\n".as_slice(), &[b'x'; 1000], b"\r\n"].concat();
        let is_read = |max| Replies::new(&*bytes).next(max);
        assert!(is_read(bytes.len()).is_ok());
        assert!(matches!(
            is_read(bytes.len() - 1),
            Err(ReplyError::TooLarge)
        ));
        // The sizes that a server states are not believed.
        for text in [
            "$9223372036854775807\r\n",
            "*9223372036854775807\r\n",
            "%4611686018427387904\r\n",
        ] {
            let endless = text.as_bytes().chain(io::repeat(b':'));
            let error = Replies::new(endless).next(1 << 16).unwrap_err();
            assert!(
                matches!(error, ReplyError::TooLarge | ReplyError::Invalid),
                "{text}"
            );
        }
    }

    #[test]
    fn replies_that_are_cut_or_wrong_are_errors() {
        for cut in ["", "*2\r\n:1\r\n", "$3\r\nab", "+OK"] {
            assert!(
                matches!(parsed(cut.as_bytes()), Err(ReplyError::Ended)),
                "{cut}"
            );
        }
        for wrong in [
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "$x\r\n",
            ":\r\n",
            "$1\r\nabc\r\n",
        ] {
            let error = parsed(wrong.as_bytes());
            assert!(
                matches!(error, Err(ReplyError::Invalid)),
                "{wrong} {error:?}"
            );
        }
    }

    #[test]
    fn arrays_in_arrays_have_a_maximum_depth() {
        let deep = "*1\r\n".repeat(100_000);
        assert!(matches!(parsed(deep.as_bytes()), Err(ReplyError::Invalid)));
        let fine = "*1\r\n".repeat(90) + ":1\r\n";
        assert!(parsed(fine.as_bytes()).is_ok());
    }
}
