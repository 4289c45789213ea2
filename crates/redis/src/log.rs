//! [`RedisLog`]: the log of a cluster, in Redis or Valkey.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushwheel::cluster::{BrokerError, Hello, LogReader, LogWriter, SharedLog, Welcome};

use crate::broker::Broker;
use crate::clock::now;
use crate::keys::Keys;
use crate::reader::Reader;
use crate::session::Session;
use crate::tls::{TlsError, TlsFiles};
use crate::url::RedisUrl;
use crate::writer::Writer;

/// How a node uses a broker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisOptions {
    /// See [`name`](Self::name).
    pub name: String,
    /// See [`replicas`](Self::replicas).
    pub replicas: u32,
    /// See [`tls`](Self::tls).
    pub tls: TlsFiles,
}

impl Default for RedisOptions {
    fn default() -> RedisOptions {
        RedisOptions {
            name: "pushwheel".to_owned(),
            replicas: 0,
            tls: TlsFiles::default(),
        }
    }
}

impl RedisOptions {
    /// Returns the defaults, which the methods document.
    #[must_use]
    pub fn new() -> RedisOptions {
        RedisOptions::default()
    }

    /// Sets the name of the cluster: all keys begin with it. Clusters that share a server
    /// have different ones. Default: `pushwheel`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the number of replicas that have a block before it counts as appended. Default:
    /// 0, so a failover may lose the newest blocks.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets the files for TLS. Default: the public authorities, and no certificate.
    #[must_use]
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = files;
        self
    }
}

/// A log in Redis or Valkey that nodes share. See the [crate](crate).
#[derive(Clone, Debug)]
pub struct RedisLog {
    broker: Arc<Broker>,
}

impl RedisLog {
    /// Returns the log at a URL. Nothing is connected yet.
    ///
    /// # Errors
    /// When the name cannot be that of a cluster, or a file for TLS cannot be used.
    pub fn new(url: RedisUrl, options: &RedisOptions) -> Result<RedisLog, OptionsError> {
        let keys = Keys::of(&options.name).ok_or(OptionsError::Name)?;
        let tls = match url.is_tls() {
            true => Some(options.tls.read().map_err(OptionsError::Tls)?),
            false => None,
        };
        let broker = Arc::new(Broker::new(url, tls, keys, options.replicas));
        Ok(RedisLog { broker })
    }

    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    fn open(
        &self,
        purpose: &str,
        hello: &Hello<'_>,
        deadline: Instant,
    ) -> Result<(Session, Welcome), BrokerError> {
        let mut session = Session::open(&self.broker, purpose, deadline)?;
        let welcome = session.hello(&self.broker, hello, deadline)?;
        Ok((session, welcome))
    }
}

impl SharedLog for RedisLog {
    fn open_writer(
        &self,
        hello: &Hello<'_>,
        timeout: Duration,
    ) -> Result<(Box<dyn LogWriter>, Welcome), BrokerError> {
        let (session, welcome) = self.open("writer", hello, now() + timeout)?;
        let writer = Writer::new(self.broker.clone(), session, &welcome, hello.writer);
        Ok((Box::new(writer), welcome))
    }

    fn open_reader(
        &self,
        hello: &Hello<'_>,
        timeout: Duration,
    ) -> Result<(Box<dyn LogReader>, Welcome), BrokerError> {
        let (session, welcome) = self.open("reader", hello, now() + timeout)?;
        Ok((Box::new(Reader::new(self.broker.clone(), session)), welcome))
    }

    fn address(&self) -> String {
        self.broker.url.to_string()
    }

    fn confirms_later(&self) -> bool {
        self.broker.replicas > 0
    }
}

/// Why there is no log with these options.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionsError {
    /// The name cannot be that of a cluster.
    Name,
    /// A file for TLS cannot be used.
    Tls(TlsError),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionsError::Name => f.write_str(
                "the name of a cluster has 1 to 64 characters: letters, digits, `-`, `.`, `_` and \
                 `:`",
            ),
            OptionsError::Tls(error) => error.fmt(f),
        }
    }
}

impl Error for OptionsError {}
