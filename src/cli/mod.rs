//! What the subcommands do. Each `run` answers why it failed, in words for
//! whoever typed the command.

mod http;
pub(crate) mod publish;
pub(crate) mod serve;
mod stream;
pub(crate) mod sub;

/// Why a command failed; `main` prints it.
pub(crate) type Failure = String;
