//! Lines on their way to a slow reader.
//!
//! A thread writes them; whoever logs only puts them into a queue. When so many
//! bytes wait that the reader will not catch up soon, further lines are lost,
//! and counted, and the reader is told how many as soon as it reads on.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// How many bytes of lines may wait.
pub(super) const WAITING_BYTES_MAX: usize = 4 << 20;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Queue {
    sender: Sender<Entry>,
    waiting_bytes: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

enum Entry {
    Line(Vec<u8>),
    /// Say when everything before is written.
    Flush(Sender<()>),
}

impl Queue {
    /// Starts the thread. `tell_lost` makes the line that says how many were
    /// lost.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        tell_lost: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Arc<Queue>> {
        // Bounded by the bytes.
        let (sender, entries) = unbounded();
        let queue = Arc::new(Queue {
            sender,
            waiting_bytes: Arc::default(),
            lost: Arc::default(),
        });
        let (waiting, lost) = (queue.waiting_bytes.clone(), queue.lost.clone());
        let thread = thread::Builder::new().name("pushwheel-log".into());
        thread.spawn(move || write_all(out, &entries, &waiting, &lost, &tell_lost))?;
        Ok(queue)
    }

    /// Puts a line in. Never waits.
    pub(super) fn push(&self, line: Vec<u8>) {
        let bytes = line.len();
        if self.waiting_bytes.fetch_add(bytes, Relaxed) + bytes > WAITING_BYTES_MAX {
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        // The thread lasts as long as there is a sender.
        let _ = self.sender.send(Entry::Line(line));
    }

    /// Waits until all lines are written, but for no longer than that.
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
    waiting_bytes: &AtomicUsize,
    lost: &AtomicU64,
    tell_lost: &impl Fn(u64) -> Vec<u8>,
) {
    // What cannot be written has nobody who reads it, and nobody to be told.
    for entry in entries {
        match entry {
            Entry::Line(line) => {
                let _ = out.write_all(&line);
                waiting_bytes.fetch_sub(line.len(), Relaxed);
            }
            Entry::Flush(sender) => {
                let _ = out.flush();
                let _ = sender.send(());
            }
        }
        let count = lost.swap(0, Relaxed);
        if count > 0 {
            let _ = out.write_all(&tell_lost(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe that takes nothing before the gate is open.
    struct Gate {
        is_open: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Open is: nobody holds it shut any more.
            let _ = self.is_open.recv();
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_is_too_slow_holds_nobody_up_and_is_told_what_it_has_lost() {
        let (shut, is_open) = bounded(0);
        let (written, lines) = unbounded();
        let gate = Gate { is_open, written };
        let queue = Queue::start(gate, |count| format!("lost {count}").into_bytes()).unwrap();
        // Ten more than there is room for, while nothing at all is written.
        let line = vec![b'x'; WAITING_BYTES_MAX / 100];
        for _ in 0..110 {
            queue.push(line.clone());
        }
        drop(shut);
        queue.flush(Duration::from_secs(30));
        let mut told: Vec<Vec<u8>> = lines.try_iter().collect();
        let lost = told.iter().position(|line| line.starts_with(b"lost"));
        assert_eq!(told.remove(lost.unwrap()), b"lost 10");
        assert_eq!(told, vec![line; 100]);
        // And it goes on.
        queue.push(b"more".to_vec());
        queue.flush(Duration::from_secs(30));
        assert_eq!(lines.recv().unwrap(), b"more");
    }
}
