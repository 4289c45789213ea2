//! The queue of log lines.
//!
//! A thread writes the lines, so that logging never blocks. While the queue is full,
//! further lines are dropped and counted. The next line that is written reports how many.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// The maximum size of the queued lines, in bytes.
pub(super) const QUEUE_BYTES_MAX: usize = 4 << 20;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Queue {
    sender: Sender<Entry>,
    queued_bytes: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

enum Entry {
    Line(Vec<u8>),
    /// Report when all lines before it are written.
    Flush(Sender<()>),
}

impl Queue {
    /// Starts the thread. `lost_line` returns the line that reports the number of dropped
    /// lines.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        lost_line: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Arc<Queue>> {
        // Bounded by the bytes.
        let (sender, entries) = unbounded();
        let queue = Arc::new(Queue {
            sender,
            queued_bytes: Arc::default(),
            lost: Arc::default(),
        });
        let (queued, lost) = (queue.queued_bytes.clone(), queue.lost.clone());
        let thread = thread::Builder::new().name("pushwheel-log".into());
        thread.spawn(move || write_all(out, &entries, &queued, &lost, &lost_line))?;
        Ok(queue)
    }

    /// Queues a line, without waiting.
    pub(super) fn push(&self, line: Vec<u8>) {
        let bytes = line.len();
        if self.queued_bytes.fetch_add(bytes, Relaxed) + bytes > QUEUE_BYTES_MAX {
            self.queued_bytes.fetch_sub(bytes, Relaxed);
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        // The thread lasts as long as there is a sender.
        let _ = self.sender.send(Entry::Line(line));
    }

    /// Waits until all lines are written, at most for `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let (sender, is_done) = bounded(1);
        if self.sender.send(Entry::Flush(sender)).is_ok() {
            let _ = is_done.recv_timeout(patience);
        }
    }
}

fn write_all(
    mut out: impl Write,
    entries: &Receiver<Entry>,
    queued_bytes: &AtomicUsize,
    lost: &AtomicU64,
    lost_line: &impl Fn(u64) -> Vec<u8>,
) {
    // Errors are ignored: there is no other place to report them.
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                let _ = out.write_all(&line);
                queued_bytes.fetch_sub(line.len(), Relaxed);
            }
            Entry::Flush(sender) => {
                let _ = out.flush();
                let _ = sender.send(());
            }
        }
        let count = lost.swap(0, Relaxed);
        if count > 0 {
            let _ = out.write_all(&lost_line(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe that blocks until the gate is open.
    struct Gate {
        is_open: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The gate opens when the other end is dropped.
            let _ = self.is_open.recv();
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_reader_blocks_no_logging_and_receives_the_number_of_dropped_lines() {
        let (shut, is_open) = bounded(0);
        let (written, lines) = unbounded();
        let gate = Gate { is_open, written };
        let queue = Queue::start(gate, |count| format!("lost {count}").into_bytes()).unwrap();
        // Ten lines more than the queue can hold, while the pipe blocks.
        let line = vec![b'x'; QUEUE_BYTES_MAX / 100];
        for _ in 0..110 {
            queue.push(line.clone());
        }
        drop(shut);
        queue.flush(Duration::from_secs(30));
        let mut written: Vec<Vec<u8>> = lines.try_iter().collect();
        let lost = written.iter().position(|line| line.starts_with(b"lost"));
        assert_eq!(written.remove(lost.unwrap()), b"lost 10");
        assert_eq!(written, vec![line; 100]);
        // The next line arrives.
        queue.push(b"more".to_vec());
        queue.flush(Duration::from_secs(30));
        assert_eq!(lines.recv().unwrap(), b"more");
    }
}
