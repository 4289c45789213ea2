//! [`Values`]: makes the calls of [`SharedValues`](super::calls::SharedValues).

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::calls::{Call, pass_on};
use super::shared::{CALL_TIMEOUT, Cluster};
use crate::cluster::LogWriter;
use crate::hub::Hub;
use crate::hub::proposals::Proposals;

/// The time after which the thread looks whether the node has ended.
const LOOK: Duration = Duration::from_millis(500);

/// Makes the calls.
pub(super) struct Values {
    pub(super) cluster: Arc<Cluster>,
    pub(super) proposals: Arc<Proposals<Hub>>,
    pub(super) calls: Receiver<Call>,
    pub(super) session: Option<(u64, Box<dyn LogWriter>)>,
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
        let opens = self.cluster.sessions_from();
        if self.session.as_ref().map(|(opened, _)| *opened) < Some(opens) {
            self.session = None;
        }
        if self.session.is_none() {
            let log = &self.cluster.log;
            match self
                .cluster
                .hello(|hello| log.open_writer(hello, CALL_TIMEOUT))
            {
                Ok((session, _)) => self.session = Some((opens, session)),
                Err(error) => return call.refuse(error),
            }
        }
        let Some((_, session)) = &mut self.session else {
            return;
        };
        let is_open = match call {
            Call::Put {
                key,
                value,
                ttl,
                then,
            } => {
                let put = session.put_value(&key, &value, ttl, CALL_TIMEOUT);
                let is_open = put.is_ok();
                pass_on(then, put);
                is_open
            }
            Call::Take { key, then } => {
                let taken = session.take_value(&key, CALL_TIMEOUT);
                let is_open = taken.is_ok();
                pass_on(then, taken);
                is_open
            }
        };
        if !is_open {
            self.session = None;
        }
    }
}
