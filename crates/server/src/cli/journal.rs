//! `pushwheel journal`: the journal of a server, without the server.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pushwheel::JournalReport;

use super::Failure;

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
}

#[derive(Debug, Args)]
struct Check {
    /// Directory of the journal
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
