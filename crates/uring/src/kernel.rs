//! [`Kernel`]: a ring of the kernel's. The only file with `unsafe`.
#![allow(unsafe_code, reason = "the kernel reads what is queued here")]

use std::io;
use std::mem;
use std::os::fd::RawFd;

use io_uring::{IoUring, Probe, opcode, types};
use nix::libc::{MSG_DONTWAIT, MSG_EOR, MSG_NOSIGNAL};

use crate::sender::{Completion, Ring};

/// Sends in one submission.
const CAPACITY: u32 = 128;

/// Bytes of a send. An event that is larger is sent to each client by itself.
const BYTES_MAX: usize = 64 << 10;

/// A ring, and the bytes that its sends read.
pub(crate) struct Kernel {
    ring: IoUring,
    /// What the kernel reads while a send is under way. It is allocated once and not moved,
    /// and it changes only while none is.
    bytes: Box<[u8]>,
    length: u32,
    /// Sends that are queued or under way.
    pending: usize,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("Kernel");
        f.field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Kernel {
    pub(crate) fn new() -> io::Result<Kernel> {
        let mut builder = IoUring::builder();
        // One send that fails does not keep the kernel from taking the next.
        let ring = builder.setup_submit_all().build(CAPACITY)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Send::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Kernel {
            ring,
            bytes: vec![0; BYTES_MAX].into(),
            length: 0,
            pending: 0,
        })
    }
}

impl Ring for Kernel {
    fn capacity(&self) -> usize {
        CAPACITY as usize
    }

    fn bytes_max(&self) -> usize {
        BYTES_MAX
    }

    fn set_bytes(&mut self, bytes: &[u8]) {
        assert_eq!(self.pending, 0, "the kernel reads the bytes before");
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.length = u32::try_from(bytes.len()).expect("there is room for fewer bytes");
    }

    fn push(&mut self, tag: u64, socket: RawFd, ends_segment: bool) {
        let end = if ends_segment { MSG_EOR } else { 0 };
        let send = opcode::Send::new(types::Fd(socket), self.bytes.as_ptr(), self.length)
            .flags(MSG_DONTWAIT | MSG_NOSIGNAL | end)
            .build()
            .user_data(tag);
        // SAFETY: the kernel reads `length` bytes of `bytes` until the send completes. Both are
        // of this ring, which changes them only while no send is pending, and frees them only
        // then. The descriptor may be anything: the kernel checks it.
        let pushed = unsafe { self.ring.submission().push(&send) };
        pushed.expect("no more sends than there is room for");
        self.pending += 1;
    }

    fn submit(&mut self, wait_for: usize) -> io::Result<usize> {
        self.ring.submit_and_wait(wait_for)
    }

    fn complete(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        self.pending = self.pending.saturating_sub(1);
        Some(Completion {
            tag: entry.user_data(),
            result: entry.result(),
        })
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.pending > 0 {
            // The kernel may still read them.
            mem::forget(mem::take(&mut self.bytes));
        }
    }
}
