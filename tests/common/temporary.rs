//! A directory of a journal in a test, and what a killed process leaves of it.

use std::fs;
use std::path::PathBuf;

/// A directory of this test, which is removed with it.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Temporary {
    pub(crate) fn new(name: &str) -> Temporary {
        let name = format!("pushwheel-journal-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Temporary(path)
    }

    /// The files as a process leaves them that is killed now.
    pub(crate) fn killed(&self, name: &str) -> Temporary {
        let copy = Temporary::new(name);
        fs::create_dir(&copy.0).unwrap();
        for file in fs::read_dir(&self.0).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.0.join(file.file_name())).unwrap();
        }
        copy
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
