//! Sends an event to many clients of [pushwheel] in one system call, by
//! `io_uring` of Linux.
//!
//! ```no_run
//! # #[cfg(target_os = "linux")] {
//! use pushwheel::Engine;
//! use pushwheel_uring::UringSender;
//!
//! let engine = Engine::builder()
//!     .batch_senders(|| Ok(Box::new(UringSender::new()?)))
//!     .bind("127.0.0.1:0")?;
//! # let _ = engine;
//! # }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The engine's loop does not change. It hands over a slice of sockets and the same bytes,
//! and one call submits a `send` for each. All have `MSG_DONTWAIT`, so each completes in that
//! call, with the bytes that the socket took, or because there is no room.
//!
//! Needs Linux 5.18. Where the kernel or a filter of system calls does not allow it,
//! [`UringSender::new`] fails, and the engine sends to each client by itself.
#![cfg(target_os = "linux")]

mod kernel;
mod sender;

use std::io;
use std::os::fd::RawFd;

use pushwheel::{BatchSender, SendOutcome};

use kernel::Kernel;
use sender::Sender;

/// Sends the same bytes to several sockets in one system call.
#[derive(Debug)]
pub struct UringSender(Sender<Kernel>);

impl UringSender {
    /// Makes a ring.
    ///
    /// # Errors
    /// When the kernel has no `io_uring`, an older one than is needed, or does not allow it.
    pub fn new() -> io::Result<UringSender> {
        Ok(UringSender(Sender::new(Kernel::new()?)))
    }
}

impl BatchSender for UringSender {
    fn send_to_all(
        &mut self,
        sockets: &[RawFd],
        bytes: &[u8],
        ends_segment: bool,
        outcomes: &mut [SendOutcome],
    ) -> io::Result<()> {
        self.0.send_to_all(sockets, bytes, ends_segment, outcomes)
    }
}
