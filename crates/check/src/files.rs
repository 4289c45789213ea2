//! Errors of files, and how to fix them.

use std::io::{Error, ErrorKind};

/// Returns the cause and the fix of an error: `(cause). Fix`.
#[must_use]
pub fn reason(error: &Error) -> String {
    let fix = match error.kind() {
        ErrorKind::NotFound => "Check the path, and create missing directories",
        ErrorKind::PermissionDenied => "Allow the user of this process to access it",
        ErrorKind::IsADirectory => "Use a file in it",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "Choose another path: a part of this one is a file"
        }
        ErrorKind::InvalidData => "Save it as UTF-8",
        ErrorKind::ReadOnlyFilesystem => "Choose a writable path",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "Free space, or choose another path",
        _ => "Choose another file",
    };
    format!("({}). {fix}", cause(error))
}

/// Returns the same for a file that has to exist.
#[must_use]
pub fn reason_to_read(error: &Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("({}). Check the path", cause(error)),
        _ => reason(error),
    }
}

/// Returns the text of an error without its number.
fn cause(error: &Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((cause, _)) => cause.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_a_missing_file_have_different_fixes() {
        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_err();
        let directory = read(&std::env::temp_dir());
        let missing = read(&std::env::temp_dir().join("pushwheel-nowhere/x"));
        assert!(reason(&directory).ends_with("). Use a file in it"));
        assert!(reason_to_read(&directory).ends_with("). Use a file in it"));
        assert!(reason(&missing).ends_with("create missing directories"));
        let wanted = "(No such file or directory). Check the path";
        assert_eq!(reason_to_read(&missing), wanted);
    }
}
