//! Starts a measured server. A process of this program pins itself to a core, asks the
//! kernel to kill it when the bench ends, and becomes the server. This avoids `unsafe`
//! code between fork and exec.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{self, Command};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Result, fault};

/// The arguments of the hidden command `measured`.
#[derive(Debug, clap::Args)]
pub struct Measured {
    /// The process whose end also ends the server.
    #[arg(long)]
    parent: u32,
    /// Whether it is pinned to a core.
    #[arg(long)]
    pinned: bool,
    #[arg(last = true, required = true, num_args = 1..)]
    command: Vec<OsString>,
}

impl Measured {
    /// Returns the command that starts a server this way, without its arguments.
    pub(super) fn command(server: &Path, pinned: bool) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("measured");
        command.arg(format!("--parent={}", process::id()));
        if pinned {
            command.arg("--pinned");
        }
        command.arg("--").arg(server);
        Ok(command)
    }
}

/// Becomes the server, with the same process id. Returns only on errors.
pub(super) fn start(options: &Measured) -> Result<Infallible> {
    set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)?;
    if options.pinned {
        pin(SERVER_CORE)?;
    }
    // The bench may have ended before the kernel was asked, so this is checked.
    if parent_id() != options.parent {
        return fault("the bench has ended");
    }
    let (server, arguments) = options.command.split_first().expect("one is required");
    let error = Command::new(server).args(arguments).exec();
    fault(format!("cannot start {} ({error})", server.display()))
}

/// Pins this thread, and what it starts, to a core.
fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(THIS_THREAD, &cores)?)
}

/// Pins the load to its core. Returns whether that worked and servers have another core.
pub(super) fn pin_load() -> bool {
    let is_there = |cores: &CpuSet, core| cores.is_set(core).unwrap_or(false);
    let both = sched_getaffinity(THIS_THREAD)
        .is_ok_and(|cores| is_there(&cores, SERVER_CORE) && is_there(&cores, LOAD_CORE));
    both && pin(LOAD_CORE).is_ok()
}

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const THIS_THREAD: Pid = Pid::from_raw(0);
