//! What a request demands of its publish: an idempotency key, a condition, and the end of
//! the channel.

use super::events::Events;
use super::parameters::Parameters;
use crate::context::{Context, CurrentConfig};
use crate::errors::Problem;
use pushwheel::{EventId, IdempotencyKey, PublishOptions, Request, Target};

/// Maximum bytes of an idempotency key.
const KEY_BYTES_MAX: usize = 255;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Demands {
    pub(super) key: Option<IdempotencyKey>,
    newest: Option<EventId>,
    finishes: bool,
}

impl Demands {
    pub(super) fn of(
        request: &Request,
        context: &Context,
        config: &CurrentConfig,
        parameters: &Parameters<'_>,
        events: &Events<'_>,
    ) -> Result<Demands, Problem> {
        let channel = request.param("channel");
        if parameters.finishes {
            config
                .access
                .check_finish(request, channel.unwrap_or_default(), &context.access)?;
        }
        let headers = DemandHeaders::of(request);
        let key = match (headers.key()?, &events.idempotency_key) {
            (Some(_), Some(_)) => return Err(Problem::two_idempotency_keys()),
            (Some(key), None) => Some(key),
            (None, Some(key)) => Some(checked_key(key.as_bytes())?),
            (None, None) => None,
        };
        let key = match key {
            Some(key) => Some(
                config
                    .access
                    .idempotency_key(request, key, &context.access)?,
            ),
            None => None,
        };
        let newest = headers.newest()?;
        if channel.is_none() && newest.is_some() {
            return Err(Problem::demand_of_all());
        }
        Ok(Demands {
            key,
            newest,
            finishes: parameters.finishes,
        })
    }

    /// Returns the options of a publish, or `None` if there are no demands.
    pub(super) fn options(self, target: &Target) -> Option<PublishOptions> {
        let Demands {
            key,
            newest,
            finishes,
        } = self;
        if key.is_none() && newest.is_none() && !finishes {
            return None;
        }
        let mut options = PublishOptions::new().target(target.clone());
        if let Some(key) = key {
            options = options.idempotency_key(key);
        }
        if let Some(id) = newest {
            options = options.if_newest(id);
        }
        if finishes {
            options = options.finishing();
        }
        Some(options)
    }
}

/// The headers with demands.
#[derive(Default)]
pub(super) struct DemandHeaders<'a> {
    key: Option<&'a [u8]>,
    if_match: Option<&'a [u8]>,
}

impl<'a> DemandHeaders<'a> {
    /// Finds them with one look at each header: most requests have none.
    pub(super) fn of(request: &'a Request) -> DemandHeaders<'a> {
        const KEY: &str = "idempotency-key";
        const IF_MATCH: &str = "if-match";
        let mut found = DemandHeaders::default();
        for (name, value) in request.headers() {
            match name.len() {
                15 if name.eq_ignore_ascii_case(KEY) => found.key = Some(value),
                8 if name.eq_ignore_ascii_case(IF_MATCH) => found.if_match = Some(value),
                _ => {}
            }
        }
        found
    }

    /// Returns the key, which is a string in quotes or without them.
    pub(super) fn key(&self) -> Result<Option<&'a str>, Problem> {
        let Some(value) = self.key else {
            return Ok(None);
        };
        let value = value.trim_ascii();
        checked_key(unquoted(value).unwrap_or(value)).map(Some)
    }

    pub(super) fn has_if_match(&self) -> bool {
        self.if_match.is_some()
    }

    /// Returns the id of the event that has to be the newest.
    fn newest(&self) -> Result<Option<EventId>, Problem> {
        let Some(value) = self.if_match else {
            return Ok(None);
        };
        let id = unquoted(value.trim_ascii())
            .and_then(|id| str::from_utf8(id).ok())
            .filter(|id| !id.contains('"'))
            .ok_or_else(Problem::if_match)?;
        id.parse().map(Some).map_err(|_| Problem::if_match())
    }
}

/// Checks that a key is 1 to 255 visible ASCII characters, other than quotes.
pub(super) fn checked_key(key: &[u8]) -> Result<&str, Problem> {
    let is_key_byte = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"';
    // Without an early end the compiler checks many bytes at a time.
    let are_all = || key.iter().fold(true, |all, byte| all & is_key_byte(*byte));
    let is_key = (1..=KEY_BYTES_MAX).contains(&key.len()) && are_all();
    let key = str::from_utf8(key).ok().filter(|_| is_key);
    key.ok_or_else(Problem::idempotency_key)
}

/// Returns what is between the quotes of a string, if it has them.
fn unquoted(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        for key in ["8e03978e-40d5-43e8-bc93-6894a57f9324", "order 17", &longest] {
            assert_eq!(checked_key(key.as_bytes()), Ok(key));
        }
        let longer = "k".repeat(KEY_BYTES_MAX + 1);
        for key in ["", "a\"b", "caf\u{e9}", "a\tb", &longer] {
            let refused = Err(Problem::idempotency_key());
            assert_eq!(checked_key(key.as_bytes()), refused, "{key}");
        }
    }
}
