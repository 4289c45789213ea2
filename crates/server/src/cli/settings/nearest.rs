//! Suggestions for misspelled names.

/// The minimum similarity (Jaro-Winkler) between a misspelled name and a suggestion.
const LIKENESS: f64 = 0.8;

/// Returns the name that a misspelled one probably means: the only one that begins or
/// ends with its words, or else the most similar one.
pub(super) fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let has_words = |other: &&str| {
        let rest = other.strip_prefix(name).map(|rest| rest.starts_with('_'));
        let start = other.strip_suffix(name).map(|start| start.ends_with('_'));
        rest == Some(true) || start == Some(true)
    };
    let mut longer = names.iter().copied().filter(has_words);
    if let (Some(only), None) = (longer.next(), longer.next()) {
        return Some(only);
    }
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    let best = names
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= LIKENESS).then_some(best)
}
