//! [`Sender`]: which sends are submitted, and what becomes of each.
//!
//! A call returns when each of its sends has completed. If a ring does not get there, it
//! fails for good: what it had taken counts as failed, because it may have been sent, and
//! what it had not taken counts as unsent. So nothing is sent twice.

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

use pushwheel::SendOutcome;

/// Submissions without any progress after which a ring has failed.
const STALLS_MAX: u32 = 100;

/// A queue of sends to the kernel, and one of their completions.
pub(crate) trait Ring {
    /// The most sends that it takes before they complete.
    fn capacity(&self) -> usize;

    /// The most bytes of a send.
    fn bytes_max(&self) -> usize;

    /// Sets what is sent from now on. Nothing may be under way.
    fn set_bytes(&mut self, bytes: &[u8]);

    /// Queues a send, behind those that are queued already.
    fn push(&mut self, tag: u64, socket: RawFd, ends_segment: bool);

    /// Has the kernel take what is queued, in order, and waits for so many completions.
    /// Returns the number of sends that it took.
    ///
    /// # Errors
    /// As `io_uring_enter`: it took none.
    fn submit(&mut self, wait_for: usize) -> io::Result<usize>;

    /// Returns the next completion.
    fn complete(&mut self) -> Option<Completion>;
}

/// A send that has completed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) tag: u64,
    /// The number of bytes, or the error's number, negative.
    pub(crate) result: i32,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Sender<R> {
    /// `None` when it has failed.
    ring: Option<R>,
}

impl<R: Ring> Sender<R> {
    pub(crate) fn new(ring: R) -> Sender<R> {
        Sender { ring: Some(ring) }
    }

    /// Sends to all sockets. The outcomes are unsent before.
    pub(crate) fn send_to_all(
        &mut self,
        sockets: &[RawFd],
        bytes: &[u8],
        ends_segment: bool,
        outcomes: &mut [SendOutcome],
    ) -> io::Result<()> {
        let Some(mut ring) = self.ring.take() else {
            return Err(io::Error::other("the ring has failed before"));
        };
        if bytes.is_empty() || bytes.len() > ring.bytes_max() {
            self.ring = Some(ring);
            return Ok(());
        }
        ring.set_bytes(bytes);
        let slices = sockets.chunks(ring.capacity());
        let outcomes = outcomes.chunks_mut(ring.capacity());
        for (sockets, outcomes) in slices.zip(outcomes) {
            for (tag, socket) in (0..).zip(sockets) {
                ring.push(tag, *socket, ends_segment);
            }
            // What fails drops the ring, and with it what is queued.
            Slice::new(outcomes).run(&mut ring)?;
        }
        self.ring = Some(ring);
        Ok(())
    }
}

/// Sends that are under way.
struct Slice<'a> {
    outcomes: &'a mut [SendOutcome],
    has_completed: Vec<bool>,
    /// The number of sends that the kernel took: the first ones.
    taken: usize,
    completed: usize,
}

impl<'a> Slice<'a> {
    fn new(outcomes: &'a mut [SendOutcome]) -> Slice<'a> {
        Slice {
            has_completed: vec![false; outcomes.len()],
            outcomes,
            taken: 0,
            completed: 0,
        }
    }

    /// Submits until all have completed.
    fn run(mut self, ring: &mut impl Ring) -> io::Result<()> {
        let result = self.complete_all(ring);
        if result.is_err() {
            let taken = self.has_completed.iter().zip(&mut *self.outcomes);
            for (has_completed, outcome) in taken.take(self.taken) {
                if !has_completed {
                    *outcome = SendOutcome::Failed;
                }
            }
        }
        result
    }

    fn complete_all(&mut self, ring: &mut impl Ring) -> io::Result<()> {
        let mut stalls = 0;
        while self.completed < self.outcomes.len() {
            let before = (self.taken, self.completed);
            match ring.submit(self.outcomes.len() - self.completed) {
                Ok(taken) => self.taken += taken,
                // A signal, or the kernel is short of memory for a moment.
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    self.complete_some(ring)?;
                    return Err(error);
                }
            }
            self.complete_some(ring)?;
            stalls = match before == (self.taken, self.completed) {
                true => stalls + 1,
                false => 0,
            };
            if stalls == STALLS_MAX {
                return Err(io::Error::other("the ring makes no progress"));
            }
        }
        Ok(())
    }

