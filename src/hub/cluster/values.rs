//! [`Values`]: makes the calls of [`SharedValues`](super::calls::SharedValues).

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::calls::{Call, pass_on};
use super::session::Session;
use super::shared::{CALL_TIMEOUT, Cluster};
use crate::cluster::{Hello, LogWriter};
use crate::hub::Hub;
use crate::hub::proposals::Proposals;

/// The time after which the thread looks whether the node has ended.
const LOOK: Duration = Duration::from_millis(500);

/// Makes the calls.
pub(super) struct Values {
    pub(super) cluster: Arc<Cluster>,
    pub(super) proposals: Arc<Proposals<Hub>>,
    pub(super) calls: Receiver<Call>,
    pub(super) session: Session<Box<dyn LogWriter>>,
}

impl Values {
    /// Makes calls until the node ends.
    pub(super) fn run(mut self) {
        loop {
            match self.calls.recv_timeout(LOOK) {
                Ok(call) => self.make(call),
                Err(RecvTimeoutError::Timeout) if !self.proposals.is_closed() => {}
                Err(_) => return,
            }
        }
    }

    fn make(&mut self, call: Call) {
        let now_ms = self.proposals.clock().now_ms();
        if self.session.get(&self.cluster).is_none() {
            let open = |hello: &Hello<'_>| self.cluster.log.open_writer(hello, CALL_TIMEOUT);
            // While the broker is away, a call does not wait for it as the one before did.
            if self.session.wait(now_ms).is_none() {
                self.session.open(&self.cluster, now_ms, open);
            }
        }
        let Some(session) = self.session.get(&self.cluster) else {
            return call.refuse(self.session.error());
        };
        let error = match call {
            Call::Put {
                key,
                value,
                ttl,
                then,
            } => {
                let put = session.put_value(&key, &value, ttl, CALL_TIMEOUT);
                let error = put.as_ref().err().cloned();
                pass_on(then, put);
                error
            }
            Call::Take { key, then } => {
                let taken = session.take_value(&key, CALL_TIMEOUT);
                let error = taken.as_ref().err().cloned();
                pass_on(then, taken);
                error
            }
        };
        match error {
            None => self.session.succeeded(),
            Some(error) => {
                let now_ms = self.proposals.clock().now_ms();
                self.session.failed(&self.cluster, now_ms, error);
            }
        }
    }
}
