//! `pushwheel completions` and `pushwheel man`: files for packages, generated from the
//! definition of the command line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::roff::Roff;

use super::manual::Manual;
use super::{Failure, files};

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory for the pages; created if it is missing
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

pub(crate) fn completions(arguments: &Completions, mut command: Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "pushwheel", &mut text);
    let mut out = io::stdout().lock();
    let written = out.write_all(&text).and_then(|()| out.flush());
    written.map_err(|error| format!("cannot print ({error})"))
}

pub(crate) fn man(arguments: &Man, command: Command) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let written = fs::create_dir_all(directory).and_then(|()| write_pages(&command, directory));
    written.map_err(|error| {
        let reason = files::reason(&error);
        format!("cannot write to {} {reason}", directory.display())
    })
}

/// Writes the page of a command, and those of its subcommands.
fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    let subcommands = command.get_subcommands();
    for subcommand in subcommands.filter(|command| !command.is_hide_set()) {
        write_pages(subcommand, directory)?;
    }
    let mut command = command.clone();
    // Instead of a list of all options.
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let has_subcommands = command
        .get_subcommands()
        .any(|command| !command.is_hide_set());
    // As in `token-check`, which is not the page of `check`.
    let name = command.get_display_name().unwrap_or(command.get_name());
    let manual = Manual::of(name.trim_start_matches("pushwheel-"));
    let page = clap_mangen::Man::new(command.override_usage(usage));
    let mut file = fs::File::create(directory.join(page.get_filename()))?;
    page.render_title(&mut file)?;
    page.render_name_section(&mut file)?;
    page.render_synopsis_section(&mut file)?;
    page.render_description_section(&mut file)?;
    page.render_options_section(&mut file)?;
    if has_subcommands {
        page.render_subcommands_section(&mut file)?;
    }
    let mut sections = Roff::new();
    manual.write(&mut sections);
    sections.to_writer(&mut file)?;
    file.flush()
}
