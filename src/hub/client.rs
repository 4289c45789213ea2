//! Clients: their ids, their figures, and the members of channels.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use uuid::Uuid;

pub(crate) use crate::disconnect_reason::DisconnectReason;

/// The longest client id that is accepted, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 255;

/// The id of one client: a random UUID, unless its subscription named one.
///
/// Two ids are equal when their texts are. An id is 1 to 255 bytes without
/// control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    /// Sixteen bytes in place: the usual id costs no allocation.
    Uuid(Uuid),
    Text(Arc<str>),
}

/// A client id that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientIdError;

impl fmt::Display for ClientIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a client id is 1 to {CLIENT_ID_BYTES_MAX} bytes without control characters. Choose \
             another"
        )
    }
}

impl std::error::Error for ClientIdError {}

impl ClientId {
    /// Takes `text` as an id.
    ///
    /// # Errors
    /// When it is empty, longer than 255 bytes, or has a control character.
    pub fn new(text: &str) -> Result<ClientId, ClientIdError> {
        if text.is_empty() || text.len() > CLIENT_ID_BYTES_MAX || text.chars().any(char::is_control)
        {
            return Err(ClientIdError);
        }
        Ok(ClientId::lookup(text))
    }

    /// Returns the id that `text` spells, to find a client: no client has an invalid id.
    pub(crate) fn lookup(text: &str) -> ClientId {
        // A UUID in its canonical spelling is the same id as its text.
        let canonical = |uuid: &Uuid| {
            let mut buffer = Uuid::encode_buffer();
            uuid.hyphenated().encode_lower(&mut buffer) == text
        };
        match Uuid::try_parse(text).ok().filter(canonical) {
            Some(uuid) => ClientId(Repr::Uuid(uuid)),
            None => ClientId(Repr::Text(text.into())),
        }
    }

    pub(crate) fn from_uuid(uuid: Uuid) -> ClientId {
        ClientId(Repr::Uuid(uuid))
    }

    /// Returns the bytes of text that it has on the heap.
    pub(crate) fn text_bytes(&self) -> usize {
        match &self.0 {
            Repr::Uuid(_) => 0,
            Repr::Text(text) => text.len(),
        }
    }
}

impl FromStr for ClientId {
    type Err = ClientIdError;

    fn from_str(text: &str) -> Result<ClientId, ClientIdError> {
        ClientId::new(text)
    }
}

impl TryFrom<&str> for ClientId {
    type Error = ClientIdError;

    fn try_from(text: &str) -> Result<ClientId, ClientIdError> {
        ClientId::new(text)
    }
}

impl TryFrom<String> for ClientId {
    type Error = ClientIdError;

    fn try_from(text: String) -> Result<ClientId, ClientIdError> {
        ClientId::new(&text)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Uuid(uuid) => uuid.fmt(f),
            Repr::Text(text) => text.fmt(f),
        }
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}

impl PartialEq<str> for ClientId {
    fn eq(&self, text: &str) -> bool {
        *self == ClientId::lookup(text)
    }
}

impl PartialEq<&str> for ClientId {
    fn eq(&self, text: &&str) -> bool {
        *self == **text
    }
}

/// A client of a channel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientInfo {
    /// The client's id.
    pub id: ClientId,
    /// The metadata that its subscription has set; `null` by default.
    pub metadata: Arc<Value>,
    /// Its address; see [`Request::client_address`](crate::Request::client_address).
    pub address: SocketAddr,
    /// When it subscribed.
    pub since: SystemTime,
    /// The number of events of its channel that it has yet to be sent: 0 for a client
    /// that keeps up.
    pub behind: usize,
}

/// The function that a subscription has called once, when its client is gone.
pub(crate) type DisconnectHook = Box<dyn FnOnce(&ClientInfo, DisconnectReason) + Send>;

/// The connection behind a member: which reactor has it, and its token there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId {
    pub(crate) token: u64,
    pub(crate) reactor: u16,
}

