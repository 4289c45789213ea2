//! The clients that an entry of a log is for, when it is not for all clients.

use std::borrow::Cow;

use serde_json::Value;

use super::client::{CLIENT_ID_BYTES_MAX, ClientId};

/// A condition on a client's metadata: a field has a value, or does not have it.
///
/// A field that holds a JSON string is compared by its text, any other JSON value
/// by its compact spelling (`42`, `true`, `null`), so that conditions can come
/// from a URL. An array has each value that one of its elements has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    field: String,
    value: String,
    is_negated: bool,
}

impl Condition {
    /// Returns the condition that `field` has the value `value`.
    pub fn new(field: impl Into<String>, value: impl Into<String>) -> Condition {
        Condition {
            field: field.into(),
            value: value.into(),
            is_negated: false,
        }
    }

    /// Returns the condition that `field` does not have the value `value`. A
    /// client without the field meets it, and so does a client without metadata.
    ///
    /// ```
    /// use pushwheel::Condition;
    /// use serde_json::json;
    ///
    /// let others = Condition::not("user", "7");
    /// assert!(others.matches(&json!({"user": 8})));
    /// assert!(others.matches(&json!(null)));
    /// assert!(!others.matches(&json!({"user": 7})));
    /// ```
    pub fn not(field: impl Into<String>, value: impl Into<String>) -> Condition {
        Condition {
            is_negated: true,
            ..Condition::new(field, value)
        }
    }

    /// Returns the name of the field.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Returns the text that the field is compared with.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns whether the field must not have the value.
    #[must_use]
    pub fn is_negated(&self) -> bool {
        self.is_negated
    }

    /// Returns whether `metadata` meets the condition.
    #[must_use]
    pub fn matches(&self, metadata: &Value) -> bool {
        let has_value = metadata
            .get(&self.field)
            .is_some_and(|value| is_or_has(value, &self.value));
        has_value != self.is_negated
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
    Clients {
        ids: Box<[ClientId]>,
        choice: Choice,
    },
    /// All but these.
    Except(Box<[ClientId]>),
    /// The clients whose metadata meets all of these.
    Where(Box<[Condition]>),
}

/// How the ids of an audience were chosen. It decides which clients that come
/// back may have been meant although their ids are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Choice {
    /// By the publisher, which knows under which id its client comes back.
    Named,
    /// The same, but the engine generated the id of a client that was connected.
    /// That client comes back under another generated id.
    Generated,
    /// By a filter, which was not asked about clients that were away.
    Filtered,
}

impl Choice {
    pub(crate) const ALL: [Choice; 3] = [Choice::Named, Choice::Generated, Choice::Filtered];
}

impl Audience {
    /// Returns the audience of these ids. One that is longer than any client's
    /// is left out.
    pub(crate) fn clients(ids: Vec<ClientId>, choice: Choice) -> Audience {
        let ids = sorted(ids);
        Audience::Clients { ids, choice }
    }

    /// Returns the audience of all clients but those of these ids.
    pub(crate) fn except(ids: Vec<ClientId>) -> Audience {
        Audience::Except(sorted(ids))
    }

    /// Returns how its ids were chosen, if it consists of the clients with some ids.
    pub(crate) fn choice(&self) -> Option<Choice> {
        match self {
            Audience::Clients { choice, .. } => Some(*choice),
            Audience::Except(_) | Audience::Where(_) => None,
        }
    }

    /// Returns the clients alone, without how they were chosen: two audiences are
    /// for the same clients if these are equal.
    pub(crate) fn clients_meant(&self) -> (u8, &[ClientId], &[Condition]) {
        match self {
            Audience::Clients { ids, .. } => (0, ids, &[]),
            Audience::Except(ids) => (1, ids, &[]),
            Audience::Where(conditions) => (2, &[], conditions),
        }
    }

    pub(crate) fn admits(&self, id: &ClientId, metadata: Option<&Value>) -> bool {
        match self {
            Audience::Clients { ids, .. } => ids.binary_search(id).is_ok(),
            Audience::Except(ids) => ids.binary_search(id).is_err(),
            Audience::Where(conditions) => meets(conditions, metadata),
        }
    }

