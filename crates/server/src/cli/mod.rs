//! The subcommands. Each `run` returns an error message for the command line's user.

pub(crate) mod config;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod journal;
pub(crate) mod log;
pub(crate) mod manual;
pub(crate) mod publish;
pub(crate) mod serve;
pub(crate) mod settings;
pub(crate) mod sub;
pub(crate) mod token;
pub(crate) mod usage;
pub(crate) mod words;

pub(crate) use pushwheel_check::command::{Failure, Secret};
pub(crate) use pushwheel_check::files;
