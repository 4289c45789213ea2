//! A ticket as the nodes of a cluster share it. The broker has the digest of its name, and
//! what it grants: it cannot make a stream of what it has.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::credential::CredentialId;
use super::grant::{Channels, Grant};
use crate::clock::as_ms;
use crate::metadata;
use pushwheel::ClientId;

/// What a ticket grants, in JSON.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Body {
    subscribe: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream_ms: Option<u64>,
}

/// Returns the key of a ticket.
pub(super) fn key(name: &str) -> Vec<u8> {
    let digest = CredentialId::of(&[name.as_bytes()]);
    format!("ticket:{}", digest.to_hex()).into_bytes()
}

/// Writes what a ticket grants.
pub(super) fn encode(grant: &Grant) -> Vec<u8> {
    let body = Body {
        subscribe: grant.subscribe.texts(),
        key: grant.key.map(CredentialId::to_hex),
        client: grant.client.as_ref().map(ToString::to_string),
        metadata: grant.metadata.as_deref().cloned(),
        expires_at_s: grant.expires_at_s,
        stream_ms: grant.stream_time.map(as_ms),
    };
    serde_json::to_vec(&body).expect("all keys are texts")
}

/// Reads what a ticket grants, or returns `None` if it is not what a node has written.
pub(super) fn decode(bytes: &[u8]) -> Option<Grant> {
    let body: Body = serde_json::from_slice(bytes).ok()?;
    let key = match body.key {
        Some(digits) => Some(CredentialId::from_hex(&digits)?),
        None => None,
    };
    if let Some(metadata) = &body.metadata {
        metadata::check(metadata).ok()?;
    }
    Some(Grant {
        subscribe: Channels::parse(&body.subscribe).ok()?,
        key,
        is_ticket: true,
        client: body.client.as_deref().map(ClientId::new).transpose().ok()?,
        metadata: body.metadata.map(Arc::new),
        expires_at_s: body.expires_at_s,
        stream_time: body.stream_ms.map(Duration::from_millis),
        ..Grant::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_grants_the_same_on_another_node() {
        let metadata = serde_json::json!({"role": "admin", "n": 7});
        let texts = ["news".to_owned(), "user.7.*".to_owned()];
        let grant = Grant {
            subscribe: Channels::parse(&texts).unwrap(),
            key: Some(CredentialId::of(&[b"key"])),
            is_ticket: true,
            client: Some(ClientId::new("seven").unwrap()),
            metadata: metadata.as_object().cloned().map(Arc::new),
            expires_at_s: Some(1_796_000_000.5),
            stream_time: Some(Duration::from_secs(60)),
            ..Grant::default()
        };
        let read = decode(&encode(&grant)).unwrap();
        assert_eq!(format!("{read:?}"), format!("{grant:?}"));
        assert!(read.key == grant.key);
        let everything = Grant::everything();
        let least = Grant {
            subscribe: Channels::all(),
            is_ticket: true,
            ..Grant::default()
        };
        let read = decode(&encode(&everything)).unwrap();
        assert_eq!(format!("{read:?}"), format!("{least:?}"));
    }

    #[test]
    fn what_no_node_has_written_grants_nothing() {
        for wrong in [
            "",
            "{}",
            r#"{"subscribe": ["a*b"]}"#,
            r#"{"subscribe": [], "key": "abc"}"#,
            r#"{"subscribe": [], "client": ""}"#,
            r#"{"subscribe": [], "publish": ["*"]}"#,
        ] {
            assert!(decode(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_broker_has_the_digest_of_a_ticket() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key("abc"), format!("ticket:{digest}").into_bytes());
    }
}
