//! [`Broker`]: how to reach the server that has the log. All sessions share it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pushwheel::cluster::BrokerError;
use redis::Value;
use rustls::ClientConfig;

use crate::clock::{now, remaining};
use crate::connection::{Connection, Fault, REPLY_BYTES_MAX, items, next, number, text};
use crate::faults::{broker_error, redirect};
use crate::keys::{Keys, hex};
use crate::replies::ReplyError;
use crate::resolver::Resolver;
use crate::stream::Stream;
use crate::url::{RedisUrl, ServerAddress};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) url: RedisUrl,
    /// `None`: without TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) keys: Keys,
    /// The number of replicas that have a block before it counts as appended.
    pub(crate) replicas: u32,
    resolver: Resolver,
    route: Mutex<Route>,
    /// How many blocks the next read asks for, at first.
    pub(crate) read_count: AtomicUsize,
}

/// What was learned of the way to the server.
#[derive(Debug, Default)]
struct Route {
    /// The server to which another one has directed, in a Redis Cluster.
    redirect: Option<ServerAddress>,
    /// The sentinel that is asked first: the last one that has answered.
    sentinel: usize,
}

impl Broker {
    pub(crate) fn new(
        url: RedisUrl,
        tls: Option<Arc<ClientConfig>>,
        keys: Keys,
        replicas: u32,
    ) -> Broker {
        Broker {
            url,
            tls,
            keys,
            replicas,
            resolver: Resolver::default(),
            route: Mutex::default(),
            read_count: AtomicUsize::new(0),
        }
    }

    /// Returns the same with keys for a trial.
    pub(crate) fn for_trial(&self, token: u128) -> Broker {
        let keys = self.keys.trial(&hex(token));
        Broker::new(self.url.clone(), self.tls.clone(), keys, self.replicas)
    }

    /// Connects to the server that should have the log, and sends nothing yet.
    ///
    /// # Errors
    /// When it cannot be found or reached in time.
    pub(crate) fn connect(&self, deadline: Instant) -> Result<Connection, BrokerError> {
        let redirect = self.route().redirect.take();
        let is_redirected = redirect.is_some();
        let server = match (redirect, &self.url.primary) {
            (Some(server), _) => server,
            (None, Some(primary)) => self.ask_sentinels(primary, deadline)?,
            (None, None) => self.url.servers[0].clone(),
        };
        let connection = self.connect_to(&server, deadline)?;
        if is_redirected {
            self.route().redirect = Some(server);
        }
        Ok(connection)
    }

    fn connect_to(
        &self,
        server: &ServerAddress,
        deadline: Instant,
    ) -> Result<Connection, BrokerError> {
        let resolved = self.resolver.resolve(server, deadline);
        let connected = resolved.and_then(|addresses| {
            Stream::connect(&addresses, &server.host, self.tls.as_ref(), deadline)
        });
        let connected = connected.map(Connection::new);
        connected.map_err(|error| broker_error(&error.into()))
    }

    /// Asks the sentinels, one after the other, for the address of the primary. Each gets an
    /// even share of the time that is left.
    fn ask_sentinels(
        &self,
        primary: &str,
        deadline: Instant,
    ) -> Result<ServerAddress, BrokerError> {
        let sentinels = &self.url.servers;
        let first = self.route().sentinel;
        let mut failure = None;
        for turn in 0..sentinels.len() {
            let index = (first + turn) % sentinels.len();
            let left = u32::try_from(sentinels.len() - turn).unwrap_or(u32::MAX);
            // The server itself gets a share, too.
            let time = remaining(deadline).map_err(|error| broker_error(&error.into()))?;
            match self.ask_sentinel(&sentinels[index], primary, now() + time / (left + 1)) {
                Ok(server) => {
                    self.route().sentinel = index;
                    return Ok(server);
                }
                Err(error) => {
                    failure.get_or_insert((index, error));
                }
            }
        }
        let (index, error) = failure.expect("there is a sentinel");
        let why = format!("sentinel {}: {error}", sentinels[index]);
        Err(match error {
            BrokerError::Refused { .. } => BrokerError::Refused { why },
            _ => BrokerError::Unreachable { why },
        })
    }

    fn ask_sentinel(
        &self,
        sentinel: &ServerAddress,
        primary: &str,
        deadline: Instant,
    ) -> Result<ServerAddress, BrokerError> {
        let mut connection = self.connect_to(sentinel, deadline)?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(primary);
        let mut answer = connection.call(&command, REPLY_BYTES_MAX, deadline);
        if let (Err(Fault::Server(error)), Some(auth)) = (&answer, self.auth())
            && error.code() == "NOAUTH"
        {
            let replies = connection.call_all(&[&auth, &command], deadline);
            answer = replies.and_then(|mut replies| {
                let answer = replies.pop().expect("each command has a reply");
                replies.pop().expect("each command has a reply")?;
                answer
            });
        }
        let address = answer.and_then(|answer| match answer {
            Value::Nil => Ok(None),
            address => {
                let mut parts = items(address)?;
                let (host, port) = (text(next(&mut parts)?)?, number(next(&mut parts)?)?);
                let port = u16::try_from(port).map_err(|_| Fault::Unexpected("not a port"))?;
                Ok(Some(ServerAddress::new(&host, port)))
            }
        });
        let address = address.map_err(|fault| broker_error(&fault))?;
        address.ok_or_else(|| BrokerError::Refused {
            why: format!("it does not monitor {primary}"),
        })
    }

    /// Returns the command that authenticates, if there is a password.
    pub(crate) fn auth(&self) -> Option<redis::Cmd> {
        let (user, password) = self.url.credentials()?;
        let mut command = redis::cmd("AUTH");
        command.arg(user).arg(password);
        Some(command)
    }

    /// Returns what a fault means, and remembers where the log is if it says so.
    pub(crate) fn judge(&self, fault: &Fault) -> BrokerError {
        if let Some(server) = redirect(fault) {
            self.route().redirect = Some(server);
        }
        if matches!(fault, Fault::Gone(ReplyError::TooLarge)) {
            self.read_count.store(1, Ordering::Relaxed);
        }
        broker_error(fault)
    }

    fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
