//! `pushwheel completions` and `pushwheel man`: what packages ship beside the
//! program, made from the command line's own definition.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Failure, files};

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where the pages go; it is made if it is not there.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

pub(crate) fn completions(arguments: &Completions, mut command: Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "pushwheel", &mut text);
    let mut out = io::stdout().lock();
    let written = out.write_all(&text).and_then(|()| out.flush());
    written.map_err(|error| format!("cannot print: {error}"))
}

pub(crate) fn man(arguments: &Man, command: Command) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let written =
        fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
    written.map_err(|error| {
        let advice = files::advice(&error);
        format!("cannot write to {}: {error}: {advice}", directory.display())
    })
}