    /// Returns whether a client that comes back, and that the audience does not
    /// admit, may have been meant all the same.
    pub(crate) fn may_have_meant(&self, has_generated_id: bool) -> bool {
        match self {
            Audience::Clients { choice, .. } => match choice {
                Choice::Named => false,
                Choice::Generated => has_generated_id,
                Choice::Filtered => true,
            },
            Audience::Except(_) | Audience::Where(_) => false,
        }
    }

    /// Returns the parts of a digest by which targets of publishers differ. The choice
    /// of a filter is left out, because it chooses other clients the next time.
    pub(crate) fn parts(&self) -> Vec<Vec<u8>> {
        let texts = |ids: &[ClientId]| ids.iter().map(|id| id.to_string().into_bytes()).collect();
        let (kind, mut parts): (&[u8], Vec<Vec<u8>>) = match self {
            Audience::Clients {
                choice: Choice::Filtered,
                ..
            } => (b"filter", Vec::new()),
            Audience::Clients { ids, .. } => (b"clients", texts(ids)),
            Audience::Except(ids) => (b"except", texts(ids)),
            Audience::Where(conditions) => {
                let text = |c: &Condition| {
                    let operator = if c.is_negated { "!=" } else { "=" };
                    [c.field.clone(), operator.to_owned(), c.value.clone()].map(String::into_bytes)
                };
                (b"where", conditions.iter().flat_map(text).collect())
            }
        };
        parts.push(kind.to_vec());
        parts
    }

    /// Returns what the audience adds to the memory of its entries, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Audience::Clients { ids, .. } | Audience::Except(ids) => ids
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

/// The ids that a client can have, each once and in ascending order.
fn sorted(mut ids: Vec<ClientId>) -> Box<[ClientId]> {
    ids.retain(|id| id.text_bytes() <= CLIENT_ID_BYTES_MAX);
    ids.sort_unstable();
    ids.dedup();
    ids.into_boxed_slice()
}

/// Returns whether `metadata` meets all of `conditions`.
pub(crate) fn meets(conditions: &[Condition], metadata: Option<&Value>) -> bool {
    let metadata = metadata.unwrap_or(&Value::Null);
    conditions
        .iter()
        .all(|condition| condition.matches(metadata))
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
            let negated = Condition::not(field, value);
            assert_eq!(negated.matches(&metadata), !expected, "{negated:?}");
        }
    }

    #[test]
    fn an_audience_admits_its_own() {
        let id = |text| ClientId::new(text).unwrap();
        let some = Audience::clients(vec![id("b"), id("a")], Choice::Named);
        assert!(some.admits(&id("a"), None));
        assert!(!some.admits(&id("c"), None));
        let admins = Audience::Where([Condition::new("role", "admin")].into());
        assert!(admins.admits(&id("x"), Some(&json!({"role": "admin"}))));
        assert!(!admins.admits(&id("x"), None));
        let others = Audience::Where([Condition::not("role", "admin")].into());
        assert!(!others.admits(&id("x"), Some(&json!({"role": "admin"}))));
        assert!(others.admits(&id("x"), Some(&json!({"role": "user"}))));
        assert!(others.admits(&id("x"), None));
        let all_but_ann = Audience::except(vec![id("ann")]);
        assert!(!all_but_ann.admits(&id("ann"), None));
        assert!(all_but_ann.admits(&id("bob"), None));
    }

    #[test]
    fn an_audience_weighs_what_its_ids_do_and_keeps_none_that_no_client_can_have() {
        let text = |bytes: usize| ClientId::lookup(&"x".repeat(bytes));
        let [short, long, longer] = [1, CLIENT_ID_BYTES_MAX, CLIENT_ID_BYTES_MAX + 1].map(text);
        let of = |ids: &[&ClientId]| {
            let ids = ids.iter().copied().cloned();
            Audience::clients(ids.collect(), Choice::Named)
        };
        let difference = of(&[&long]).bytes() - of(&[&short]).bytes();
        assert_eq!(difference, CLIENT_ID_BYTES_MAX - 1);
        assert_eq!(of(&[&longer]).bytes(), 0);
        assert_eq!(of(&[&short, &longer, &short]), of(&[&short]));
    }
}
