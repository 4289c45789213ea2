//! [`RedisUrl`]: where a broker is, and with which rights a node uses it.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// The port of Redis and Valkey.
const PORT: u16 = 6379;

/// The port of Sentinel.
const SENTINEL_PORT: u16 = 26379;

/// The most sentinels that a URL may name.
const SENTINELS_MAX: usize = 16;

/// The address of a broker, as a URL:
///
/// ```text
/// redis://[[USER]:PASSWORD@]HOST[:6379][/DATABASE]
/// redis+sentinel://[[USER]:PASSWORD@]HOST[:26379],HOST[:26379]…/NAME[/DATABASE]
/// ```
///
/// `rediss` in place of `redis` uses TLS, for Sentinel too. Special characters in the user
/// and the password are percent-encoded. `Display` and `Debug` leave the password out.
///
/// ```
/// use pushwheel_redis::RedisUrl;
///
/// let url: RedisUrl = "rediss://node:s3cret@redis.example/2".parse()?;
/// assert_eq!(url.to_string(), "rediss://node@redis.example:6379/2");
/// # Ok::<(), pushwheel_redis::UrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// The server, or the sentinels. There is at least one.
    pub(crate) servers: Vec<ServerAddress>,
    /// The name under which the sentinels know the primary. `None`: there are none.
    pub(crate) primary: Option<String>,
    pub(crate) is_tls: bool,
    pub(crate) user: Option<String>,
    password: Option<String>,
    pub(crate) database: u32,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServerAddress {
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl RedisUrl {
    /// Sets the password, instead of one in the URL.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> RedisUrl {
        self.password = Some(password.to_owned());
        self
    }

    /// Returns whether connections use TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Returns the arguments of `AUTH`, if there is a password.
    pub(crate) fn credentials(&self) -> Option<(Option<&str>, &str)> {
        Some((self.user.as_deref(), self.password.as_deref()?))
    }
}

impl ServerAddress {
    pub(crate) fn new(host: &str, port: u16) -> ServerAddress {
        ServerAddress {
            host: host.to_owned(),
            port,
        }
    }

    /// Parses `HOST` or `HOST:PORT`, where an IPv6 address has brackets.
    fn parse(text: &str, port: u16) -> Result<ServerAddress, UrlError> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(text) => text.split_once(']').ok_or(UrlError::Host)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| UrlError::Port)?,
            None if rest.is_empty() => port,
            None => return Err(UrlError::Host),
        };
        let is_text = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        let is_host = !host.is_empty() && host.bytes().all(is_text) && port > 0;
        match is_host {
            true => Ok(ServerAddress::new(host, port)),
            false => Err(UrlError::Host),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<RedisUrl, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let (is_tls, has_sentinels) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            _ => return Err(UrlError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(UrlError::Parameters);
        }
        // A password may contain anything that is encoded, and `@` and `/` have to be.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let (user, password) = match credentials.map(|text| text.split_once(':')) {
            None => (None, None),
            Some(None) => return Err(UrlError::Password),
            Some(Some((user, password))) => (Some(decoded(user)?), Some(decoded(password)?)),
        };
        let mut path = rest.split('/');
        let authority = path.next().unwrap_or_default();
        let primary = match has_sentinels {
            true => Some(
                path.next()
                    .filter(|name| !name.is_empty())
                    .ok_or(UrlError::Primary)?,
            ),
            false => None,
        };
        let database = match path.next().filter(|text| !text.is_empty()) {
            Some(text) => text.parse().map_err(|_| UrlError::Database)?,
            None => 0,
        };
        if path.next().is_some() {
            return Err(UrlError::Database);
        }
        let servers: Vec<_> = match has_sentinels {
            true => {
                let servers = authority.split(',');
                let servers = servers.map(|server| ServerAddress::parse(server, SENTINEL_PORT));
                servers.collect::<Result<_, _>>()?
            }
            false => vec![ServerAddress::parse(authority, PORT)?],
        };
        if servers.len() > SENTINELS_MAX {
            return Err(UrlError::Host);
        }
        Ok(RedisUrl {
            servers,
            primary: primary.map(decoded).transpose()?,
            is_tls,
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            database,
        })
    }
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| UrlError::Password)
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.is_tls { "s" } else { "" };
        let sentinel = if self.primary.is_some() {
            "+sentinel"
        } else {
            ""
        };
        write!(f, "redis{tls}{sentinel}://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{server}")?;
        }
        if let Some(primary) = &self.primary {
            write!(f, "/{primary}")?;
        }
        match self.database {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}

