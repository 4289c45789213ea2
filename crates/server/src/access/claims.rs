//! The claims of a token. An error names the claim and what is wrong with it, for the
//! developer of the program that makes tokens.
//!
//! The error repeats parts of the token, so claims are read only after the signature has
//! been verified.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::grant::{Channels, Grant};
use super::refused::Refused;
use crate::metadata;
use crate::pattern::Pattern;
use pushwheel::{CLIENT_ID_BYTES_MAX, ClientId};

/// Maximum characters of a token's text in an error.
const QUOTED_CHARS_MAX: usize = 64;

/// The claims that the server reads.
pub(super) struct Claims {
    /// The end of its validity, in seconds since 1970.
    pub(super) exp: Option<f64>,
    /// The start of its validity, in seconds since 1970.
    pub(super) nbf: Option<f64>,
    /// The time at which the token was made, in seconds since 1970.
    pub(super) iat: Option<f64>,
    pub(super) aud: Option<OneOrMany>,
    pub(super) iss: Option<String>,
    /// The grant, without its times.
    pub(super) grant: Grant,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// Reads claims. Their names are part of the interface. Unknown claims belong to other
    /// programs and are ignored, but an unknown field of `pushwheel` is an error.
    ///
    /// # Errors
    /// If a claim is invalid: the first one found.
    pub(super) fn read(claims: Value) -> Result<Claims, Refused> {
        let Value::Object(mut claims) = claims else {
            return Err(Refused::unfit("its claims are not a JSON object"));
        };
        let own = take(&mut claims, "pushwheel", "an object")?;
        Ok(Claims {
            exp: take(&mut claims, "exp", "a number of seconds")?,
            nbf: take(&mut claims, "nbf", "a number of seconds")?,
            iat: take(&mut claims, "iat", "a number of seconds")?,
            aud: take(&mut claims, "aud", "a string or an array of strings")?,
            iss: take(&mut claims, "iss", "a string")?,
            grant: own.map(granted).transpose()?.unwrap_or_default(),
        })
    }
}

/// Reads the claim `pushwheel`.
fn granted(mut own: Map<String, Value>) -> Result<Grant, Refused> {
    let grant = Grant {
        subscribe: channels(&mut own, "pushwheel.subscribe")?,
        publish: channels(&mut own, "pushwheel.publish")?,
        finish: channels(&mut own, "pushwheel.finish")?,
        client: client(&mut own, "pushwheel.client")?,
        metadata: metadata(&mut own, "pushwheel.metadata")?,
        ..Grant::default()
    };
    match own.keys().next() {
        None => Ok(grant),
        Some(name) => Err(Refused::unfit(format!(
            "its claim `pushwheel` has an unknown field `{}` (known are subscribe, publish, \
             finish, client, metadata)",
            quoted(name)
        ))),
    }
}

fn channels(own: &mut Map<String, Value>, path: &str) -> Result<Channels, Refused> {
    let texts: Option<Vec<String>> = take(own, path, "an array of strings")?;
    let texts = texts.unwrap_or_default();
    Channels::parse(&texts).map_err(|error| {
        let wrong = texts.iter().find(|text| text.parse::<Pattern>().is_err());
        let wrong = quoted(wrong.map_or("", |text| text));
        Refused::unfit(format!("its claim `{path}` lists `{wrong}`, and {error}"))
    })
}

fn client(own: &mut Map<String, Value>, path: &str) -> Result<Option<ClientId>, Refused> {
    let text: Option<String> = take(own, path, "a string")?;
    let id = text.as_deref().map(ClientId::new).transpose();
    id.map_err(|_| {
        Refused::unfit(format!(
            "its claim `{path}` has to be 1 to {CLIENT_ID_BYTES_MAX} bytes without control \
             characters"
        ))
    })
}

fn metadata(
    own: &mut Map<String, Value>,
    path: &str,
) -> Result<Option<Arc<Map<String, Value>>>, Refused> {
    let metadata: Option<Map<String, Value>> = take(own, path, "an object")?;
    if let Some(metadata) = &metadata {
        metadata::check(metadata)
            .map_err(|error| Refused::unfit(format!("its claim `{path}` is too large, {error}")))?;
    }
    Ok(metadata.map(Arc::new))
}

