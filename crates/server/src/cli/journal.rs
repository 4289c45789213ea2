//! `pushwheel journal`: the journal of a server, without the server.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pushwheel::{ChannelManager, JournalReport};
use pushwheel_server::Config;

use super::{Failure, files};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report what a journal has and whether it is damaged
    ///
    /// Reads every event and changes nothing. A server may use the journal meanwhile: what
    /// it writes at that moment may be reported as incomplete.
    Check(Check),
    /// Make a journal from a saved state
    ///
    /// A server on the journal goes on where the one on the state has ended: ids go on, and
    /// clients resume. FILE stays as it is. Do not start a server with it afterwards.
    Import(Import),
    /// Prepare a restored copy of a journal for a server
    ///
    /// The ids of events that the copy does not have are not used again, and clients that
    /// have seen such events receive an event `pushwheel.gap`.
    Restored(Restored),
}

#[derive(Debug, Args)]
struct Check {
    /// Directory of the journal
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Args)]
struct Import {
    /// File of --state of a server that has ended
    #[arg(long, value_name = "FILE")]
    state: PathBuf,

    /// Directory of the new journal: empty, or created
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Args)]
struct Restored {
    /// Directory of the restored journal
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Check(check) => {
            let report =
                JournalReport::read(&check.directory).map_err(|error| error.to_string())?;
            let printed = print(&report, &mut io::stdout().lock());
            printed.map_err(|error| format!("cannot print ({error})"))
        }
        Command::Import(import) => import.run(),
        Command::Restored(restored) => {
            let prepared = ChannelManager::prepare_journal_copy(&restored.directory);
            prepared.map_err(|error| error.to_string())
        }
    }
}

impl Import {
    fn run(&self) -> Result<(), Failure> {
        let (state, directory) = (self.state.display(), self.directory.display());
        let file = File::open(&self.state);
        let file = file.map_err(|error| {
            let reason = files::reason_to_read(&error);
            format!("cannot read --state {state} {reason}")
        })?;
        // Any state is accepted: what the channels keep is for the server to decide.
        let any = Config::new().channels_max(usize::MAX);
        any.import_journal(&self.directory, file)
            .map_err(|error| format!("cannot import {state} into {directory}: {error}"))
    }
}

fn print(report: &JournalReport, out: &mut impl Write) -> io::Result<()> {
    let state = match report {
        JournalReport {
            is_in_use: true, ..
        } => "a server uses it",
        JournalReport {
            is_closed: true, ..
        } => "closed",
        _ => "not closed: the server was killed, or the machine has died",
    };
    writeln!(out, "state      {state}")?;
    if let Some(snapshot) = &report.snapshot {
        let (path, at, bytes) = (snapshot.path.display(), snapshot.at, snapshot.bytes);
        writeln!(out, "snapshot   {path}: through number {at}, {bytes} bytes")?;
    }
    for segment in &report.segments {
        let (path, first) = (segment.path.display(), segment.first);
        let (blocks, bytes) = (segment.blocks, segment.bytes);
        writeln!(
            out,
            "log        {path}: from number {first}, {blocks} blocks, {bytes} bytes"
        )?;
    }
    let (blocks, records, newest) = (report.blocks, report.records, report.newest);
    writeln!(
        out,
        "total      {blocks} blocks, {records} records, newest number {newest}"
    )?;
    if let Some(torn) = &report.torn {
        let (path, offset, bytes) = (torn.path.display(), torn.offset, torn.bytes);
        let what = torn.what;
        writeln!(
            out,
            "incomplete {path}: {bytes} bytes from byte {offset} on ({what}). They were not \
             acknowledged, and the next start cuts them off"
        )?;
    }
    out.flush()
}
