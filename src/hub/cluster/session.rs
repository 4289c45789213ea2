//! [`Session`]: the session that a part of a node has with the broker.
//!
//! It is opened when it is needed, closed by any error and when all sessions of the node are
//! to be opened again, and not opened for a while after an error.

use super::shared::{Cluster, Pauses};
use crate::cluster::{BrokerError, Hello, Welcome};

/// See the [module](self). `S` reads or writes.
pub(super) struct Session<S> {
    /// The session, and what [`Cluster::sessions_from`] was when it was opened.
    open: Option<(S, u64)>,
    pauses: Pauses,
    /// The newest error.
    error: Option<BrokerError>,
}

impl<S> Default for Session<S> {
    fn default() -> Session<S> {
        Session {
            open: None,
            pauses: Pauses::default(),
            error: None,
        }
    }
}

impl<S> Session<S> {
    /// Returns the session if it is open. One that is to be opened again is closed.
    pub(super) fn get(&mut self, cluster: &Cluster) -> Option<&mut S> {
        let from = cluster.sessions_from();
        self.open.take_if(|(_, opened)| *opened < from);
        self.open.as_mut().map(|(session, _)| session)
    }

    /// Returns the session.
    ///
    /// # Errors
    /// When it is not open.
    pub(super) fn required(&mut self, cluster: &Cluster) -> Result<&mut S, BrokerError> {
        self.get(cluster).ok_or_else(not_open)
    }

    /// Returns until when it is not to be opened, if that is later than now.
    pub(super) fn wait(&self, now_ms: u64) -> Option<u64> {
        self.pauses.wait(now_ms)
    }

    /// Returns why it is not open.
    pub(super) fn error(&self) -> BrokerError {
        self.error.clone().unwrap_or_else(not_open)
    }

    /// Opens it, or begins a pause.
    pub(super) fn open(
        &mut self,
        cluster: &Cluster,
        now_ms: u64,
        open: impl FnOnce(&Hello<'_>) -> Result<(S, Welcome), BrokerError>,
    ) -> Option<Welcome> {
        let opens = cluster.sessions_from();
        match cluster.hello(open) {
            Ok((session, welcome)) => {
                cluster.note_session();
                self.open = Some((session, opens));
                Some(welcome)
            }
            Err(error) => {
                self.failed(cluster, now_ms, error);
                None
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Closes it after an error, notes the error, and begins a pause.
    pub(super) fn failed(&mut self, cluster: &Cluster, now_ms: u64, error: BrokerError) {
        self.close();
        self.pauses.failed(now_ms, cluster.random());
        self.error = Some(error.clone());
        cluster.note_error(error);
    }

    /// Ends the pauses: what it is for has succeeded.
    pub(super) fn succeeded(&mut self) {
        self.pauses.succeeded();
    }

    pub(super) fn has_failed(&self) -> bool {
        self.pauses.has_failed()
    }
}

fn not_open() -> BrokerError {
    BrokerError::Unreachable {
        why: "it was not asked yet".to_owned(),
    }
}
