//! [`BatchSender`]: sends the same bytes to several sockets in one system call.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Once;

/// Sends the same bytes to several sockets in one system call, where the system can; see
/// [`EngineBuilder::batch_senders`](crate::EngineBuilder::batch_senders).
pub trait BatchSender: fmt::Debug + Send {
    /// Sends `bytes` to each socket as `send` with `MSG_DONTWAIT` and `MSG_NOSIGNAL` would,
    /// and with `MSG_EOR` if `ends_segment`. Sets the outcome of each, which is
    /// [`Unsent`](SendOutcome::Unsent) before. When it returns, no more is sent, and nothing
    /// reads `bytes`.
    ///
    /// # Errors
    /// When this sender is of no further use. The outcomes are right nevertheless.
    fn send_to_all(
        &mut self,
        sockets: &[RawFd],
        bytes: &[u8],
        ends_segment: bool,
        outcomes: &mut [SendOutcome],
    ) -> io::Result<()>;
}

/// Makes a sender for each thread of an engine.
pub(crate) struct BatchSenders {
    make: Box<dyn Fn() -> io::Result<Box<dyn BatchSender>> + Send + Sync>,
    /// The log says once that there is none.
    refusal: Once,
}

impl BatchSenders {
    pub(crate) fn new(
        make: impl Fn() -> io::Result<Box<dyn BatchSender>> + Send + Sync + 'static,
    ) -> BatchSenders {
        BatchSenders {
            make: Box::new(make),
            refusal: Once::new(),
        }
    }

    /// Makes the sender of this thread.
    pub(super) fn make(&self) -> Option<Batching> {
        let sender = (self.make)().inspect_err(|error| {
            self.refusal.call_once(|| {
                log::warn!(
                    "cannot send to many clients in one system call ({error}). Each is written \
                     to by itself"
                );
            });
        });
        sender.ok().map(Batching::new)
    }
}

/// What has become of the bytes for one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// None of them was sent, and none will be: they can be sent again.
    Unsent,
    /// The socket took so many bytes, from the first on.
    Sent(usize),
    /// The socket has no room.
    WouldBlock,
    /// The connection has failed, or it is unknown how much was sent.
    Failed,
}

/// A sender, and the lists that it is passed, to use them again.
#[derive(Debug)]
pub(super) struct Batching {
    pub(super) sender: Box<dyn BatchSender>,
    pub(super) sockets: Vec<RawFd>,
    pub(super) outcomes: Vec<SendOutcome>,
}

impl Batching {
    fn new(sender: Box<dyn BatchSender>) -> Batching {
        Batching {
            sender,
            sockets: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// Sends to the sockets of the list. The outcomes are in theirs.
    pub(super) fn send(&mut self, bytes: &[u8], ends_segment: bool) -> io::Result<()> {
        self.outcomes.clear();
        self.outcomes
            .resize(self.sockets.len(), SendOutcome::Unsent);
        self.sender
            .send_to_all(&self.sockets, bytes, ends_segment, &mut self.outcomes)
    }
}
