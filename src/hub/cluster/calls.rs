//! [`SharedValues`]: values that all nodes of a cluster have, and that one of them takes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use crate::cluster::BrokerError;

/// The most calls that wait.
const CALLS_MAX: usize = 4_096;

/// Receives the result of [`SharedValues::put`].
type Then<T> = Box<dyn FnOnce(Result<T, BrokerError>) + Send>;

pub(super) enum Call {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        ttl: Duration,
        then: Then<()>,
    },
    Take {
        key: Vec<u8>,
        then: Then<Option<Vec<u8>>>,
    },
}

impl Call {
    pub(super) fn refuse(self, error: BrokerError) {
        match self {
            Call::Put { then, .. } => pass_on(then, Err(error)),
            Call::Take { then, .. } => pass_on(then, Err(error)),
        }
    }
}

/// Passes a result on. The program's code must not end this thread.
pub(super) fn pass_on<T>(then: Then<T>, result: Result<T, BrokerError>) {
    if catch_unwind(AssertUnwindSafe(|| then(result))).is_err() {
        ::log::error!("a function that receives a shared value has panicked");
    }
}

/// Values that all nodes of a cluster have, such as tickets; see
/// [`ChannelManager::shared_values`](crate::ChannelManager::shared_values). A cheap handle.
///
/// No call waits. Each passes its result to a function, on a thread of the cluster or before
/// it returns: the function must return at once.
#[derive(Clone, Debug)]
pub struct SharedValues {
    calls: Sender<Call>,
}

impl SharedValues {
    pub(super) fn new() -> (SharedValues, Receiver<Call>) {
        let (calls, receiver) = crossbeam_channel::bounded(CALLS_MAX);
        (SharedValues { calls }, receiver)
    }

    /// Keeps a value under a key for some time.
    pub fn put(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
        ttl: Duration,
        then: impl FnOnce(Result<(), BrokerError>) + Send + 'static,
    ) {
        let then = Box::new(then);
        self.call(Call::Put {
            key,
            value,
            ttl,
            then,
        });
    }

    /// Takes the value of a key. Of several calls, on any node, one gets it.
    pub fn take(
        &self,
        key: Vec<u8>,
        then: impl FnOnce(Result<Option<Vec<u8>>, BrokerError>) + Send + 'static,
    ) {
        let then = Box::new(then);
        self.call(Call::Take { key, then });
    }

    fn call(&self, call: Call) {
        if let Err(refused) = self.calls.try_send(call) {
            let why = "too many calls wait for it, or the node has left the cluster".to_owned();
            refused
                .into_inner()
                .refuse(BrokerError::Unreachable { why });
        }
    }
}