/// Removes a claim, and returns its value. The name is the last part of the path. `null`
/// counts as absent.
fn take<T: DeserializeOwned>(
    claims: &mut Map<String, Value>,
    path: &str,
    wanted: &str,
) -> Result<Option<T>, Refused> {
    let name = path.rsplit('.').next().unwrap_or(path);
    let value = claims.remove(name).unwrap_or_default();
    let kind = kind_of(&value);
    serde_json::from_value(value).map_err(|_| {
        Refused::unfit(format!(
            "its claim `{path}` is {kind}, and has to be {wanted}"
        ))
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(items) if items.iter().all(Value::is_string) => "an array of strings",
        Value::Array(_) => "an array of other things",
        Value::Object(_) => "an object",
    }
}

/// Returns a text for an error: of limited length, and without characters that move a
/// terminal's cursor.
fn quoted(text: &str) -> String {
    let mut chars = text.chars();
    let begin: String = chars.by_ref().take(QUOTED_CHARS_MAX).collect();
    let rest = if chars.next().is_some() { "..." } else { "" };
    format!("{}{rest}", begin.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Returns the error of invalid claims.
    fn flaw(claims: Value) -> String {
        match Claims::read(claims) {
            Err(Refused::TokenUnfit { why }) => why.into_owned(),
            Err(other) => panic!("{other:?}"),
            Ok(_) => "nothing".to_owned(),
        }
    }

    #[test]
    fn an_error_names_its_claim() {
        for (claims, wanted) in [
            (json!([1]), "its claims are not a JSON object"),
            (
                json!({"exp": "soon"}),
                "its claim `exp` is a string, and has to be a number of seconds",
            ),
            (
                json!({"nbf": [1]}),
                "its claim `nbf` is an array of other things, and has to be a number of seconds",
            ),
            (
                json!({"aud": 7}),
                "its claim `aud` is a number, and has to be a string or an array of strings",
            ),
            (
                json!({"iss": true}),
                "its claim `iss` is true or false, and has to be a string",
            ),
            (
                json!({"pushwheel": "news"}),
                "its claim `pushwheel` is a string, and has to be an object",
            ),
            (
                json!({"pushwheel": {"subscribe": "news"}}),
                "its claim `pushwheel.subscribe` is a string, and has to be an array of strings",
            ),
            (
                json!({"pushwheel": {"publish": ["a", 7]}}),
                "its claim `pushwheel.publish` is an array of other things, and has to be an \
                 array of strings",
            ),
            (
                json!({"pushwheel": {"subscribe": ["a", "b*c"]}}),
                "its claim `pushwheel.subscribe` lists `b*c`, and a pattern is a channel's name, \
                 as `news`, or the beginning of names and one `*` at its end, as `user.*`",
            ),
            (
                json!({"pushwheel": {"client": ""}}),
                "its claim `pushwheel.client` has to be 1 to 255 bytes without control characters",
            ),
            (
                json!({"pushwheel": {"metadata": ["admin"]}}),
                "its claim `pushwheel.metadata` is an array of strings, and has to be an object",
            ),
            (
                json!({"pushwheel": {"metadata": {"roles": vec!["admin"; 32]}}}),
                "its claim `pushwheel.metadata` is too large, metadata has at most 32 values, and \
                 2048 bytes of names and texts",
            ),
            (
                json!({"pushwheel": {"subscibe": ["news"]}}),
                "its claim `pushwheel` has an unknown field `subscibe` (known are subscribe, \
                 publish, finish, client, metadata)",
            ),
        ] {
            assert_eq!(flaw(claims.clone()), wanted, "{claims}");
        }
    }

    #[test]
    fn null_is_no_claim_and_others_claims_are_no_matter() {
        let null = json!({
            "exp": null, "aud": null, "sub": 7, "subscribe": "news",
            "pushwheel": {"subscribe": null, "client": null, "metadata": null},
        });
        for claims in [null, json!({}), json!({"pushwheel": null})] {
            let read = Claims::read(claims).unwrap();
            assert!(read.exp.is_none() && read.aud.is_none());
            assert!(!read.grant.subscribe.has("news") && read.grant.client.is_none());
        }
    }

    #[test]
    fn an_error_quotes_a_token_shortly_and_without_control_characters() {
        let name = format!("\n\u{1b}[2J\u{202e}`{}", "é".repeat(5000));
        let mut own = Map::new();
        own.insert(name.clone(), json!([]));
        for claims in [
            json!({ "pushwheel": own }),
            json!({"pushwheel": {"publish": [format!("{name}*x")]}}),
        ] {
            let text = flaw(claims);
            assert!(text.contains("`\\n\\u{1b}[2J\\u{202e}`éé"), "{text}");
            assert!(text.contains("éé...`") && text.len() < 400, "{text}");
            assert!(!text.chars().any(char::is_control), "{text}");
        }
    }
}