/// Without the password.
impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

/// Why a text is not the URL of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// It does not begin with a known scheme.
    Scheme,
    /// The host is missing or invalid.
    Host,
    /// The port is not a number.
    Port,
    /// The database is not a number.
    Database,
    /// The name of the primary is missing, for sentinels.
    Primary,
    /// The user or the password is invalid.
    Password,
    /// It has a query or a fragment.
    Parameters,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlError::Scheme => {
                "not the URL of a broker. Use for example redis://localhost, rediss://HOST for TLS, \
                 or redis+sentinel://HOST,HOST,HOST/NAME"
            }
            UrlError::Host => "the URL has no valid host. Use for example redis://localhost:6379",
            UrlError::Port => "the port of the URL is not a number from 1 to 65535",
            UrlError::Database => "the database of the URL is not a number. Use for example /0",
            UrlError::Primary => {
                "the URL has no name of a primary. Use the one that the sentinels monitor, for \
                 example redis+sentinel://HOST,HOST,HOST/mymaster"
            }
            UrlError::Password => {
                "the user or the password of the URL is invalid. Use [USER]:PASSWORD@, and \
                 percent-encode special characters"
            }
            UrlError::Parameters => {
                "the URL has parameters, which are not known. Percent-encode `?` and `#` in a \
                 password"
            }
        })
    }
}

impl Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> RedisUrl {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn parts_of_a_url() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("redis://10.0.0.1:7000/3", "redis://10.0.0.1:7000/3"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("rediss://[::1]:7000/", "rediss://[::1]:7000"),
            ("redis://:secret@h", "redis://h:6379"),
            ("redis://ann:s%3Acr%40t@h/1", "redis://ann@h:6379/1"),
            (
                "redis+sentinel://:p@a,b:7,c/mymaster/2",
                "redis+sentinel://a:26379,b:7,c:26379/mymaster/2",
            ),
            ("rediss+sentinel://a/m", "rediss+sentinel://a:26379/m"),
        ] {
            assert_eq!(parsed(text).to_string(), shown);
        }
        let url = parsed("redis://ann:s%3Acr%40t@h/1");
        assert_eq!(url.credentials(), Some((Some("ann"), "s:cr@t")));
        assert_eq!(parsed("redis://:p@h").credentials(), Some((None, "p")));
        let url = parsed("redis://h").with_password("q");
        assert_eq!(url.credentials(), Some((None, "q")));
    }

    #[test]
    fn wrong_urls_say_what_is_wrong() {
        for (text, error) in [
            ("", UrlError::Scheme),
            ("localhost:6379", UrlError::Scheme),
            ("http://localhost", UrlError::Scheme),
            ("redis://", UrlError::Host),
            ("redis:///0", UrlError::Host),
            ("redis://a b", UrlError::Host),
            ("redis://[::1", UrlError::Host),
            ("redis://h:0", UrlError::Host),
            ("redis://h:port", UrlError::Port),
            ("redis://h:70000", UrlError::Port),
            ("redis://h/x", UrlError::Database),
            ("redis://h/0/1", UrlError::Database),
            ("redis://ann@h", UrlError::Password),
            ("redis://:%ff@h", UrlError::Password),
            ("redis://h/0?timeout=1", UrlError::Parameters),
            ("redis+sentinel://a,b", UrlError::Primary),
            ("redis+sentinel://a,,b/m", UrlError::Host),
        ] {
            assert_eq!(text.parse::<RedisUrl>(), Err(error), "{text}");
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let url = parsed("redis://ann:hunter2@h");
        assert!(!format!("{url} {url:?}").contains("hunter2"));
    }
}
