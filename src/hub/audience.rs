//! For whom an entry of the log is, when it is not for everybody.

use std::borrow::Cow;

use serde_json::Value;

use super::client::{CLIENT_ID_BYTES_MAX, ClientId};

/// A condition on a client's metadata: the field `field` is `value`.
///
/// A field that holds a JSON string matches its text, any other JSON value
/// matches its compact spelling (`42`, `true`, `null`), so that conditions
/// can come from a URL. Of a field that holds an array, one element that
/// matches is enough.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The name of the field.
    pub field: String,
    /// The text it has to have.
    pub value: String,
}

impl Condition {
    /// The condition that `field` is `value`.
    pub fn new(field: impl Into<String>, value: impl Into<String>) -> Condition {
        Condition {
            field: field.into(),
            value: value.into(),
        }
    }

    /// Whether `metadata` meets the condition.
    #[must_use]
    pub fn matches(&self, metadata: &Value) -> bool {
        metadata
            .get(&self.field)
            .is_some_and(|value| is_or_has(value, &self.value))
    }
}

fn is_or_has(value: &Value, text: &str) -> bool {
    match value {
        Value::Array(elements) => elements.iter().any(|element| is_or_has(element, text)),
        other => text_of(other).is_some_and(|own| own == text),
    }
}

/// All texts that a condition on `value` could have.
pub(crate) fn texts_of(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Array(elements) => elements.iter().for_each(|e| texts_of(e, texts)),
        other => texts.extend(text_of(other).map(Cow::into_owned)),
    }
}

/// The text by which a condition would name a simple value.
fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(string) => Some(string.into()),
        Value::Array(_) | Value::Object(_) => None,
        simple => Some(simple.to_string().into()),
    }
}

/// The clients that an entry is for.
///
/// It is kept with the entry, so that a client which comes back is sent what
/// was for it, and nothing that was for others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Audience {
    /// These, each once and in ascending order.
    Clients(Box<[ClientId]>),
    /// Whoever's metadata meets all of these.
    Where(Box<[Condition]>),
}

impl Audience {
    /// Those of these ids. One that is longer than any client's is nobody's, and
    /// is not kept.
    pub(crate) fn clients(mut ids: Vec<ClientId>) -> Audience {
        ids.retain(|id| id.text_bytes() <= CLIENT_ID_BYTES_MAX);
        ids.sort_unstable();
        ids.dedup();
        Audience::Clients(ids.into_boxed_slice())
    }

    pub(crate) fn admits(&self, id: &ClientId, metadata: Option<&Value>) -> bool {
        match self {
            Audience::Clients(ids) => ids.binary_search(id).is_ok(),
            Audience::Where(conditions) => meets(conditions, metadata),
        }
    }

    /// What the audience adds to the memory of its entries, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Audience::Clients(ids) => ids
                .iter()
                .map(|id| size_of::<ClientId>() + id.text_bytes())
                .sum(),
            Audience::Where(conditions) => conditions
                .iter()
                .map(|c| size_of::<Condition>() + c.field.len() + c.value.len())
                .sum(),
        }
    }
}

/// Whether `metadata` meets all of `conditions`.
pub(crate) fn meets(conditions: &[Condition], metadata: Option<&Value>) -> bool {
    conditions
        .iter()
        .all(|condition| metadata.is_some_and(|metadata| condition.matches(metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_compare_texts_as_a_url_spells_them() {
        let metadata = json!({"role": "admin", "user": 42, "vip": true, "tags": ["a", 7]});
        for (field, value, expected) in [
            ("role", "admin", true),
            ("role", "user", false),
            ("user", "42", true),
            ("vip", "true", true),
            ("tags", "7", true),
            ("tags", "b", false),
            ("absent", "null", false),
        ] {
            let condition = Condition::new(field, value);
            assert_eq!(condition.matches(&metadata), expected, "{condition:?}");
        }
    }

    #[test]
    fn an_audience_admits_its_own() {
        let id = |text| ClientId::new(text).unwrap();
        let some = Audience::clients(vec![id("b"), id("a")]);
        assert!(some.admits(&id("a"), None));
        assert!(!some.admits(&id("c"), None));
        let admins = Audience::Where([Condition::new("role", "admin")].into());
        assert!(admins.admits(&id("x"), Some(&json!({"role": "admin"}))));
        assert!(!admins.admits(&id("x"), None));
    }

    #[test]
    fn an_audience_weighs_what_its_ids_do_and_keeps_none_that_nobody_can_have() {
        let text = |bytes: usize| ClientId::lookup(&"x".repeat(bytes));
        let [short, long, longer] = [1, CLIENT_ID_BYTES_MAX, CLIENT_ID_BYTES_MAX + 1].map(text);
        let of = |ids: &[&ClientId]| Audience::clients(ids.iter().copied().cloned().collect());
        let difference = of(&[&long]).bytes() - of(&[&short]).bytes();
        assert_eq!(difference, CLIENT_ID_BYTES_MAX - 1);
        assert_eq!(of(&[&longer]).bytes(), 0);
        assert_eq!(of(&[&short, &longer, &short]), of(&[&short]));
    }
}
