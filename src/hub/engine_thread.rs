//! The threads that must not wait: those of reactors, which run the handlers and
//! callbacks of a program and write to every client.

use std::cell::Cell;

thread_local! {
    static IS_ENGINE_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread as a reactor's until this is dropped.
pub(crate) struct EngineThread(());

impl EngineThread {
    pub(crate) fn enter() -> EngineThread {
        IS_ENGINE_THREAD.set(true);
        EngineThread(())
    }

    /// Returns whether the current thread is a reactor's. It would wait for itself if it
    /// waited for a client, and delay all clients if it waited for a disk.
    pub(crate) fn is_current() -> bool {
        IS_ENGINE_THREAD.get()
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        IS_ENGINE_THREAD.set(false);
    }
}
