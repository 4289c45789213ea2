//! Patterns of channel names.

use std::fmt;
use std::str::FromStr;

use pushwheel::ChannelManager;

/// A channel's name, or the beginning of names followed by `*`.
///
/// ```
/// use pushwheel_server::Pattern;
///
/// let users: Pattern = "user.*".parse()?;
/// assert!(users.matches("user.7") && !users.matches("users"));
/// let all: Pattern = "*".parse()?;
/// assert!(all.matches("news"));
/// # Ok::<(), pushwheel_server::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// The whole name, or the beginning.
    text: Box<str>,
    is_prefix: bool,
}

/// A text that is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternError;

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a pattern is a channel's name, as `news`, or the beginning of names and one `*` \
             at its end, as `user.*`",
        )
    }
}

impl std::error::Error for PatternError {}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        let (beginning, is_prefix) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        let is_all = is_prefix && beginning.is_empty();
        let is_name = ChannelManager::check_name(beginning).is_ok() && !beginning.contains('*');
        match is_all || is_name {
            true => Ok(Pattern {
                text: beginning.into(),
                is_prefix,
            }),
            false => Err(PatternError),
        }
    }
}

impl Pattern {
    /// Whether the name of a channel matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.is_prefix {
            true => name.starts_with(&*self.text),
            false => *self.text == *name,
        }
    }

    /// Returns the pattern that every name matches.
    pub(super) fn all() -> Pattern {
        Pattern {
            text: Box::default(),
            is_prefix: true,
        }
    }

    /// Whether every name that matches `other` matches this pattern too.
    #[must_use]
    pub fn covers(&self, other: &Pattern) -> bool {
        match other.is_prefix {
            true => self.is_prefix && other.text.starts_with(&*self.text),
            false => self.matches(&other.text),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.is_prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        for (pattern, name, is_meant) in [
            ("news", "news", true),
            ("news", "news.de", false),
            ("news*", "news", true),
            ("news.*", "news", false),
            ("news.*", "news.de", true),
            ("*", "anything", true),
        ] {
            let parsed: Pattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(name), is_meant, "{pattern} {name}");
            assert_eq!(parsed.to_string(), pattern);
        }
        for bad in ["", "a*b", "**", "a**", "a/b", "a\n", "a/*"] {
            assert_eq!(bad.parse::<Pattern>(), Err(PatternError), "{bad:?}");
        }
    }
}
