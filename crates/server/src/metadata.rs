//! Limits the metadata of a client, from the query of a subscriber, a ticket or a token.
//!
//! The server keeps metadata while the client is connected, and a short name takes far more
//! memory than its bytes. So both are bounded: the number of values, and the bytes of their
//! names and texts.

use std::fmt;

use serde_json::{Map, Value};

/// Maximum values, counting each element of an array and each field of a nested
/// object.
const METADATA_VALUES_MAX: usize = 32;
/// Maximum bytes of all names and texts. A number counts as 8.
pub(super) const METADATA_BYTES_MAX: usize = 2 << 10;

/// Metadata beyond one of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MetadataTooLarge;

impl fmt::Display for MetadataTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "metadata has at most {METADATA_VALUES_MAX} values, and {METADATA_BYTES_MAX} bytes of \
             names and texts"
        )
    }
}

/// The room that is left for more metadata.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    values: usize,
    bytes: usize,
}

impl Room {
    pub(super) fn new() -> Room {
        Room {
            values: METADATA_VALUES_MAX,
            bytes: METADATA_BYTES_MAX,
        }
    }

    /// Takes the room of one value, whose name and text have `bytes`.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), MetadataTooLarge> {
        self.values = self.values.checked_sub(1).ok_or(MetadataTooLarge)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(MetadataTooLarge)?;
        Ok(())
    }

    /// Takes the room of a value and of all values in it. Each level is a value, so the
    /// depth is bounded too.
    fn take_all(&mut self, name: &str, value: &Value) -> Result<(), MetadataTooLarge> {
        let text_bytes = match value {
            Value::String(text) => text.len(),
            Value::Number(_) => 8,
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => 0,
        };
        self.take(name.len() + text_bytes)?;
        match value {
            Value::Array(values) => values.iter().try_for_each(|value| self.take_all("", value)),
            Value::Object(fields) => self.take_fields(fields),
            _ => Ok(()),
        }
    }

    fn take_fields(&mut self, fields: &Map<String, Value>) -> Result<(), MetadataTooLarge> {
        let mut fields = fields.iter();
        fields.try_for_each(|(name, value)| self.take_all(name, value))
    }
}

/// Checks metadata as a whole.
///
/// # Errors
/// If the metadata is beyond one of the limits.
pub(super) fn check(metadata: &Map<String, Value>) -> Result<(), MetadataTooLarge> {
    Room::new().take_fields(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn is_fine(metadata: &Value) -> bool {
        check(metadata.as_object().unwrap()).is_ok()
    }

    #[test]
    fn the_last_value_and_the_last_byte_that_fit_are_accepted() {
        let fields = |count: usize| -> Value {
            let fields = (0..count).map(|n| (n.to_string(), json!("")));
            Value::Object(fields.collect())
        };
        assert!(is_fine(&json!({})) && is_fine(&fields(32)) && !is_fine(&fields(33)));
        for (at_limit, beyond) in [
            // The array is a value too.
            (json!({"a": vec![0; 31]}), json!({"a": vec![0; 32]})),
            (json!({"a": fields(31)}), json!({"a": fields(32)})),
            (
                json!({"a": "x".repeat(METADATA_BYTES_MAX - 1)}),
                json!({"a": "x".repeat(METADATA_BYTES_MAX)}),
            ),
            (
                json!({"x".repeat(METADATA_BYTES_MAX): null}),
                json!({"x".repeat(METADATA_BYTES_MAX): {"": "x"}}),
            ),
        ] {
            assert!(is_fine(&at_limit) && !is_fine(&beyond), "{at_limit}");
        }
    }
}