/// A client in a channel. There is one for every connected client, so its size is part
/// of the memory of an idle client: 72 bytes.
pub(crate) struct Member {
    pub(crate) id: ClientId,
    pub(crate) token: u64,
    /// What a client that is behind has seen; `CAUGHT_UP` for all others.
    pub(crate) seen: u64,
    /// What only some clients have.
    pub(crate) extra: Option<Box<Extra>>,
    address: Address,
    /// Seconds of the hub's clock.
    since_s: u32,
    pub(crate) reactor: u16,
    /// Whether the engine generated the id.
    pub(crate) has_generated_id: bool,
    /// Whether the channel is the first of its stream.
    pub(crate) is_first: bool,
}

/// The `seen` of a member that keeps up.
pub(crate) const CAUGHT_UP: u64 = u64::MAX;

/// What only some members have: metadata, and the hook of a subscription.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) metadata: Arc<Value>,
    pub(crate) on_disconnect: Option<DisconnectHook>,
}

impl Member {
    #[allow(clippy::cast_possible_truncation, reason = "136 years")]
    pub(crate) fn new(
        id: ClientId,
        connection: ConnectionId,
        address: SocketAddr,
        now_ms: u64,
        extra: Option<Box<Extra>>,
    ) -> Member {
        Member {
            id,
            has_generated_id: false,
            is_first: false,
            token: connection.token,
            reactor: connection.reactor,
            seen: CAUGHT_UP,
            extra,
            address: Address::new(address),
            since_s: (now_ms / 1000) as u32,
        }
    }

    pub(crate) fn connection(&self) -> ConnectionId {
        ConnectionId {
            token: self.token,
            reactor: self.reactor,
        }
    }

    pub(crate) fn metadata(&self) -> Option<&Arc<Value>> {
        self.extra.as_ref().map(|extra| &extra.metadata)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.get()
    }

    /// When the client subscribed, in milliseconds of the hub's clock,
    /// rounded down to a second.
    pub(crate) fn since_ms(&self) -> u64 {
        u64::from(self.since_s) * 1000
    }
}

/// A socket address in 16 bytes: IPv4 in place, IPv6 behind a pointer.
enum Address {
    V4(Ipv4Addr, u16),
    V6(Box<SocketAddrV6>),
}

impl Address {
    fn new(address: SocketAddr) -> Address {
        match address {
            SocketAddr::V4(v4) => Address::V4(*v4.ip(), v4.port()),
            SocketAddr::V6(v6) => Address::V6(Box::new(v6)),
        }
    }

    fn get(&self) -> SocketAddr {
        match self {
            Address::V4(ip, port) => SocketAddr::new(IpAddr::V4(*ip), *port),
            Address::V6(v6) => SocketAddr::V6(**v6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_72_bytes() {
        assert_eq!(size_of::<Member>(), 72);
    }

    #[test]
    fn ids_are_equal_when_their_texts_are() {
        let uuid = Uuid::from_u128(7);
        let spelled = ClientId::new(&uuid.to_string()).unwrap();
        assert_eq!(spelled, ClientId::from_uuid(uuid));
        let upper = ClientId::new(&uuid.to_string().to_uppercase().replace('0', "A")).unwrap();
        assert_ne!(upper, ClientId::from_uuid(uuid));
        assert_eq!(ClientId::new("ann").unwrap(), "ann");
        assert_eq!("ann".parse::<ClientId>().unwrap(), "ann");
        assert_eq!(ClientId::try_from("ann").unwrap(), "ann");
        assert_eq!(ClientId::try_from(String::from("ann")).unwrap(), "ann");
    }

    #[test]
    fn odd_ids_are_refused() {
        for bad in ["", "a\nb", "\u{7f}", &"x".repeat(256)] {
            assert_eq!(ClientId::new(bad), Err(ClientIdError));
            assert_eq!(bad.parse::<ClientId>(), Err(ClientIdError));
        }
    }

    #[test]
    fn addresses_survive() {
        for text in ["127.0.0.1:80", "[2001:db8::1]:443"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::new(address).get(), address);
        }
    }
}