    /// Notes what has completed.
    fn complete_some(&mut self, ring: &mut impl Ring) -> io::Result<()> {
        while let Some(Completion { tag, result }) = ring.complete() {
            let tag = usize::try_from(tag).unwrap_or(usize::MAX);
            let has_completed = self.has_completed.get_mut(tag);
            match has_completed {
                Some(has_completed) if tag < self.taken && !*has_completed => {
                    *has_completed = true;
                    self.outcomes[tag] = outcome(result);
                    self.completed += 1;
                }
                _ => return Err(io::Error::other("the ring completes what it was not given")),
            }
        }
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    let is_busy = error.raw_os_error() == Some(nix::libc::EBUSY);
    is_busy || matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

fn outcome(result: i32) -> SendOutcome {
    match (usize::try_from(result), -result) {
        (Ok(count), _) => SendOutcome::Sent(count),
        (_, nix::libc::EAGAIN) => SendOutcome::WouldBlock,
        (_, nix::libc::EINTR | nix::libc::ECANCELED) => SendOutcome::Unsent,
        _ => SendOutcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A ring that takes and completes as a seed says, and notes what each socket was sent.
    struct Fake {
        rng: fastrand::Rng,
        bytes: Vec<u8>,
        queued: VecDeque<(u64, RawFd)>,
        under_way: Vec<Completion>,
        completed: VecDeque<Completion>,
        /// The number of times that each socket was sent the bytes.
        sent: Vec<u32>,
        /// The submission that fails, if one does.
        fails_at: Option<u32>,
        submissions: u32,
    }

    const CAPACITY: usize = 8;

    impl Fake {
        fn new(seed: u64, sockets: usize) -> Fake {
            let mut rng = fastrand::Rng::with_seed(seed);
            Fake {
                fails_at: rng.bool().then(|| rng.u32(1..12)),
                rng,
                bytes: Vec::new(),
                queued: VecDeque::new(),
                under_way: Vec::new(),
                completed: VecDeque::new(),
                sent: vec![0; sockets],
                submissions: 0,
            }
        }

        fn send(&mut self, socket: RawFd) -> i32 {
            let length = i32::try_from(self.bytes.len()).unwrap();
            let result = match self.rng.u32(0..8) {
                0 => -nix::libc::EAGAIN,
                1 => -nix::libc::EPIPE,
                2 => -nix::libc::ECANCELED,
                3 => self.rng.i32(1..=length),
                _ => length,
            };
            if result > 0 {
                self.sent[usize::try_from(socket).unwrap()] += 1;
            }
            result
        }
    }

    impl Ring for &mut Fake {
        fn capacity(&self) -> usize {
            CAPACITY
        }

        fn bytes_max(&self) -> usize {
            100
        }

        fn set_bytes(&mut self, bytes: &[u8]) {
            assert!(self.queued.is_empty() && self.under_way.is_empty());
            self.bytes = bytes.to_vec();
        }

        fn push(&mut self, tag: u64, socket: RawFd, ends_segment: bool) {
            assert!(ends_segment && self.queued.len() < CAPACITY);
            self.queued.push_back((tag, socket));
        }

        fn submit(&mut self, wait_for: usize) -> io::Result<usize> {
            let left = self.queued.len() + self.under_way.len() + self.completed.len();
            assert_eq!(wait_for, left, "it waits for what there is");
            self.submissions += 1;
            if self.fails_at == Some(self.submissions) {
                return Err(io::Error::from_raw_os_error(nix::libc::ENXIO));
            }
            if self.rng.u32(0..4) == 0 {
                let passing = [nix::libc::EINTR, nix::libc::EAGAIN, nix::libc::EBUSY];
                let passing = passing[self.rng.usize(0..3)];
                return Err(io::Error::from_raw_os_error(passing));
            }
            let taken = self.rng.usize(0..=self.queued.len());
            for _ in 0..taken {
                let (tag, socket) = self.queued.pop_front().unwrap();
                let result = self.send(socket);
                self.under_way.push(Completion { tag, result });
            }
            let completes = self.rng.usize(0..=self.under_way.len());
            for _ in 0..completes {
                let which = self.rng.usize(0..self.under_way.len());
                let completion = self.under_way.swap_remove(which);
                self.completed.push_back(completion);
            }
            Ok(taken)
        }

        fn complete(&mut self) -> Option<Completion> {
            self.completed.pop_front()
        }
    }

    #[test]
    fn whatever_a_ring_does_nothing_is_sent_twice_and_what_was_sent_is_known() {
        let seeds = if cfg!(miri) { 200 } else { 20_000 };
        for seed in 0..seeds {
            let count = 1 + usize::try_from(seed % 20).unwrap();
            let mut fake = Fake::new(seed, count);
            let sockets: Vec<RawFd> = (0..).take(count).collect();
            let mut outcomes = vec![SendOutcome::Unsent; count];
            let mut sender = Sender::new(&mut fake);
            let result = sender.send_to_all(&sockets, b"data: x\n\n", true, &mut outcomes);
            let again = sender.send_to_all(&[], b"y", true, &mut []);
            assert_eq!(result.is_err(), again.is_err(), "{seed}");
            for (outcome, sent) in outcomes.iter().zip(&fake.sent) {
                let is_right = match outcome {
                    SendOutcome::Unsent | SendOutcome::WouldBlock => *sent == 0,
                    SendOutcome::Sent(_) => *sent == 1,
                    SendOutcome::Failed => *sent <= 1,
                };
                assert!(is_right, "{seed}: {outcome:?}, sent {sent} times");
            }
            let is_done = fake.queued.is_empty() && fake.under_way.is_empty();
            assert!(result.is_err() || is_done, "{seed}");
        }
    }

    #[test]
    fn a_ring_that_does_nothing_or_lies_has_failed() {
        struct Stuck(Option<Completion>);
        impl Ring for Stuck {
            fn capacity(&self) -> usize {
                4
            }
            fn bytes_max(&self) -> usize {
                4
            }
            fn set_bytes(&mut self, _: &[u8]) {}
            fn push(&mut self, _: u64, _: RawFd, _: bool) {}
            fn submit(&mut self, _: usize) -> io::Result<usize> {
                Ok(0)
            }
            fn complete(&mut self) -> Option<Completion> {
                self.0.take()
            }
        }
        let lies = [None, Some(0), Some(1), Some(u64::MAX)];
        for lie in lies.map(|tag| tag.map(|tag| Completion { tag, result: 1 })) {
            let mut sender = Sender::new(Stuck(lie));
            let mut outcomes = [SendOutcome::Unsent];
            assert!(sender.send_to_all(&[7], b"x", true, &mut outcomes).is_err());
            assert_eq!(outcomes, [SendOutcome::Unsent], "it took nothing");
        }
        let mut sender = Sender::new(Stuck(None));
        let mut outcomes = [SendOutcome::Unsent];
        let larger = sender.send_to_all(&[7], b"large", true, &mut outcomes);
        assert!(larger.is_ok() && outcomes == [SendOutcome::Unsent]);
    }
}
