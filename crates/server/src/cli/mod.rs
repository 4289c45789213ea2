//! The subcommands. Each `run` returns why it failed, as a text for the user of the
//! command line.

pub(crate) mod generate;
pub(crate) mod log;
pub(crate) mod mistake;
pub(crate) mod publish;
pub(crate) mod serve;
pub(crate) mod settings;
pub(crate) mod sub;
pub(crate) mod words;

pub(crate) use pushwheel_check::command::{Failure, Secret};
pub(crate) use pushwheel_check::files;
