//! What to do about a file that cannot be used.

use std::io::{Error, ErrorKind};

/// Returns what to do about the error; the text follows the error's own.
#[must_use]
pub fn advice(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "check the path, and make what is missing of its directories",
        ErrorKind::PermissionDenied => "give the user that runs this the right to it",
        ErrorKind::IsADirectory => "name a file in it",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "a part of the path is a file: choose another"
        }
        ErrorKind::InvalidData => "save it as UTF-8",
        ErrorKind::ReadOnlyFilesystem => "choose a place that can be written to",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room, or choose another place",
        _ => "choose another file",
    }
}

/// Returns the same for a file that has to exist.
#[must_use]
pub fn advice_to_read(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file, check the path",
        _ => advice(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_a_missing_file_are_told_apart() {
        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_err();
        let directory = std::env::temp_dir();
        assert_eq!(advice(&read(&directory)), "name a file in it");
        let nowhere = directory.join("pushwheel-nowhere/x");
        assert!(advice(&read(&nowhere)).starts_with("check the path"));
        assert!(advice_to_read(&read(&nowhere)).starts_with("there is no such file"));
        assert_eq!(advice_to_read(&read(&directory)), "name a file in it");
    }
}
