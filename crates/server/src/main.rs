//! The program `pushwheel`, with its subcommands.

mod cli;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use cli::manual;
use cli::settings::environment::without_empty;

/// Push server for Server-Sent Events: subscribe with GET, publish with POST
#[derive(Debug, Parser)]
#[command(name = "pushwheel", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    ///
    /// Each setting is an option, an environment variable and a key of the configuration
    /// file: `--max-channels` is `PUSHWHEEL_MAX_CHANNELS` and `max_channels`.
    Serve(cli::serve::Arguments),
    /// Print or check the settings of the server
    ///
    /// Prints all settings as a configuration file: those that are set, and the others as
    /// comments with their defaults. Accepts every option of `pushwheel serve`.
    Config(cli::config::Arguments),
    /// Subscribe to a channel and print its events
    ///
    /// Reconnects after the first connection, and resumes after the last event.
    Sub(cli::sub::Arguments),
    /// Publish an event to a channel
    Pub(cli::publish::Arguments),
    /// Make a token, or check one
    ///
    /// Signs with HS256. Has the same settings for tokens as `pushwheel serve`: a server
    /// with these settings accepts the token.
    Token(cli::token::Arguments),
    /// Check whether a server is up
    ///
    /// For container images without curl. Prints nothing if the server is up.
    Health(cli::health::Arguments),
    /// Check the journal of a server, or make one from a saved state
    Journal(cli::journal::Arguments),
    /// Examine an event stream, and the proxies in front of it
    ///
    /// Works with the streams of every server. Prints each observation and, for a
    /// problem, how to fix it.
    Check(pushwheel_check::Arguments),
    #[cfg(target_os = "linux")]
    #[command(flatten)]
    Bench(pushwheel_bench::Command),
    /// Print the completions for a shell
    Completions(cli::generate::Completions),
    /// Write the manual pages, one per command, into a directory
    Man(cli::generate::Man),
}

fn main() -> ExitCode {
    cli::log::install();
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let is_short = words.iter().any(|word| word == "-h");
    let definitions = without_empty(manual::add_to(Arguments::command(), is_short));
    let read = definitions.try_get_matches().and_then(|matches| {
        let arguments = Arguments::from_arg_matches(&matches);
        arguments.map_err(|error| error.format(&mut Arguments::command()))
    });
    let command = match read {
        Ok(arguments) => arguments.command,
        Err(error) => cli::usage::explained(error, &words).exit(),
    };
    // The arguments of the subcommand, which `serve` and `config` parse once more.
    let words = words.into_iter().skip(1).collect();
    let done = match command {
        Command::Serve(_) => cli::serve::run(words),
        Command::Config(arguments) => cli::config::run(&arguments, words),
        Command::Sub(arguments) => cli::sub::run(&arguments),
        Command::Pub(arguments) => cli::publish::run(&arguments),
        Command::Token(arguments) => cli::token::run(&arguments),
        Command::Health(arguments) => cli::health::run(&arguments),
        Command::Journal(arguments) => cli::journal::run(&arguments),
        Command::Check(arguments) => return pushwheel_check::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Bench(command) => {
            pushwheel_bench::run(&command).map_err(|fault| fault.to_string())
        }
        Command::Completions(arguments) => {
            cli::generate::completions(&arguments, Arguments::command())
        }
        Command::Man(arguments) => cli::generate::man(&arguments, Arguments::command()),
    };
    log::logger().flush();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Standard error may be closed. The exit code is enough then.
            let _ = writeln!(std::io::stderr(), "pushwheel: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::environment::OTHERS;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_server_knows_the_variables_of_other_subcommands() {
        let mut command = Arguments::command();
        command.build();
        let variables = |name: &str| -> Vec<_> {
            let of = command.find_subcommand(name).expect("it is there");
            of.get_arguments().filter_map(|arg| arg.get_env()).collect()
        };
        let settings = variables("serve");
        for name in command.get_subcommands().map(clap::Command::get_name) {
            for variable in variables(name) {
                let is_other = OTHERS.iter().any(|other| variable == *other);
                assert!(is_other || settings.contains(&variable), "{variable:?}");
            }
        }
    }
}
