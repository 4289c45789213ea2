//! Events and audiences as bytes.
//!
//! ```text
//! event    := flags · own id (text, its digest as 8 bytes)? · key? · body
//! audience := kind · number of ids · id*  |  kind · number of conditions · condition*
//! ```
//!
//! The body of an event is its frame without the id's line, which is made again when the
//! event is read. What compressed streams receive is not kept either.

use std::sync::Arc;

use super::bytes::{Damaged, Input, ensure, put_number, put_text};
use crate::event::{KEY_BYTES_MAX, check_id};
use crate::frame::Frame;
use crate::hub::audience::{Audience, Choice, Condition};
use crate::hub::client::ClientId;
use crate::hub::entry::Attributes;
use crate::hub::ready::Ready;
use crate::hub::remembered::OwnId;

const HAS_OWN_ID: u8 = 1;
const HAS_KEY: u8 = 2;
const REMOVES: u8 = 16;

/// The kinds of an audience.
const ALL: u8 = 0;
const NAMED: u8 = 1;
const GENERATED: u8 = 2;
const FILTERED: u8 = 3;
const EXCEPT: u8 = 4;
const WHERE: u8 = 5;

/// Appends an event that the hub gives an id, or that has its publisher's.
pub(super) fn put_event(out: &mut Vec<u8>, event: &Ready) {
    debug_assert!(event.is_sequenced, "events of private channels stay here");
    let attributes = event.attributes.as_deref();
    let own_id = attributes.and_then(|attributes| attributes.own_id.as_ref());
    let key = attributes.and_then(|attributes| attributes.key.as_ref());
    let mut flags = 0;
    for (flag, is_set) in [
        (HAS_OWN_ID, own_id.is_some()),
        (HAS_KEY, key.is_some()),
        (REMOVES, event.removes),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    out.push(flags);
    if let Some(own_id) = own_id {
        put_text(out, &own_id.text);
        out.extend_from_slice(&own_id.digest.to_le_bytes());
    }
    if let Some(key) = key {
        put_text(out, key);
    }
    let [before, after] = event.frame.body(own_id.map(|id| &*id.text));
    put_number(out, (before.len() + after.len()) as u64);
    out.extend_from_slice(before);
    out.extend_from_slice(after);
}

/// Reads an event, with room for an id that begins with `id_prefix`.
pub(super) fn event(input: &mut Input<'_>, id_prefix: &str) -> Result<Ready, Damaged> {
    let flags = input.byte()?;
    let known = HAS_OWN_ID | HAS_KEY | REMOVES;
    ensure(flags & !known == 0, "an event has something unknown")?;
    let mut attributes = Attributes::default();
    if flags & HAS_OWN_ID != 0 {
        let text = input.text()?;
        ensure(check_id(text).is_ok(), "no event has such an id")?;
        attributes.own_id = Some(OwnId {
            text: text.into(),
            digest: u64::from_le_bytes(input.array()?),
            is_doubtful: false,
        });
    }
    if flags & HAS_KEY != 0 {
        let key = input.text()?;
        let is_key = (1..=KEY_BYTES_MAX).contains(&key.len());
        ensure(is_key, "no event has such a key")?;
        attributes.key = Some(key.into());
    }
    let own_id = attributes.own_id.as_ref().map(|id| &*id.text);
    let frame = Frame::from_body(input.sized()?, own_id, id_prefix);
    Ok(Ready {
        frame: frame.ok_or(Damaged("an event is not one event"))?,
        is_sequenced: true,
        removes: flags & REMOVES != 0,
        attributes: (!attributes.is_empty()).then(|| Box::new(attributes)),
    })
}

/// The least bytes of an event: its flags, the length of its body, and a body.
pub(super) const EVENT_BYTES_MIN: usize = 2 + b"data: \n\n".len();

/// Returns at least the bytes that an event takes.
pub(super) fn event_bytes(event: &Ready) -> usize {
    let attributes = event.attributes.as_deref();
    let own_id = attributes.and_then(|attributes| attributes.own_id.as_ref());
    let key = attributes.and_then(|attributes| attributes.key.as_ref());
    // The line of an own id is in the frame, which makes up for its text.
    let lengths = 16;
    event.frame.len() + own_id.map_or(0, |_| 8) + key.map_or(0, |key| key.len()) + lengths
}

/// Appends the clients that events are for; `None`: all.
pub(crate) fn put_audience(out: &mut Vec<u8>, audience: Option<&Audience>) {
    let (kind, ids) = match audience {
        None => return out.push(ALL),
        Some(Audience::Where(conditions)) => {
            out.push(WHERE);
            put_number(out, conditions.len() as u64);
            for condition in conditions {
                put_text(out, condition.field());
                put_text(out, condition.value());
                out.push(u8::from(condition.is_negated()));
            }
            return;
        }
        Some(Audience::Clients { ids, choice }) => match choice {
            Choice::Named => (NAMED, ids),
            Choice::Generated => (GENERATED, ids),
            Choice::Filtered => (FILTERED, ids),
        },
        Some(Audience::Except(ids)) => (EXCEPT, ids),
    };
    out.push(kind);
    put_number(out, ids.len() as u64);
    for id in ids {
        put_text(out, &id.to_string());
    }
}

/// Reads the clients that events are for; `None`: all.
pub(crate) fn audience(input: &mut Input<'_>) -> Result<Option<Arc<Audience>>, Damaged> {
    let audience = match input.byte()? {
        ALL => return Ok(None),
        WHERE => {
            let mut conditions = Vec::new();
            for _ in 0..input.count(3)? {
                let (field, value) = (input.text()?, input.text()?);
                conditions.push(match input.flag()? {
                    true => Condition::not(field, value),
                    false => Condition::new(field, value),
                });
            }
            Audience::Where(conditions.into())
        }
        NAMED => Audience::clients(ids(input)?, Choice::Named),
        GENERATED => Audience::clients(ids(input)?, Choice::Generated),
        FILTERED => Audience::clients(ids(input)?, Choice::Filtered),
        EXCEPT => Audience::except(ids(input)?),
        _ => return Err(Damaged("an audience is of an unknown kind")),
    };
    Ok(Some(Arc::new(audience)))
}

/// Reads ids of clients. An event may have been for an impossible client.
fn ids(input: &mut Input<'_>) -> Result<Vec<ClientId>, Damaged> {
    let count = input.count(1)?;
    (0..count)
        .map(|_| input.text().map(ClientId::lookup))
        .collect()
}

/// Returns at least the bytes that an audience takes.
pub(super) fn audience_bytes(audience: Option<&Audience>) -> usize {
    // A UUID has 16 bytes in place and 36 as text; a length takes up to 10.
    let count = match audience {
        None => return 1,
        Some(Audience::Clients { ids, .. } | Audience::Except(ids)) => ids.len(),
        Some(Audience::Where(conditions)) => conditions.len(),
    };
    audience.map_or(0, Audience::bytes) + 46 * count + 11
}
